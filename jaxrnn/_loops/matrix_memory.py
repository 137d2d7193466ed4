"""Runs whole sequences of cells whose state is a matrix, chunk by chunk.

A step writes a value u at a key k, and reads with a query q. With vectors as rows,

    S_t = a_t S_{t-1} + outer(k_t, u_t)        S: [key, value]
    o_t = q_t S_t

In a chunk, the steps of a row form *segments*: each restart begins a segment. Step t's
segment starts from a state S, which is the state before the chunk or a restart state.
If `keep_t` is the product of the a's from the segment's first step to step t, and
`pairs_ts` is the product of the a's from step s + 1 to step t, then

    S_t = keep_t S + sum over s of pairs_ts outer(k_s, u_s)
    o_t = keep_t q_t S + sum over s of pairs_ts dot(q_t, k_s) u_s

where the sums run over the steps s <= t in the segment of t. So o_t is the sum of a
product with S and an attention from step t to the steps of its segment.

Derivatives save only the inputs and the states before chunks. The backward pass
computes each chunk again.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from .._base.math import at_least_float32, expand_rows, widest_dtype
from .._base.typing import Array, DType, Params, PyTree
from . import masking
from .scans import run_in_segments, summed_in_float32
from .steps import Restarts, Run, Steps, at_each_step, read_rows


class MemoryCellLike(Protocol):
    """The members of a `MatrixMemoryCell` that the loop uses."""

    @property
    def chunk_size(self) -> int: ...
    def idle(self) -> Any: ...

    def project(
        self, params: Params, inputs: Array, dtype: DType
    ) -> tuple[PyTree, PyTree]: ...
    def attend(self, chunk: "Chunk") -> tuple[Array, PyTree]: ...
    def output(self, params: Params, h: Array, rest: PyTree) -> Array: ...
    def stored(self, state: Any, like: Any) -> PyTree: ...


class Weights(NamedTuple):
    """The factors `keep` and `pairs` of the module's docstring, scaled like the state.

    `keep` is `[batch, heads, steps]`; `pairs` is `[batch, heads, t, s]`, with zeros
    where s > t or where s and t belong to different segments.
    """

    keep: Array
    pairs: Array


@dataclasses.dataclass(frozen=True)
class Chunk:
    """What the steps of a chunk read and write, and the states before the segments.

    Attributes:
        values: What the steps read and write, which is the second result of the cell's
            `project`; leaves `[batch, heads, steps, ...]`.
        state: The state before the chunk, leaves `[batch, heads, 1, ...]`.
        reads: Bool `[rows, 1, t, s]`, true where step t reads what step s writes: where
            s <= t, and s and t are in one segment. If there are no restarts, the first
            axis has size 1.
        restart_states: Leaves `[batch, heads, 1 or steps, ...]`: the restart state from
            which the segment of each step starts. None if there are no restarts, or if
            the restart states are zeros.
        is_carried: Bool `[batch, 1, steps]`, true at steps whose segment starts from
            `state`. None if there are no restarts.
        returns_states: Whether `attend` returns the state after every step. If False,
            `attend` returns only the last state.
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
            of: Selects a leaf of a state.
        """
        carried = of(self.state)
        if self.is_carried is None:
            return carried
        restarted = 0.0 if self.restart_states is None else of(self.restart_states)
        return jnp.where(expand_rows(self.is_carried, carried), carried, restarted)

    def read(self, q: Array, of: Callable[[Any], Array]) -> Array:
        """`q S`, `[batch, heads, steps, value]`, for the S from `start`.

        Args:
            q: `[batch, heads, steps, key]`.
            of: Returns a state's matrices, `[batch, heads, 1 or steps, key, value]`.
        """
        carried = of(self.state)[:, :, 0]
        product = "bhtk,bhkv->bhtv"
        if self.is_carried is None:
            return jnp.einsum(product, q, carried)
        mask = self.is_carried[..., None]
        if self.restart_states is None:
            return jnp.where(mask, jnp.einsum(product, q, carried), 0.0)
        restarted = of(self.restart_states)
        if restarted.shape[2] > 1:
            new = jnp.einsum("bhtk,bhtkv->bhtv", q, restarted)
            return jnp.where(mask, jnp.einsum(product, q, carried), new)
        # One matrix product with both states is faster than two.
        both = jnp.concatenate([carried, restarted[:, :, 0]], axis=-1)
        old, new = jnp.split(jnp.einsum(product, q, both), 2, axis=-1)
        return jnp.where(mask, old, new)

    def sums(self, x: Array) -> Array:
        """Cumulative sums of `x`, `[batch, heads, steps]`, within each segment."""
        if self.is_carried is None:
            return jnp.cumsum(x, axis=-1)
        reads = self.reads[:, 0].astype(x.dtype)
        highest = jax.lax.Precision.HIGHEST
        return jnp.einsum("bts,bhs->bht", reads, x, precision=highest)

    def maxima(self, x: Array) -> Array:
        """Cumulative maxima of `x`, `[batch, heads, steps]`, within each segment."""
        if self.is_carried is None:
            return jax.lax.cummax(x, axis=x.ndim - 1)
        # CPUs reduce the second-to-last axis faster than the last.
        read = jnp.where(self.reads.mT, x[..., None], -jnp.inf)
        return jnp.max(read, axis=-2)

    def pairs(self, log_read: Array, log_written: Array) -> Array:
        """`exp(log_read_t + log_written_s)` where t reads s, otherwise 0."""
        sums = log_read[..., :, None] + log_written[..., None, :]
        return jnp.exp(jnp.where(self.reads, sums, -jnp.inf))

    def after(self, x: Array) -> Array:
        """The steps of `x`, along axis 2, after which `attend` returns the states."""
        return x if self.returns_states else x[:, :, -1:]

    def memory(
        self, of: Callable[[Any], Array], weights: Weights, k: Array, u: Array
    ) -> Array:
        """The matrices that `attend` returns, `[batch, heads, n, key, value]`.

        n is the number of steps if `returns_states` is true, otherwise 1.

        Args:
            of: Returns a state's matrices, `[batch, heads, 1 or steps, key, value]`.
            weights: The factors of the chunk.
            k: The keys.
            u: The written values.
        """
        chunk = self if self.returns_states else self._at_last_step()
        pairs = self.after(weights.pairs)
        keys = pairs[..., None] * k[:, :, None, :, :]
        written = jnp.einsum("bhtsk,bhsv->bhtkv", keys, u)
        return self.after(weights.keep)[..., None, None] * chunk.start(of) + written

    def _at_last_step(self) -> "Chunk":
        """The chunk whose `start` returns only the values for the last step."""
        last = jax.tree.map(
            lambda x: x[:, :, -1:], (self.restart_states, self.is_carried)
        )
        restart_states, is_carried = last
        return dataclasses.replace(
            self, restart_states=restart_states, is_carried=is_carried
        )


def memory_sequence(
    cell: MemoryCellLike, params: Params, run: Run
) -> tuple[PyTree, PyTree]:
    """`(outputs, state)` of `cell` over all steps, as from a scan of `cell.apply`.

    Args:
        cell: A `MatrixMemoryCell`.
        params: The cell's parameters.
        run: Inputs `[batch, time, depth]`, or `[time, batch, depth]` if `steps.axis` is
            0, with at least one step, and the initial state. If `steps.returns_states`
            is true, the outputs are pairs `(output, new_state)`.
    """
    if run.steps.restarts is None:
        return _run_chunks(cell, params, run, None)
    run, nonfinite = _without_nan(run, run.steps.restarts)
    outputs, last = _run_chunks(cell, params, run, nonfinite)
    axis = run.steps.axis
    ends = jax.lax.index_in_dim(nonfinite.results, -1, axis, keepdims=False)
    return outputs, _with_nan(ends, last)


def _run_chunks(
    cell: MemoryCellLike, params: Params, run: Run, nonfinite: "_Nonfinite | None"
) -> tuple[PyTree, PyTree]:
    """`memory_sequence`; if rows restart, all states must be finite."""
    dtype = arithmetic_dtype(run.inputs, run.state)
    params_of_chunk = summed_in_float32(params)

    def run_chunk(xs: PyTree, state: PyTree, steps: Steps) -> tuple[PyTree, PyTree]:
        inputs, nonfinite = xs
        if nonfinite is not None:
            inputs = masking.zero_dead(~nonfinite.inputs, inputs)
        params = params_of_chunk()
        rest, values = at_each_step(
            lambda x: cell.project(params, x, dtype), steps.fill_dead(inputs)
        )
        alive = steps.alive_steps()
        if alive is not None:
            values = masking.choose(alive, values, cell.idle())
        values = _move_axis(values, steps.axis, 2)
        h, states = cell.attend(_chunk(values, state, steps))
        outputs = at_each_step(
            lambda h, rest: cell.output(params, h, rest).astype(inputs.dtype),
            _move_axis(h, 2, steps.axis),
            rest,
        )
        last = jax.tree.map(lambda x: x[:, :, -1], states)
        results = outputs
        if steps.returns_states:
            states = cell.stored(_move_axis(states, 2, steps.axis), run.state)
            results = outputs, states
        if nonfinite is not None:
            results = _with_nan(nonfinite.results, results)
        return steps.map_outputs(steps.zero_dead, results), last

    steps = run.steps.with_restart_states(cast(run.steps.restart_states, dtype))
    size = steps_in_chunk(run.steps.time, cell.chunk_size)
    outputs, last = run_in_segments(
        size, run_chunk, (run.inputs, nonfinite), cast(run.state, dtype), steps
    )
    return outputs, cell.stored(last, run.state)


def arithmetic_dtype(inputs: Array, state: PyTree) -> DType:
    """The widest dtype of inputs and state, at least float32."""
    return at_least_float32(widest_dtype((inputs, state)))


def steps_in_chunk(time: int, most: int) -> int:
    """The number of steps in each chunk except the last, at most `most`.

    For an mLSTM with heads of size 64 and 128, 1 and 8 rows and up to 8192 steps on two
    CPU cores, training times with chunks of 32 to 128 steps differed by little more
    than noise. Longer chunks were slower, with larger rounding errors.
    """
    return -(-time // -(-time // most))


def cast(tree: PyTree, dtype: DType) -> PyTree:
    """Casts all leaves to `dtype`."""
    return jax.tree.map(lambda x: x.astype(dtype), tree)


def _move_axis(tree: PyTree, source: int, place: int) -> PyTree:
    return jax.tree.map(lambda x: jnp.moveaxis(x, source, place), tree)


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
    return dataclasses.replace(
        chunk,
        reads=causal & same,
        restart_states=_restart_states(steps.restarts, numbers),
        is_carried=is_carried,
    )


def _restart_states(restarts: Restarts, numbers: Array) -> PyTree:
    """The restart states of the steps' segments, `[batch, heads, 1 or steps, ...]`.

    Args:
        restarts: The restarts.
        numbers: The `state_numbers` of the restarts, `[batch, steps]`.
    """
    if restarts.are_zeros:
        return None
    if restarts.are_resets:  # A row has one restart state for all steps.
        return jax.tree.map(lambda x: x[:, :, None], restarts.states)
    of_segments = _latest(numbers, where=numbers >= 0, axis=1)
    return _move_axis(read_rows(restarts.states, of_segments), 1, 2)


def _latest(values: Array, where: Array, axis: int) -> Array:
    """For each step t, the value at the last true step of `where` up to t, or at 0."""
    ts = jax.lax.broadcasted_iota(jnp.int32, where.shape, axis)
    steps = jax.lax.cummax(jnp.where(where, ts, 0), axis=axis)
    return jnp.take_along_axis(values, steps, axis=axis)


class _Nonfinite(NamedTuple):
    """The steps that are not finite: bools `[batch, time]` or `[time, batch]`.

    `inputs` is true at steps whose inputs are not finite. `results` is true from such a
    step to the end of its segment, and in every segment that starts from a state that
    is not finite.
    """

    inputs: Array
    results: Array


def _without_nan(run: Run, restarts: Restarts) -> tuple[Run, _Nonfinite]:
    """The run with zeros for nonfinite states, and the steps that are not finite.

    A step multiplies the values from other segments of its chunk by 0, and 0 * NaN is
    NaN.
    """
    steps = run.steps
    axis = steps.axis
    spoils = steps.zero_dead(~_all(jnp.isfinite, run.inputs, axes=2))
    state_is_finite = _all(_is_state, run.state, axes=1)
    restarts_are_finite = _all(_is_state, restarts.states, axes=1)
    is_restart = restarts.state_numbers >= 0
    ts = jax.lax.broadcasted_iota(jnp.int32, is_restart.shape, axis)
    number = _latest(restarts.state_numbers, where=is_restart, axis=axis)
    starts_finite = jnp.where(
        number < 0,  # The row has not restarted yet.
        jnp.expand_dims(state_is_finite, axis),
        read_rows(restarts_are_finite, number),
    )
    begins = _latest(ts, where=is_restart, axis=axis)
    latest_spoil = jax.lax.cummax(jnp.where(spoils, ts, -1), axis=axis)
    restart_states = masking.zero_dead(restarts_are_finite, restarts.states)
    finite = run.replace(
        state=masking.zero_dead(state_is_finite, run.state),
        steps=steps.with_restart_states(restart_states),
    )
    return finite, _Nonfinite(spoils, ~starts_finite | (latest_spoil >= begins))


def _is_state(x: Array) -> Array:
    """Whether numbers are finite; a scale `[batch, heads]` may also be -inf."""
    return x < jnp.inf if x.ndim == 2 else jnp.isfinite(x)


def _all(holds: Callable[[Array], Array], tree: PyTree, axes: int) -> Array:
    """Whether `holds` is true in all leaves, per index of the first `axes` axes."""
    each = [
        jnp.all(holds(x), axis=tuple(range(axes, x.ndim)))
        for x in jax.tree.leaves(tree)
    ]
    return functools.reduce(jnp.logical_and, each)


def _with_nan(spoiled: Array, tree: PyTree) -> PyTree:
    """Replaces values by NaN at the steps or rows where `spoiled` is true."""
    return masking.choose(~spoiled, tree, jax.tree.map(lambda x: jnp.nan, tree))
