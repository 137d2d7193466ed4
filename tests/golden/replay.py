"""The goldens' calls made with jaxrnn, and how far its results are from theirs.

Strict promotion and x64 must be on, as in the test suite.
"""

import functools
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn

from . import hand_cells, trees

TF1 = pathlib.Path(__file__).resolve().parent / "tf1"
_NAMED = {"LSTMStateTuple": jaxrnn.LSTMStateTuple}
_PARTS = ("outputs", "state")
Case = dict[str, Any]


@functools.cache
def recorded() -> dict[str, Any]:
    """What `make_tf1.py` wrote: the cases, the errors and TensorFlow's version."""
    return json.loads((TF1 / "cases.json").read_text())


@functools.cache
def arrays(family: str) -> dict[str, np.ndarray]:
    """All arrays of one family."""
    with np.load(TF1 / f"{family}.npz", allow_pickle=False) as stored:
        return {key: _unpacked(stored[key]) for key in stored.files}


def _unpacked(array: np.ndarray) -> np.ndarray:
    """Undoes the generator's packing: `uint16` stands for `bfloat16` only."""
    return array.view(jnp.bfloat16) if array.dtype == np.uint16 else array


def golden(case: Case, name: str) -> Any:
    """The case's tree of this name, such as `"params"` or `"state"`."""
    stored = arrays(case["family"])
    return trees.restore(
        case["structures"][name],
        lambda path: stored[f"{case['name']}/{name}{path}"],
        _NAMED,
    )


def golden_leaves(case: Case, prefix: str) -> dict[str, np.ndarray]:
    """The case's arrays below `prefix` by what follows it."""
    start = f"{case['name']}/{prefix}/"
    alone = f"{case['name']}/{prefix}"
    stored = arrays(case["family"])
    found = {k[len(alone) :]: a for k, a in stored.items() if k.startswith(start)}
    return found | ({"": stored[alone]} if alone in stored else {})


def build(spec: Any) -> Any:
    """The cell of a specification; equal specifications in a stack are one object."""
    if "not_a_cell" in spec:
        return spec["not_a_cell"]
    if "custom" in spec:
        return hand_cells.make(spec)
    args, kwargs = list(spec.get("args", ())), dict(spec["kwargs"])
    if "residual_fn" in kwargs:
        kwargs["residual_fn"] = hand_cells.RESIDUAL_FNS[kwargs["residual_fn"]]
    if "cells" in spec:
        args = [_stack(spec["cells"]), *args]
    elif "cell" in spec:
        args = [build(spec["cell"]), *args]
    return getattr(jaxrnn, spec["class"])(*args, **kwargs)


def _stack(specs: Any) -> Any:
    if not isinstance(specs, list):
        return build(specs)
    built: list[Any] = []
    for index, spec in enumerate(specs):
        first = specs.index(spec)
        built.append(built[first] if first < index else build(spec))
    return built


def arguments(case: Case) -> dict[str, Any]:
    """What gradients are taken of, by name: parameters, inputs and given states."""
    names = [key for key in case["structures"] if key not in _PARTS]
    return {name: jax.tree.map(jnp.asarray, golden(case, name)) for name in names}


def lengths(case: Case) -> jax.Array | None:
    """The case's lengths."""
    given = case["lengths"]
    return given and jnp.asarray(np.asarray(given["values"], given["dtype"]))


def call(case: Case, given: dict[str, Any], sequence_length: Any) -> dict[str, Any]:
    """Outputs and state of the case's function."""
    options = {
        "sequence_length": sequence_length,
        "dtype": jnp.dtype(case["dtype"]) if case["pass_dtype"] else None,
        "time_major": case["time_major"],
    }
    cell, inputs = build(case["cell"]), given["inputs"]
    if case["function"] == "bidirectional_dynamic_rnn":
        cells = (
            cell.bind(given["params_fw"]),
            build(case["cell_bw"]).bind(given["params_bw"]),
        )
        states = {k: v for k, v in given.items() if k.startswith("initial_state")}
        run = jaxrnn.bidirectional_dynamic_rnn
        outputs, state = run(*cells, inputs, **states, **options)
        return {"outputs": outputs, "state": state}
    bound, state = cell.bind(given["params"]), given.get("initial_state")
    if case["function"] == "cell":
        outputs, state = bound(inputs, state)
    else:
        outputs, state = jaxrnn.dynamic_rnn(
            bound, inputs, initial_state=state, **options
        )
    return {"outputs": outputs, "state": state}


def _is_float(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def floats(tree: Any) -> dict[str, Any]:
    """The floating leaves by path."""
    return {path: leaf for path, leaf in trees.leaves(tree) if _is_float(leaf)}


def run(case: Case) -> tuple[dict[str, Any], dict[str, jax.Array]]:
    """The results of a case, and the gradients by path, both from one compilation."""
    given, sequence_length = arguments(case), lengths(case)
    cotangents = {
        f"/{part}{path}": jnp.asarray(array)
        for part in _PARTS
        for path, array in golden_leaves(case, f"w_{part}").items()
    }

    @jax.jit
    def both(sources, given, cotangents, sequence_length):
        def differentiable(sources):
            full = trees.map_leaves(lambda p, leaf: sources.get(p, leaf), given)
            results = call(case, full, sequence_length)
            return floats(results), results

        _, pull, results = jax.vjp(differentiable, sources, has_aux=True)
        (grads,) = pull(cotangents)
        return results, grads

    return both(floats(given), given, cotangents, sequence_length)


def pairs(case: Case) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """Each part (`outputs`, `state`, `grads`), path, jaxrnn's array and TensorFlow's.

    Raises:
        AssertionError: If structures, shapes, dtypes or paths differ.
    """
    results, grads = run(case)
    for part in _PARTS:
        described = trees.describe(results[part])
        assert described == case["structures"][part], part
        wanted = dict(trees.leaves(golden(case, part)))
        for path, array in trees.leaves(results[part]):
            yield part, path, np.asarray(array), wanted[path]
    wanted = golden_leaves(case, "grads")
    assert set(grads) == set(wanted)
    for path, array in grads.items():
        assert array.dtype == wanted[path].dtype, path
        assert array.shape == wanted[path].shape, path
        yield "grads", path, np.asarray(array), wanted[path]


def argument(value: Any) -> Any:
    """An argument of `error_specs.py` as jaxrnn takes it."""
    if not isinstance(value, dict):
        return value
    ((kind, inner), *rest) = value.items()
    if kind == "array":
        return jnp.zeros(inner, rest[0][1])
    if kind == "values":
        return jnp.asarray(np.asarray(inner, rest[0][1]))
    if kind == "dict":
        return {key: argument(part) for key, part in inner.items()}
    parts = [argument(part) for part in inner]
    if kind in _NAMED:
        return _NAMED[kind](*parts)
    return parts if kind == "list" else tuple(parts)


def bound_cells(error: dict[str, Any]) -> list[Any]:
    """The error's cells, bound to fresh parameters; none if one is only to be made."""
    if error["function"] == "build":
        return []
    specs = [error["cell"], error["cell_bw"]]
    return [_bound(spec, error["step"]) for spec in specs if spec is not None]


def _bound(spec: dict[str, Any], step: dict[str, Any]) -> Any:
    """A cell bound to parameters for float32 inputs; what is no cell as it is."""
    cell = build(spec)
    if "not_a_cell" in spec:
        return cell

    def leaf(size):
        return jax.ShapeDtypeStruct((3, *size["shape"]), jnp.float32)

    key = jax.random.key(0)
    return cell.bind(cell.init(key, trees.sizes(step, leaf)), key)


def attempt(error: dict[str, Any], cells: list[Any]) -> Any:
    """Makes the call of an error with cells that are bound, or builds its cell."""
    function = error["function"]
    if function == "build":
        return build(error["cell"])
    given = {key: argument(value) for key, value in error["arguments"].items()}
    if function == "zero_state":
        return cells[0].zero_state(**given)
    if function == "cell":
        return cells[0](**given)
    return getattr(jaxrnn, function)(*cells, **given)
