"""The oracle for cells and drivers, and the comparison of results.

The oracle is a Python loop over time with masks. It shares no code with the drivers.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.read_only import with_read_only
from .._base.typing import Array, DType, Key, Params, PyTree
from .._cells.base import RNNCell
from .._cells.bound import BoundCell
from .._drivers.dynamic_rnn import dynamic_rnn
from .._drivers.first_step import call_start
from .._drivers.raw_rnn import raw_rnn
from .._drivers.static_rnn import static_rnn
from .._tensor_array.tensor_array import TensorArray

TIME = 3
TOLERANCE = {"float64": 1e-9, "float32": 2e-4, "float16": 2e-2, "bfloat16": 1e-1}


@dataclasses.dataclass(frozen=True)
class Setup:
    """A cell under test, with the data for running the laws.

    Attributes:
        cell: The cell under test.
        params: The cell's parameters; all leaves are random, including biases.
        xs: Inputs, each leaf `[batch, TIME, ...]`.
        lengths: int32 `[batch]`, the length of each row, from 0 to more than `TIME`.
        state: The initial state.
        dtype: The dtype of all floating-point leaves.
        key: The random key of the run.
    """

    cell: RNNCell
    params: Params
    xs: PyTree
    lengths: Array
    state: PyTree
    dtype: DType
    key: Key | None = None

    def bind(self, params: Params | None = None) -> BoundCell:
        """Binds the cell to `params`, by default the parameters of the setup."""
        return self.cell.bind(self.params if params is None else params, self.key)

    def run(
        self, params: Params, xs: PyTree, state: PyTree, lengths: Any, **kwargs: Any
    ) -> tuple[PyTree, PyTree]:
        """Runs `dynamic_rnn` on the cell, with lengths `[batch]` or None."""
        bound = self.bind(params)
        return dynamic_rnn(bound, xs, lengths, state, dtype=self.dtype, **kwargs)

    @functools.cached_property
    def differentiator(self) -> Callable[..., tuple[PyTree, list[Array]]]:
        """The `differentiator` of `dynamic_rnn` with lengths, compiled only once."""
        return differentiator(self, Setup.run, self.lengths)

    @functools.cached_property
    def differentiated(self) -> tuple[PyTree, list[Array]]:
        """The results of `dynamic_rnn` with lengths, and their gradients."""
        return self.differentiator(self.params, self.xs, self.state)

    @functools.cached_property
    def loop_differentiator(self) -> Callable[..., tuple[PyTree, list[Array]]]:
        """The `differentiator` of the oracle, with the lengths as the last argument.

        The function is compiled only once for all lengths.
        """
        run = lambda setup, *args_and_lengths: unrolled(setup, *args_and_lengths[:-1])
        return differentiator(self, run, None)


def raw(
    setup: Setup, params: Params, xs: PyTree, state: PyTree, lengths: Array | None
) -> tuple[PyTree, PyTree]:
    """Runs `raw_rnn` over the steps of `xs`, with the arguments of `unrolled`."""
    counts = TIME if lengths is None else lengths

    def loop_fn(time: Array, output: PyTree, cell_state: PyTree, _: None) -> tuple:
        t = jnp.minimum(time, TIME - 1)
        inputs = jax.tree.map(lambda x: x[:, t], xs)
        next_state = state if output is None else cell_state
        return time >= counts, inputs, next_state, output, None

    emit_ta, state, _ = raw_rnn(setup.bind(params), loop_fn, max_time=TIME)
    is_array = lambda x: isinstance(x, TensorArray)
    stack = lambda ta: jnp.swapaxes(ta.stack(), 0, 1)
    return jax.tree.map(stack, emit_ta, is_leaf=is_array), state


class StepByStep:
    """A bound cell with only the RNNCell protocol, so drivers run single steps."""

    def __init__(self, bound: BoundCell) -> None:
        self.bound, self.start, self.zero_state = bound, bound.start, bound.zero_state
        self.state_size, self.output_size = bound.state_size, bound.output_size

    def __call__(self, inputs: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        return self.bound(inputs, state)

    def at_step(self, t: Array) -> "StepByStep":
        return StepByStep(self.bound.at_step(t))


def static(
    setup: Setup, params: Params, xs: PyTree, state: PyTree, lengths: Array | None
) -> tuple[PyTree, PyTree]:
    """Runs `static_rnn`, unrolled, over `xs`, with the arguments of `unrolled`."""
    steps = [jax.tree.map(lambda x, t=t: x[:, t], xs) for t in range(TIME)]
    cell = StepByStep(setup.bind(params))
    outputs, state = static_rnn(cell, steps, state, setup.dtype, lengths)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves, 1), *outputs), state


def unrolled(
    setup: Setup,
    params: Params,
    xs: PyTree,
    state: PyTree,
    lengths: Array | np.ndarray | None,
    resets: np.ndarray | None = None,
    reset_state: PyTree = None,
) -> tuple[PyTree, PyTree]:
    """The oracle: a Python loop over the steps of `xs` with masks."""
    results = unrolled_states(
        setup, params, xs, state, lengths, resets=resets, reset_state=reset_state
    )
    return results[:2]


def unrolled_states(
    setup: Setup,
    params: Params,
    xs: PyTree,
    state: PyTree,
    lengths: Array | np.ndarray | None,
    mask: np.ndarray | None = None,
    resets: np.ndarray | None = None,
    reset_state: PyTree = None,
) -> tuple[PyTree, PyTree, PyTree]:
    """`unrolled` with a mask, bool `[batch, time]`; also returns all states."""
    batch, time = jax.tree.leaves(xs)[0].shape[:2]
    counts = np.full(batch, time) if lengths is None else lengths
    # Leaves without axes change until the longest row ends, for at least one step.
    last_step, outputs, states = jnp.clip(jnp.max(counts), 1, time), [], []
    given, state = state, call_start(setup.bind(params), state)
    for t in range(time):
        alive = t < counts if mask is None else mask[:, t]
        # Finished rows read their first step again, so padding has no effect.
        other = lambda x: x[:, 0] if mask is None else jnp.zeros_like(x[:, 0])
        x = jax.tree.map(lambda x: _pick(alive, x[:, t], other(x)), xs)  # noqa: B023
        if resets is not None:
            keep, other = ~(alive & resets[:, t]), with_read_only(reset_state, state)
            state = jax.tree.map(lambda s, o: _pick(keep, s, o), state, other)  # noqa: B023
        output, new = setup.bind(params).at_step(jnp.int32(t))(x, state)
        outputs.append(jax.tree.map(lambda o: _pick(alive, o, o * 0), output))  # noqa: B023
        after = jax.tree.map(lambda n, o: _pick(alive, n, o), new, state)  # noqa: B023
        of_all = lambda n, o: n if n.ndim else jnp.where(t < last_step, n, o)  # noqa: B023
        state = jax.tree.map(of_all, after, state)
        states.append(state)
    state = with_read_only(state, given)
    join = lambda *steps: jnp.stack(steps, min(1, steps[0].ndim))
    stack = lambda steps: jax.tree.map(join, *steps)
    return stack(outputs), state, stack(states)


def _pick(alive: Array | np.ndarray, new: Array, old: Array) -> Array:
    if new.ndim == 0:
        return new
    mask = alive.reshape(alive.shape + (1,) * (new.ndim - 1))
    return jnp.where(mask, new, old)


def reversed_rows(x: Array, lengths: Array) -> Array:
    pairs = zip(x, np.asarray(lengths).tolist(), strict=True)
    return jnp.stack([jnp.concatenate([row[:n][::-1], row[n:]]) for row, n in pairs])


def differentiated(
    setup: Setup, run: Callable, lengths: Array | None
) -> tuple[PyTree, list[Array]]:
    """The results, and the gradients of their weighted sum."""
    compiled = differentiator(setup, run, lengths)
    return compiled(setup.params, setup.xs, setup.state)


def differentiator(
    setup: Setup, run: Callable, lengths: Array | None
) -> Callable[..., tuple[PyTree, list[Array]]]:
    """`differentiated` as a compiled function of parameters, inputs and state."""

    @jax.jit
    def compiled(*args: PyTree) -> tuple[PyTree, list[Array]]:
        floats, rebuild = split_floats(args)

        def loss(floats: list[Array]) -> tuple[Array, PyTree]:
            results = run(setup, *rebuild(floats), lengths)
            return weighted_sum(results), results

        gradients, results = jax.grad(loss, has_aux=True)(floats)
        return results, gradients

    return compiled


def split_floats(tree: PyTree) -> tuple[list[Array], Callable[[list[Array]], PyTree]]:
    leaves, treedef = jax.tree.flatten(tree)
    is_float = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]

    def rebuild(floats: list[Array]) -> PyTree:
        rest = iter(floats)
        pairs = zip(leaves, is_float, strict=True)
        return treedef.unflatten([next(rest) if f else leaf for leaf, f in pairs])

    return [x for x, f in zip(leaves, is_float, strict=True) if f], rebuild


def weighted_sum(tree: PyTree) -> Array:
    """A scalar whose gradient is different for each entry of the leaves."""
    floats, _ = split_floats(tree)
    total, begin = jnp.zeros((), floats[0].dtype), 0
    for leaf in floats:
        places = jnp.arange(begin, begin + leaf.size, dtype=leaf.dtype)
        total += jnp.sum(leaf * jnp.cos(places).reshape(leaf.shape))
        begin += leaf.size
    return total


def require(holds: Any, message: str) -> None:
    if not holds:
        raise AssertionError(message)


def same_types(got: PyTree, want: PyTree, what: str = "the result") -> None:
    to_type = lambda x: (tuple(x.shape), str(x.dtype))
    got, want = jax.tree.map(to_type, got), jax.tree.map(to_type, want)
    require(got == want, f"{what} must be {want}, got {got}")


def equal(got: PyTree, want: PyTree) -> None:
    jax.tree.map(np.testing.assert_array_equal, got, want)


def close(got: PyTree, want: PyTree, dtype: DType) -> None:
    """Raises AssertionError unless types are equal and values agree up to rounding."""
    same_types(got, want)
    tolerance = TOLERANCE[str(dtype)]
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        g, w = np.asarray(g, np.float64), np.asarray(w, np.float64)
        scale = max(1.0, np.abs(w).max(initial=0.0))
        np.testing.assert_allclose(g / scale, w / scale, rtol=0, atol=tolerance)
