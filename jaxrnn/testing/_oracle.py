"""Test data for a cell, and the oracle, a Python loop that computes expected results.

The oracle predicts the results of `dynamic_rnn`, `raw_rnn` and
`bidirectional_dynamic_rnn`. It loops over time with masks, and shares none of the code
of these functions for loops, masks and gradients.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.errors import describe, describe_leaves
from .._base.math import at_least_float32
from .._base.trees import has_read_only, is_tensor_array, map_sizes, with_read_only
from .._base.typing import Array, DType, Key, Params, PyTree, Shaped
from .._cells.base import BoundCell, RNNCell
from .._drivers.dynamic_rnn import dynamic_rnn
from .._drivers.raw_rnn import raw_rnn
from .._run.first_step import call_start

TIME = 3
TOLERANCE = {"float64": 1e-9, "float32": 2e-4, "float16": 2e-2, "bfloat16": 1e-1}
TOLERANCE |= {"complex128": TOLERANCE["float64"], "complex64": TOLERANCE["float32"]}


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
        self, params: Params, xs: PyTree, state: PyTree, lengths: Any, **options: Any
    ) -> tuple[PyTree, PyTree]:
        """Runs `dynamic_rnn` with `lengths` `[batch]` or None, and with `options`."""
        bound = self.bind(params)
        return dynamic_rnn(bound, xs, lengths, state, dtype=self.dtype, **options)

    @functools.cached_property
    def differentiator(self) -> Callable[..., tuple[PyTree, list[Array]]]:
        """The function `differentiator(self, Setup.run)`, compiled only once."""
        return differentiator(self, Setup.run)

    @functools.cached_property
    def differentiated(self) -> tuple[PyTree, list[Array]]:
        """The results of `dynamic_rnn` with lengths, and their gradients."""
        return self.differentiator(self.params, self.xs, self.state, self.lengths)


def make_setup(
    cell: RNNCell,
    inputs: Shaped | PyTree,
    dtype: DType = jnp.float32,
    key: Key | None = None,
    state: PyTree = None,
) -> Setup:
    """Creates a cell's `Setup`: random parameters, inputs and state, and fixed lengths.

    Args:
        cell: The cell under test.
        inputs: One step of inputs, `[batch, ...]` or a nest, given as arrays or as
            `jax.ShapeDtypeStruct`s. Only shapes and kinds of numbers are read: the
            setup draws real and complex leaves in `dtype`, and integers from 0 and 1.
            The batch size should be at least 4.
        dtype: The dtype of parameters, inputs and state.
        key: The random key of the run, for cells that draw random numbers.
        state: The initial state. Default: a random state with the structure of
            `state_size`.
    """
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    rng = np.random.default_rng(0)

    def draw(shape: tuple[int, ...], declared: DType) -> Array:
        if jnp.issubdtype(declared, jnp.integer):
            return jnp.asarray(rng.integers(0, 2, shape), declared)
        values = rng.normal(size=shape) * 0.7
        if jnp.issubdtype(dtype, jnp.complexfloating):
            values = values + 0.7j * rng.normal(size=shape)
        return jnp.asarray(values, dtype)

    batch = jax.tree.leaves(inputs)[0].shape[0]
    step = jax.tree.map(lambda x: draw(x.shape, x.dtype), inputs)
    # `eval_shape` avoids compiling the random draws of `init`.
    shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0), step, dtype))
    params = jax.tree.map(lambda p: draw(p.shape, p.dtype), shapes)
    if state is None:
        state = map_sizes(lambda s: draw((batch, *s), dtype), cell.state_size)
    return Setup(
        cell=cell,
        params=params,
        xs=jax.tree.map(lambda x: draw((batch, TIME, *x.shape[1:]), x.dtype), inputs),
        lengths=jnp.asarray([(3 * b) % (TIME + 2) for b in range(batch)], jnp.int32),
        state=cell.start(params, state) if has_read_only(state) else state,
        dtype=dtype,
        key=key,
    )


def raw(
    setup: Setup, params: Params, xs: PyTree, state: PyTree, lengths: Array | None
) -> tuple[PyTree, PyTree]:
    """Runs `raw_rnn` over the steps of `xs`, with the arguments of `unrolled`."""
    counts = TIME if lengths is None else lengths

    def loop_fn(time: Array, output: PyTree, cell_state: PyTree, _: None) -> tuple:
        inputs = at_steps(xs, jnp.minimum(time, TIME - 1))
        next_state = state if output is None else cell_state
        return time >= counts, inputs, next_state, output, None

    emit_ta, state, _ = raw_rnn(setup.bind(params), loop_fn, max_time=TIME)
    outputs = jax.tree.map(lambda ta: ta.stack(), emit_ta, is_leaf=is_tensor_array)
    return swapped(outputs), state


def unrolled(*args: Any, **options: Any) -> tuple[PyTree, PyTree]:
    """Returns only the outputs and the last state of `unrolled_states`."""
    return unrolled_states(*args, **options)[:2]


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
    """The oracle: a Python loop over the steps of `xs` with masks.

    Args:
        setup: The cell and its key.
        params: As in `Setup`.
        xs: As in `Setup`.
        state: As in `Setup`.
        lengths: As in `Setup`. If None, all steps are valid.
        mask: Bool `[batch, time]`, true at valid steps; replaces `lengths`.
        resets: Bool `[batch, time]`, true at steps before which a row is reset.
        reset_state: The state that rows are reset to.

    Returns:
        The outputs, the last state, and the state after each step.
    """
    batch, time = jax.tree.leaves(xs)[0].shape[:2]
    counts = np.full(batch, time) if lengths is None else lengths
    # Scalar leaves are updated until the longest row ends, and at least once.
    last_step = jnp.clip(jnp.max(counts), 1, time)
    bound = setup.bind(params)
    first_state = state
    state = call_start(bound, state)
    outputs = []
    states = []
    for t in range(time):
        alive = t < counts if mask is None else mask[:, t]
        # A finished row reads its first step again, and a masked step reads zeros.
        # `_select` drops the results that are computed from these inputs. If rows
        # interact, other rows read these inputs too, so finished rows also get zeros.
        unused = at_steps(xs, 0)
        if mask is not None or setup.cell.rows_interact:
            unused = jax.tree.map(jnp.zeros_like, unused)
        if resets is not None:
            reset = with_read_only(reset_state, state)
            # A reset takes effect at a masked step, but not past the length of a row.
            reset_rows = resets[:, t] if lengths is None else alive & resets[:, t]
            state = _select(~reset_rows, state, reset)
        inputs = _select(alive, at_steps(xs, t), unused)
        output, new_state = bound.at_step(jnp.int32(t))(inputs, state)
        outputs.append(_select(alive, output, jax.tree.map(jnp.zeros_like, output)))
        state = _select(alive, new_state, state, t < last_step)
        states.append(state)
    return _stacked(outputs), with_read_only(state, first_state), _stacked(states)


def _select(
    alive: Array | np.ndarray, new: PyTree, old: PyTree, is_running: bool | Array = True
) -> PyTree:
    """`new` in rows that are not finished and, if `is_running`, in scalar leaves."""

    def select(new: Array, old: Array) -> Array:
        if new.ndim == 0:
            return jnp.where(is_running, new, old)
        mask = alive.reshape(alive.shape + (1,) * (new.ndim - 1))
        return jnp.where(mask, new, old)

    return jax.tree.map(select, new, old)


def _stacked(steps: list[PyTree]) -> PyTree:
    """Stacks the results of steps along axis 1, or along axis 0 if they are scalars."""
    return jax.tree.map(
        lambda *leaves: jnp.stack(leaves, min(1, leaves[0].ndim)), *steps
    )


def at_steps(tree: PyTree, index: int | slice | Array) -> PyTree:
    """The steps at `index` of a nest of arrays `[batch, time, ...]`."""
    return jax.tree.map(lambda x: x[:, index], tree)


def swapped(tree: PyTree) -> PyTree:
    """The nest with its first two axes, time and batch, swapped."""
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), tree)


def reversed_rows(x: Array, lengths: Array) -> Array:
    pairs = zip(x, np.asarray(lengths).tolist(), strict=True)
    return jnp.stack([jnp.concatenate([row[:n][::-1], row[n:]]) for row, n in pairs])


def differentiated(setup: Setup, run: Callable, lengths: Array | None) -> tuple:
    """Returns the results of `run`, and the gradients of their weighted sum."""
    return differentiator(setup, run)(setup.params, setup.xs, setup.state, lengths)


def differentiator(setup: Setup, run: Callable) -> Callable[..., tuple]:
    """Compiles `differentiated` to a function of `(params, xs, state, lengths)`."""

    @jax.jit
    def compiled(*args: PyTree) -> tuple[PyTree, list[Array]]:
        floats, rebuild = split_floats(args)

        def loss(floats: list[Array]) -> tuple[Array, PyTree]:
            results = run(setup, *rebuild(floats))
            return weighted_sum(results), results

        gradients, results = jax.grad(loss, has_aux=True)(floats)
        return results, gradients

    return compiled


def split_floats(tree: PyTree) -> tuple[list[Array], Callable[[list[Array]], PyTree]]:
    leaves, treedef = jax.tree.flatten(tree)
    is_float = [jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves]

    def rebuild(floats: list[Array]) -> PyTree:
        rest = iter(floats)
        pairs = zip(leaves, is_float, strict=True)
        return treedef.unflatten([next(rest) if f else leaf for leaf, f in pairs])

    return [x for x, f in zip(leaves, is_float, strict=True) if f], rebuild


def weighted_sum(tree: PyTree) -> Array:
    """Returns the sum of all entries of all leaves, with weight cos(i) for entry i.

    The sum is a real scalar. In float32 and float64, the gradients of all entries
    differ.
    """
    floats = []
    for leaf in split_floats(tree)[0]:
        is_complex = jnp.iscomplexobj(leaf)
        floats += [leaf.real, leaf.imag] if is_complex else [leaf]
    total = jnp.zeros((), floats[0].dtype)
    begin = 0
    for leaf in floats:
        # bfloat16 represents exactly only integers up to 256.
        wide = at_least_float32(leaf.dtype)
        places = jnp.arange(begin, begin + leaf.size, dtype=wide)
        weights = jnp.cos(places).astype(leaf.dtype).reshape(leaf.shape)
        total += jnp.sum(leaf * weights)
        begin += leaf.size
    return total


def require(holds: bool | Array, message: str) -> None:
    if not holds:
        raise AssertionError(message)


def same_types(got: PyTree, want: PyTree, what: str = "the result") -> None:
    text = f"{what} must be {describe_leaves(want)}, got {describe_leaves(got)}"
    require(jax.tree.map(describe, got) == jax.tree.map(describe, want), text)


def equal(got: PyTree, want: PyTree) -> None:
    jax.tree.map(np.testing.assert_array_equal, got, want)


def close(got: PyTree, want: PyTree, dtype: DType) -> None:
    """Raises AssertionError unless types are equal and values agree up to rounding.

    NaN agrees with no value, not even with NaN.
    """
    same_types(got, want)
    tolerance = TOLERANCE[str(dtype)]
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        wide = np.complex128 if np.iscomplexobj(w) else np.float64
        g64 = np.asarray(g, wide)
        w64 = np.asarray(w, wide)
        # Skip -inf, which an empty matrix memory may hold.
        scale = max(1.0, np.abs(w64).max(initial=0.0, where=np.isfinite(w64)))
        np.testing.assert_allclose(
            g64 / scale, w64 / scale, rtol=0, atol=tolerance, equal_nan=False
        )
