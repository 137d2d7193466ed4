"""The goldens' calls made with jaxrnn, and how far its results are from theirs.

Strict promotion and x64 must be on, as in the test suite.
"""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
import jaxrnn.contrib

from . import hand_cells, store, trees

# Relative and absolute, per dtype of the case. Each operation in half precision rounds,
# and the two libraries neither sum in one order nor fuse the same operations.
TOLERANCES = {
    "float64": (1e-12, 1e-13),
    "float32": (1e-5, 1e-6),
    "float16": (1e-2, 5e-3),
    "bfloat16": (5e-2, 5e-2),
}
_NAMED = {"LSTMStateTuple": jaxrnn.LSTMStateTuple}
_PARTS = ("outputs", "state")
Case = store.Case


class ProtocolCell:
    """A cell that is none of jaxrnn's classes, but keeps their protocol."""

    def __init__(self, step: Callable[..., Any], state_size: Any, output_size: Any):
        """Takes `step(params, inputs, state)` of a cell without parameters."""
        self._step = step
        self.state_size = state_size
        self.output_size = output_size

    def __call__(self, inputs: Any, state: Any) -> tuple[Any, Any]:
        """One step."""
        return self._step({}, inputs, state)

    def zero_state(self, batch_size: int, dtype: Any) -> Any:
        """Zeros for each size of the state; the goldens' are leaves."""
        shape = self.state_size
        return jnp.zeros((batch_size, *tuple(shape)), dtype)

    def bind(self, params: dict[str, jax.Array], key: Any = None) -> "ProtocolCell":
        """Itself, so that tests treat all cells alike."""
        return self

    def init(self, key: Any, inputs: Any, dtype: Any = None) -> dict[str, jax.Array]:
        """No parameters."""
        return {}


def _hand_cell(spec: dict[str, Any], step: Callable[..., Any], *sizes: Any) -> Any:
    if spec["protocol"]:
        return ProtocolCell(step, *sizes)

    def call(params, inputs, state, key=None):
        return step(params, inputs, state)

    return jaxrnn.FunctionCell(call, *sizes, **spec.get("ours", {}))


JAX = hand_cells.Library(
    *(jnp, jax.nn, jax.lax, jaxrnn, jaxrnn.contrib),
    hand_cell=_hand_cell,
    extras=lambda spec: spec.get("ours", {}),
    constant=lambda array: array,
)


def golden(case: Case, name: str) -> Any:
    """The case's tree of this name, such as `"params"` or `"state"`."""
    stored = store.arrays(case)
    return trees.restore(
        case["structures"][name], lambda path: stored[f"/{name}{path}"], _named(case)
    )


def _named(case: Case) -> dict[str, type]:
    """The named tuples in the case's trees and in its cell's state, by name."""
    if case["folder"] != "contrib":
        return _NAMED
    found, nests = dict(_NAMED), [getattr(build(case["cell"]), "state_size", None)]
    for nest in nests:
        if hasattr(nest, "_fields"):
            found[type(nest).__name__] = type(nest)
        nests += [part for _, part in trees.children(nest) or []]
    return found


def build(spec: Any) -> Any:
    """The cell of a specification."""
    return hand_cells.build(JAX, spec)


def arguments(case: Case) -> dict[str, Any]:
    """What gradients are taken of, by name: parameters, inputs and given states.

    `jnp.asarray` would compile a copy for each shape.
    """
    results = (*_PARTS, "results")
    names = [key for key in case["structures"] if key not in results]
    return {name: jax.tree.map(jax.device_put, golden(case, name)) for name in names}


def lengths(case: Case) -> jax.Array | None:
    """The case's lengths."""
    given = case["lengths"]
    if given is None:
        return None
    values = np.asarray(given["values"], given["dtype"])
    # TensorFlow casts booleans. Here they raise an error, because they may be a mask.
    return jax.device_put(values.astype(np.int32) if values.dtype == bool else values)


def call(case: Case, given: dict[str, Any], sequence_length: Any) -> dict[str, Any]:
    """Outputs and state of the case's function."""
    options = {
        "sequence_length": sequence_length,
        "dtype": jnp.dtype(case["dtype"]) if case["pass_dtype"] else None,
        "time_major": case["time_major"],
    }
    cell, inputs = build(case["cell"]), given["inputs"]
    if case["function"] == "bidirectional_dynamic_rnn":
        states = {k: v for k, v in given.items() if k.startswith("initial_state")}
        backward = build(case["cell_bw"]).bind(given["params_bw"])
        bound = cell.bind(given["params_fw"]), backward
        found = jaxrnn.bidirectional_dynamic_rnn(*bound, inputs, **states, **options)
        return dict(zip(_PARTS, found, strict=True))
    bound, state = cell.bind(given["params"]), given.get("initial_state")
    if case["function"] == "cell":
        found = bound(inputs, state)
    elif case["function"] == "fused":
        found = bound(inputs, state, options["dtype"], sequence_length)
    else:
        found = jaxrnn.dynamic_rnn(bound, inputs, initial_state=state, **options)
    return dict(zip(_PARTS, found, strict=True))


def floats(tree: Any) -> dict[str, Any]:
    """The floating-point leaves by path."""
    is_float = lambda leaf: jnp.issubdtype(leaf.dtype, jnp.floating)
    return {path: leaf for path, leaf in trees.leaves(tree) if is_float(leaf)}


def differentiated(
    call: Callable[[Any], Any], given: Any, cotangents: dict[str, Any]
) -> tuple[Any, dict[str, jax.Array]]:
    """The results of `call(given)`, and the gradients by path.

    A buffer that is larger than its cotangent gets ones beyond, which have no effect.
    """

    def differentiable(sources):
        full = trees.map_leaves(lambda path, leaf: sources.get(path, leaf), given)
        results = call(full)
        return floats(results), results

    def fitting(path, value):
        cotangent = jnp.asarray(cotangents[path])
        more = value.shape[0] - cotangent.shape[0] if value.ndim else 0
        spare = jnp.ones((max(more, 0), *value.shape[1:]), value.dtype)
        return jnp.concatenate([cotangent, spare]) if more > 0 else cotangent

    values, pull, results = jax.vjp(differentiable, floats(given), has_aux=True)
    (grads,) = pull({path: fitting(path, value) for path, value in values.items()})
    return results, grads


def run(case: Case) -> tuple[dict[str, Any], dict[str, jax.Array]]:
    """The results of a case, and the gradients by path, both from one compilation."""
    named = store.arrays(case).items()
    cotangents = {f"/{path[3:]}": w for path, w in named if path.startswith("/w_")}

    @jax.jit
    def both(given, cotangents, sequence_length):
        run_case = lambda full: call(case, full, sequence_length)
        return differentiated(run_case, given, cotangents)

    with warnings.catch_warnings():  # TensorFlow does not warn of a plain pair.
        warnings.filterwarnings("ignore", ".* has a plain pair")
        return both(arguments(case), cotangents, lengths(case))


def matched(
    case: Case, results: dict[str, Any], grads: dict[str, Any] | None = None
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Each path of the results and of the gradients, if any, with both arrays.

    Raises:
        AssertionError: If structures, shapes, dtypes or paths differ.
    """
    for part, tree in results.items():
        assert trees.describe(tree) == case["structures"][part], part
    parts = {part: dict(trees.leaves(tree)) for part, tree in results.items()}
    for part, got in (parts if grads is None else parts | {"grads": grads}).items():
        wanted = store.below(case, part)
        assert got.keys() == wanted.keys()
        for path, array in got.items():
            what = wanted[path]
            assert (array.dtype, array.shape) == (what.dtype, what.shape), part + path
            yield f"{part}{path}", np.asarray(array), what


def check(case: Case, with_gradients: bool = True, slack: float = 1) -> None:
    """Compares all results of a case and, unless told otherwise, the gradients.

    Raises:
        AssertionError: If one differs by more than the tolerance of the dtype, times
            `slack`.
    """
    results, grads = run(case)
    rtol, atol = TOLERANCES[case["dtype"]]
    for path, got, what in matched(case, results, grads if with_gradients else None):
        assert_near(path, got, what, rtol, atol * slack)


def assert_near(
    path: str, got: Any, wanted: np.ndarray, rtol: float, atol: float
) -> None:
    """Compares an array with TensorFlow's, exactly unless it is floating-point.

    An entry that is a small sum of large terms is rounded as those are.
    """
    if not store.is_float(wanted.dtype.name):
        rtol = atol = 0
    wide, wanted = np.asarray(got, np.float64), wanted.astype(np.float64)
    finite = np.abs(wanted[np.isfinite(wanted)])
    atol *= max(1, finite[finite < 1e30].max(initial=0))
    np.testing.assert_allclose(wide, wanted, rtol, atol, equal_nan=False, err_msg=path)


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
    values = error["arguments"].items()
    given = {key: hand_cells.argument(JAX, value) for key, value in values}
    if function == "zero_state":
        return cells[0].zero_state(**given)
    if function == "cell":
        return cells[0](**given)
    return getattr(jaxrnn, function)(*cells, **given)
