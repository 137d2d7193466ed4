"""How far a file of TensorFlow Lite is from its function."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from .._base.errors import describe
from .._base.typing import PyTree
from ._optional import import_optional


def tflite_deviation(
    file: bytes, f: Callable[..., PyTree], *arguments: PyTree
) -> float:
    """The largest difference between a file of TensorFlow Lite and its function.

    Args:
        file: From `to_tflite` or `to_tflite_operators`.
        f: The function whose results the file is to compute; for
            `to_tflite_operators` one that returns the outputs alone.
        *arguments: Its arguments, arrays.

    Returns:
        The greatest absolute difference between numbers of the leaves of the results.

    Raises:
        ValueError: If file and function differ in the number of arguments or results,
            or in a shape.
        ImportError: If `ai_edge_litert` is missing.

    Source: `ai_edge_litert.interpreter.Interpreter`.
    """
    where = "tflite_deviation"
    litert = import_optional(where, "ai_edge_litert.interpreter")
    run = litert.Interpreter(model_content=file).get_signature_runner()
    names, leaves = _in_order(run.get_input_details()), jax.tree.leaves(arguments)
    if len(names) != len(leaves):
        raise ValueError(
            f"{where}: `arguments` must hold {len(names)} arrays, as the file has "
            f"inputs, got {len(leaves)}."
        )
    results = run(**dict(zip(names, map(np.asarray, leaves), strict=True)))
    got = [results[name] for name in _in_order(results)]
    want = [np.asarray(leaf) for leaf in jax.tree.leaves(jax.jit(f)(*arguments))]
    if [x.shape for x in got] != [x.shape for x in want]:
        described = [", ".join(map(describe, leaves)) for leaves in (got, want)]
        raise ValueError(
            f"{where}: `f` must return what `file` does, {described[0]}, got "
            f"{described[1]}."
        )
    pairs = zip(got, want, strict=True)
    differences = [np.abs(x.astype(float) - y.astype(float)) for x, y in pairs]
    return float(max(map(np.max, differences), default=0.0))


def _in_order(names: Any) -> list[str]:
    """`output_2` before `output_10`."""
    return sorted(names, key=lambda name: (len(name), name))
