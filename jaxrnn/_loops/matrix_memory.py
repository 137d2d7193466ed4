"""Runs whole sequences of cells whose state is a matrix, chunk by chunk.

A step writes a value u at a key k, and reads with a query q:

    S_t = a_t S_{t-1} + outer(k_t, u_t)        S: [key, value]
    o_t = q_t S_t

In a chunk, the steps of a row form *segments*: each restart begins one. Step t's
segment starts from a state S, which is the state before the chunk or a restart state.
If `keep_t` is the product of the a's from the segment's first step to step t, and
`pairs_ts` the product of those after step s up to step t,

    S_t = keep_t S + sum over s of pairs_ts outer(k_s, u_s)
    o_t = keep_t q_t S + sum over s of pairs_ts (q_t k_s) u_s

where s <= t is in the segment of t. So o_t is the sum of a product with S and of an
attention from step t over the steps of its segment.

Derivatives save only the inputs and the states before chunks, and run each chunk again.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from .._base.math import at_least_float32, cast_like, expand_rows, widest_dtype
from .._base.typing import Array, DType, Params, PyTree
from . import masking
from .scans import run_in_segments, summed_in_float32
from .steps import Restarts, Run, Steps, at_each_step, read_rows


class MemoryCellLike(Protocol):
    """What the loop needs of a `MatrixMemoryCell`, which describes the names."""

    chunk_size: int
    idle: PyTree

    def project(
        self, params: Params, inputs: Array, dtype: DType
    ) -> tuple[PyTree, PyTree]: ...
    def attend(self, chunk: "Chunk") -> tuple[Array, PyTree]: ...
    def output(self, params: Params, h: Array, rest: PyTree) -> Array: ...
    def stored(self, state: Any, like: Any) -> PyTree: ...


class Weights(NamedTuple):
    """The factors `keep` and `pairs` of the module's docstring.

    `keep` is `[batch, heads, steps]`; `pairs` is `[batch, heads, t, s]`, with zeros
    where s > t or where s and t belong to different segments.
    """

    keep: Array
    pairs: Array


@dataclasses.dataclass(frozen=True)
class Chunk:
    """What the steps of a chunk read and write, and the states they start from.

    Attributes:
        values: What `project` returns for each step, leaves `[batch, heads, steps,
            ...]`.
        state: The state before the chunk, leaves `[batch, heads, 1, ...]`.
        reads: Bool `[rows, 1, t, s]`, true where s <= t is in the segment of t; rows is
            1 if there are no restarts.
        restart_states: Leaves `[batch, heads, 1 or steps, ...]`: the restart state from
            which the segment of each step starts. None if there are no restarts.
        is_carried: Bool `[batch, 1, steps]`, true where a segment starts from `state`.
            None if there are no restarts.
        returns_states: Whether `attend` returns the states after all steps.
    """

    values: Any
    state: Any
    reads: Array
    restart_states: Any = None
    is_carried: Any = None
    returns_states: bool = False

    def start(self, of: Callable[[Any], Array]) -> Array:
        """`of(state)` for the state from which each step's segment starts.

        Args:
            of: A function of a state with leaves `[batch, heads, n, ...]`, where n is 1
                or the number of steps. It returns an array with the same first axes, in
                which n may also have become the number of steps.
        """
        carried = of(self.state)
        if self.restart_states is None:
            return carried
        restarted = of(self.restart_states)
        return jnp.where(expand_rows(self.is_carried, carried), carried, restarted)

    def sums(self, x: Array) -> Array:
        """Sums of `x` `[batch, heads, steps]` from a segment's first step to step t."""
        x = x[:, :, None, :]
        return jnp.sum(jnp.where(self.reads, x, jnp.zeros_like(x)), axis=-1)

    def maxima(self, x: Array) -> Array:
        """Maxima of `x`, as in `sums`."""
        return jnp.max(jnp.where(self.reads, x[:, :, None, :], -jnp.inf), axis=-1)

    def pairs(self, log_read: Array, log_written: Array) -> Array:
        """`exp(log_read_t + log_written_s)` where t reads s, otherwise 0."""
        sums = log_read[..., :, None] + log_written[..., None, :]
        return jnp.exp(jnp.where(self.reads, sums, -jnp.inf))

    def after(self, x: Array) -> Array:
        """The steps of `x`, on axis 2, after which states are returned."""
        return x if self.returns_states else x[:, :, -1:]

    def memory(
        self, of: Callable[[Any], Array], weights: Weights, k: Array, u: Array
    ) -> Array:
        """The matrices after the steps of `after`, `[batch, heads, steps, key, value]`.

        Args:
            of: Selects the matrix of a state, `[batch, heads, n, key, value]`.
            weights: The factors of the chunk.
            k: The keys.
            u: The written values.
        """
        pairs = self.after(weights.pairs)
        keys = pairs[..., None] * k[:, :, None, :, :]
        written = jnp.einsum("bhtsk,bhsv->bhtkv", keys, u)
        kept = self.after(weights.keep)[..., None, None] * self._started(of)
        return kept + written

    def _started(self, of: Callable[[Any], Array]) -> Array:
        """`start(of)` at the steps of `after`, for leaves that may have one step."""
        if self.restart_states is None or self.returns_states:
            return self.start(of)
        last = lambda tree: jax.tree.map(lambda x: x[:, :, -1:], tree)
        of_last = dataclasses.replace(
            self,
            restart_states=last(self.restart_states),
            is_carried=self.is_carried[:, :, -1:],
        )
        return of_last.start(of)


def read(q: Array, memory: Array) -> Array:
    """`q S`, `[batch, heads, steps, value]`.

    Args:
        q: `[batch, heads, steps, key]`.
        memory: One matrix for all steps or one for each, `[batch, heads, 1 or steps,
            key, value]`.
    """
    if memory.shape[2] == 1:
        return jnp.einsum("bhtk,bhkv->bhtv", q, memory[:, :, 0])
    return jnp.einsum("bhtk,bhtkv->bhtv", q, memory)


def memory_sequence(
    cell: MemoryCellLike, params: Params, run: Run
) -> tuple[PyTree, PyTree]:
    """`(outputs, state)` of `cell` over all steps, equal to a scan of `cell.apply`.

    Args:
        cell: A `MatrixMemoryCell`.
        params: The cell's parameters.
        run: Inputs `[batch, time, depth]` with at least one step, and the initial
            state. If `steps.returns_states` is true, the outputs are pairs `(output,
            new_state)`.
    """
    dtype = arithmetic_dtype(run.inputs, run.state)
    params_of_chunk = summed_in_float32(params)

    def run_chunk(inputs: Array, state: PyTree, steps: Steps) -> tuple[PyTree, PyTree]:
        params = params_of_chunk()
        project = lambda x: cell.project(params, x, dtype)
        rest, values = at_each_step(project, steps.fill_dead(inputs))
        alive = steps.alive_steps()
        if alive is not None:
            values = masking.choose(alive, values, cell.idle)
        h, states = _attend(cell, _chunk(_by_head(values, steps), state, steps))
        h = jnp.moveaxis(h, 2, steps.axis)
        finish = lambda h, rest: cell.output(params, h, rest).astype(inputs.dtype)
        outputs = steps.zero_dead(at_each_step(finish, h, rest))
        last = jax.tree.map(lambda x: x[:, :, -1], states)
        if not steps.returns_states:
            return outputs, last
        states = jax.tree.map(lambda x: jnp.moveaxis(x, 2, steps.axis), states)
        return (outputs, cell.stored(states, run.state)), last

    state = jax.tree.map(lambda x: x.astype(dtype), run.state)
    size = steps_in_chunk(run.steps.time, cell.chunk_size)
    outputs, last = run_in_segments(size, run_chunk, run.inputs, state, run.steps)
    return outputs, cell.stored(last, run.state)


def arithmetic_dtype(inputs: Array, state: PyTree) -> DType:
    """The widest dtype of inputs and state, at least float32."""
    return at_least_float32(widest_dtype((inputs, state)))


def steps_in_chunk(time: int, most: int) -> int:
    """The steps of a chunk, at most `most`; all chunks but the last are of one size."""
    return -(-time // -(-time // most))


def _by_head(values: PyTree, steps: Steps) -> PyTree:
    """Moves the axis of steps behind the axes of rows and heads."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, steps.axis, 2), values)


def _chunk(values: PyTree, state: PyTree, steps: Steps) -> Chunk:
    """The chunk of `steps`, whose values are `[batch, heads, steps, ...]`."""
    size = steps.time
    causal = jnp.tril(jnp.ones((size, size), bool))[None, None]
    state = jax.tree.map(lambda x: x[:, :, None], state)
    chunk = Chunk(values, state, causal, returns_states=steps.returns_states)
    if steps.restarts is None:
        return chunk
    numbers = jnp.swapaxes(steps.restarts.state_numbers, 1, steps.axis)
    segments = jnp.cumsum(numbers >= 0, axis=1)
    is_carried = (segments == 0)[:, None, :]
    same = segments[:, None, :, None] == segments[:, None, None, :]
    restart_states, is_read = _restart_states(
        steps.restarts, numbers, is_carried, state
    )
    return dataclasses.replace(
        chunk,
        # A state that no step reads may be NaN, which a derivative would multiply by 0.
        state=masking.zero_dead(is_carried[:, 0, 0], state),
        reads=causal & same,
        restart_states=masking.zero_dead(is_read, restart_states),
        is_carried=is_carried,
    )


def _restart_states(
    restarts: Restarts, numbers: Array, is_carried: Array, like: PyTree
) -> tuple[PyTree, Array]:
    """The restart states of the steps' segments, and where they are read.

    Args:
        restarts: The restarts.
        numbers: Their `state_numbers`, `[batch, steps]`.
        is_carried: As in `Chunk`.
        like: The state of the chunk, whose dtypes the results have.
    """
    if restarts.are_resets:  # A row has one restart state for all steps.
        states = jax.tree.map(lambda x: x[:, :, None], restarts.states)
        is_read = ~is_carried[:, :, -1:]
    else:
        ts = jnp.arange(numbers.shape[1], dtype=jnp.int32)
        latest = jax.lax.cummax(jnp.where(numbers < 0, 0, ts), axis=1)
        of_segments = jnp.take_along_axis(numbers, latest, axis=1)
        states = read_rows(restarts.states, of_segments)
        states = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 2), states)
        is_read = ~is_carried
    return cast_like(like, states), is_read


def _attend(cell: MemoryCellLike, chunk: Chunk) -> tuple[Array, PyTree]:
    """Calls `cell.attend`; NaN and infinity do not leave their segments.

    The products of a chunk multiply the values of other segments by 0.
    """
    if chunk.restart_states is None:
        return cell.attend(chunk)
    values, bad = _finite(chunk.values)
    state, bad_state = _finite(chunk.state)
    restart_states, bad_restart = _finite(chunk.restart_states)
    h, states = cell.attend(
        dataclasses.replace(
            chunk, values=values, state=state, restart_states=restart_states
        )
    )
    spoiled = jnp.where(chunk.is_carried, bad_state, bad_restart)
    spoiled |= jnp.any(chunk.reads & bad[:, :, None, :], axis=-1)

    def spoil(x: Array, spoiled: Array) -> Array:
        return jnp.where(expand_rows(spoiled, x), jnp.nan, x)

    after = chunk.after(spoiled)
    return spoil(h, spoiled), jax.tree.map(lambda x: spoil(x, after), states)


def _finite(tree: PyTree) -> tuple[PyTree, Array]:
    """The tree with zeros where steps are not finite, and these, `[batch, heads, n]`.

    A gate, which is a scalar for each step, may be the logarithm of 0.
    """

    def is_bad(x: Array) -> Array:
        size = x if x.ndim == 3 else jnp.abs(x)
        return jnp.any(~(size < jnp.inf), axis=tuple(range(3, x.ndim)))

    bad = functools.reduce(jnp.logical_or, map(is_bad, jax.tree.leaves(tree)))
    return masking.zero_dead(~bad, tree), bad


def unit_lower_inverse(a: Array) -> Array:
    """The inverse of `I + a`, for strictly lower triangular a `[..., n, n]`.

    The inverse of a block of two halves follows from those of its halves:

        [[P, 0], [C, Q]]^-1 = [[P^-1, 0], [-Q^-1 C P^-1, Q^-1]]

    Each round joins all pairs of blocks on the diagonal, which begin with size 1. These
    are products alone, in batches, unlike `jax.scipy.linalg.solve_triangular`.
    """
    size = a.shape[-1]
    whole = 1 << (size - 1).bit_length()  # The next power of two.
    edges = [(0, 0)] * (a.ndim - 2) + [(0, whole - size)] * 2
    a = jnp.pad(a, edges)
    batch = a.shape[:-2]
    inverses = jnp.ones((*batch, whole, 1, 1), a.dtype)
    block = 1
    while block < whole:
        pairs = inverses.reshape(*batch, -1, 2, block, block)
        first = pairs[..., 0, :, :]
        second = pairs[..., 1, :, :]
        count = whole // (2 * block)
        tiles = a.reshape(*batch, count, 2, block, count, 2, block)
        below = jnp.diagonal(tiles[..., 1, :, :, 0, :], axis1=-4, axis2=-2)
        below = jnp.moveaxis(below, -1, -3)
        corner = -_product(_product(second, below), first)
        top = jnp.concatenate([first, jnp.zeros_like(first)], axis=-1)
        bottom = jnp.concatenate([corner, second], axis=-1)
        inverses = jnp.concatenate([top, bottom], axis=-2)
        block *= 2
    return inverses[..., 0, :size, :size]


def _product(a: Array, b: Array) -> Array:
    # Errors of a narrower product would grow with each round.
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
