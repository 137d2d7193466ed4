"""Functions as files of TensorFlow Lite, by TensorFlow's converter."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import checkify

from .._base.arguments import check_functions
from .._base.errors import describe
from .._base.typing import Array, PyTree
from ._examples import check_examples, check_fixed_sizes
from ._optional import import_optional

_WHERE = "to_tflite"
_OPTIMIZE = (None, "float16", "int8")


def to_tflite(
    f: Callable[..., PyTree], *examples: PyTree, optimize: str | None = None
) -> bytes:
    """The program of `f` as a file of TensorFlow Lite, for arguments of these sizes.

    A driver is a loop in the file; `to_tflite_operators` writes an LSTM as one
    operator, which runs faster. The file has one signature: it takes `input_0`,
    `input_1`, ..., which are `jax.tree.leaves(examples)`, and returns `output_0`, ...,
    the leaves of the result.

    `raw_rnn` with `max_time` and `decode.greedy` can be written. TensorFlow Lite has
    neither random numbers nor the `jax.lax.top_k` of `decode.beam_search`. Make bound
    cells outside of `f`, as `init` draws random numbers.

    Args:
        f: A function of nests of arrays that can be compiled by `jax.jit`.
        *examples: Its arguments, or `jax.ShapeDtypeStruct`s in place of arrays.
        optimize: "float16" to store weights with 16 bits; "int8" to store the matrices
            with 8 bits, and multiply by integers where LiteRT can. None for float32.
            `tflite_deviation` measures what is lost.

    Returns:
        The file.

    Raises:
        TypeError: If `f` is not a function, or an argument holds something that has no
            shape and dtype.
        ValueError: If `optimize` is not known, a size is not fixed, or TensorFlow Lite
            lacks an operation of `f`.
        ImportError: If TensorFlow is missing: `pip install tensorflow-cpu`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn, jaxrnn.export
        >>> cell = jaxrnn.GRUCell(4)
        >>> step = jax.ShapeDtypeStruct((1, 3), jnp.float32)
        >>> bound = cell.bind(cell.init(jax.random.key(0), step))
        >>> run = lambda x: jaxrnn.dynamic_rnn(bound, x, dtype=x.dtype)
        >>> x = jax.ShapeDtypeStruct((2, 5, 3), jnp.float32)
        >>> file = jaxrnn.export.to_tflite(run, x)  # doctest: +SKIP
        >>> from ai_edge_litert.interpreter import Interpreter  # doctest: +SKIP
        >>> interpreter = Interpreter(model_content=file)  # doctest: +SKIP
        >>> run = interpreter.get_signature_runner()  # doctest: +SKIP
        >>> results = run(input_0=np.ones((2, 5, 3), np.float32))  # doctest: +SKIP
        >>> outputs, state = results["output_0"], results["output_1"]  # doctest: +SKIP

    Source: `jax.experimental.jax2tf`; `tf.lite.TFLiteConverter`.
    """
    check_functions(_WHERE, f=f)
    check_examples(_WHERE, examples)
    check_fixed_sizes(_WHERE, examples)
    if optimize not in _OPTIMIZE:
        raise ValueError(
            f"{_WHERE}: `optimize` must be None, 'float16' or 'int8', got "
            f"{describe(optimize)}."
        )
    program, leaves = _program(f, examples)
    jax.eval_shape(
        program, *leaves
    )  # Raises what `f` raises without TensorFlow's frames.
    tf = import_optional(_WHERE, "tensorflow", "tensorflow-cpu")
    converter = _converter(tf, program, leaves)
    if optimize is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if optimize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    try:
        return bytes(converter.convert())
    except Exception as error:  # TensorFlow's own classes.
        raise ValueError(
            f"{_WHERE}: TensorFlow Lite lacks an operation of `f`; it has no random "
            "numbers and no `jax.lax.top_k`, among others. `to_stablehlo` exports any "
            f"function. TensorFlow's error: {str(error)[:300]}"
        ) from error


def _program(f: Callable[..., PyTree], examples: tuple) -> tuple[Callable, list]:
    """The function from leaves to named leaves, and the leaves that it takes."""
    leaves, structure = jax.tree.flatten(examples)
    # Checks of values at run time have effects, which TensorFlow Lite does not have.
    without_checks = checkify.checkify(f, errors=frozenset())

    def program(*arguments: Array) -> dict[str, Array]:
        _, results = without_checks(*structure.unflatten(arguments))
        results = enumerate(jax.tree.leaves(results))
        return {f"output_{i}": leaf for i, leaf in results}

    return program, [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves]


def _converter(tf: Any, program: Callable, leaves: list[jax.ShapeDtypeStruct]) -> Any:
    jax2tf = import_optional(_WHERE, "jax.experimental.jax2tf")
    module = tf.Module()  # Keeps the function alive, and its signature in the file.
    converted = jax2tf.convert(program, with_gradient=False)
    module.f = tf.function(converted, autograph=False)
    specs = [
        tf.TensorSpec(leaf.shape, leaf.dtype, f"input_{i}")
        for i, leaf in enumerate(leaves)
    ]
    concrete = module.f.get_concrete_function(*specs)
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete], module)


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
    differences = [np.abs(x.astype(float) - y.astype(float)).max() for x, y in pairs]
    return float(max(differences))


def _in_order(names: Any) -> list[str]:
    """`output_2` before `output_10`."""
    return sorted(names, key=lambda name: (len(name), name))
