"""The loops' goldens made with jaxrnn, and how far its results are from theirs.

Strict promotion and x64 must be on, as in the test suite.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn

from . import hand_cells, hand_loops, replay, store, trees

# Steps that the buffers of raw_rnn hold under jit, beyond those that it takes.
SPARE = 3


def _none_seen(at: hand_loops.At) -> None:
    assert at.loop is None  # TensorFlow passes a zero.


hand_loops.LOOPS["none_seen"] = _none_seen
Case = store.Case


def steps(case: Case) -> int | None:
    """How many steps raw_rnn takes."""
    if case["function"] != "raw_rnn":
        return None
    emit = store.below(case, "results/emit")
    sizes = [int(size) for path, size in emit.items() if path.endswith("/size")]
    return sizes[0] if sizes else case["steps"]


def cells(specs: Any, params: Any) -> Any:
    """The cells of a case, bound; what is no cell as it is."""
    if specs is None:
        return None
    if "not_a_cell" in specs:
        return specs["not_a_cell"]
    if specs.keys() & {"class", "cells", "custom"}:
        return replay.build(specs).bind(params)
    return {key: cells(spec, params.get(key, {})) for key, spec in specs.items()}


def call(case: Case, given: dict[str, Any], max_time: int | None) -> dict[str, Any]:
    """The results of a case by name."""
    bound = cells(case["cells"], given.get("params", {}))
    raw_rnn = functools.partial(jaxrnn.raw_rnn, max_time=max_time)
    xp = hand_cells.Library(replay.JAX, raw_rnn=raw_rnn)
    return hand_loops.run(xp, case, bound, given["given"], given.get("start"))


def run(case: Case, *, jit: bool, spare: int = 0) -> tuple[Any, Any]:
    """The results of a case under jit, and the gradients by path.

    Without jit there are no gradients.
    """
    given, count = replay.arguments(case), steps(case)
    if not jit:
        return jax.tree.map(np.asarray, call(case, given, None)), None
    run_case = functools.partial(
        call, case, max_time=None if count is None else count + spare
    )
    both = jax.jit(functools.partial(replay.differentiated, run_case))
    return jax.tree.map(np.asarray, both(given, store.below(case, "w_results")))


def _trimmed(tree: Any) -> Any:
    """`tree` with no more in each stack than there are elements.

    Raises:
        AssertionError: If what is beyond is not zero.
    """
    if isinstance(tree, dict) and tree.keys() == {"size", "stack"}:
        beyond = tree["stack"][int(tree["size"]) :]
        assert not beyond.astype(bool).any(), "Beyond the elements are zeros."
        return {**tree, "stack": tree["stack"][: int(tree["size"])]}
    parts = trees.children(tree)
    if parts is None:
        return tree
    return trees.rebuild(tree, [_trimmed(part) for _, part in parts])


def pairs(
    case: Case, *, jit: bool, spare: int = 0
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Each path with jaxrnn's array and TensorFlow's."""
    results, grads = run(case, jit=jit, spare=spare)
    return replay.matched(case, {"results": _trimmed(results)}, grads)


def attempt(case: Case, *, jit: bool) -> None:
    """Makes the call of a refusal with drawn parameters, under jit by tracing alone."""
    given = _stand_ins(case)
    if jit:
        jax.eval_shape(lambda given: call(case, given, 4), given)
    else:
        call(case, given, None)


def _stand_ins(case: Case) -> dict[str, Any]:
    """Arguments, parameters and states of ones, where TensorFlow's were drawn."""

    def ones(size):
        dtype = jnp.dtype(size.get("dtype", case["dtype"]))
        return jnp.ones(size["shape"], dtype)

    given = {key: trees.sizes(tree, ones) for key, tree in case["arguments"].items()}
    given |= {
        key: jnp.asarray(np.asarray(value["values"], value["dtype"]))
        for key, value in case["values"].items()
    }
    return {"given": given, **_cell_stand_ins(case)}


def _cell_stand_ins(case: Case) -> dict[str, Any]:
    if case["cells"] is None or "not_a_cell" in str(case["cells"]):
        return {}
    dtype = jnp.dtype(case["dtype"])

    def params(specs, depth=3):
        if specs.keys() & {"class", "cells", "custom"}:
            step = jax.ShapeDtypeStruct((3, depth), dtype)
            return replay.build(specs).init(jax.random.key(0), step)
        return {
            key: params(spec, depth if key != "layer_1" else 8)
            for key, spec in specs.items()
        }

    given = {"params": params(case["cells"])}
    if case["initial_state"] == "given":
        given["start"] = _state(case, dtype)
    return given


def _state(case: Case, dtype: Any) -> Any:
    def ones(size):
        batch = [case["batch"]] if size.get("batched", True) else []
        return jnp.ones(batch + size["shape"], jnp.dtype(size.get("dtype", dtype)))

    if case["state"] is not None:
        return trees.sizes(case["state"], ones)
    return replay.build(case["cells"]).zero_state(case["batch"], dtype)
