"""Cells whose state is a matrix for each head, and that run sequences in chunks.

A step writes a value u at a key k, and reads with a query q. With vectors as rows,

    S_t = a_t S_{t-1} + outer(k_t, u_t)        S: [key, value]
    o_t = q_t S_t

In a chunk, the steps of a row form *spans*: each restart begins a span. Step t's
span starts from a state S, which is the state before the chunk or a restart state.
If `keep_t` is the product of the a's from the span's first step to step t, and
`pairs_ts` is the product of the a's from step s + 1 to step t, then

    S_t = keep_t S + sum over s of pairs_ts outer(k_s, u_s)
    o_t = keep_t q_t S + sum over s of pairs_ts dot(q_t, k_s) u_s

where the sums run over the steps s <= t in the span of t. So o_t is the sum of a
product with S and an attention from step t to the steps of its span.

The products also multiply steps that do not read each other, by 0. With 0 * NaN = NaN,
a step that is not finite would therefore spoil earlier steps and other spans, in
values and in gradients. So where a step might overflow (`safety_check`), the chunk
reads zeros instead of its inputs. Where rows restart, zeros also replace a state that
is not finite. The results are NaN from such a step or state to the end of its span.
Without restarts, all steps of a chunk read the state.

If there are several chunks, derivatives save only the inputs and the states before
chunks, and the backward pass computes each chunk again.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._base.math import at_least_float32, cast_like, expand_rows, widest_dtype
from .._base.typing import Array, DType, Params, PyTree
from .._loops import masking
from .._loops.scans import run_in_segments, summed_in_float32, with_tangent_of
from .._loops.steps import Choice, Run, Steps, at_each_step, read_rows
from . import fields
from .base import SpecsCell, choose_many_steps, on_each_device, scope_name


@dataclasses.dataclass(frozen=True)
class Chunk:
    """What the steps of a chunk read and write, and the states before the spans.

    Attributes:
        values: What the steps read and write, which is the second result of the cell's
            `project`; leaves `[batch, heads, steps, ...]`.
        state: The state before the chunk, leaves `[batch, heads, 1, ...]`. If there are
            restarts, with zeros where it is not finite.
        reads: Bool `[rows, 1, t, s]`, true where step t reads what step s writes: where
            s <= t, and s and t are in one span. If there are no restarts, the first
            axis has size 1.
        restart_states: Leaves `[batch, heads, 1 or steps, ...]`: the restart state from
            which the span of each step starts, with zeros where it is not finite.
            None if there are no restarts, or if the restart states are zeros.
        is_carried: Bool `[batch, 1, steps]`, true at steps whose span starts from
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
        """`of(state)` for the state from which each step's span starts.

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
        product = "bntk,bnkv->bntv"
        if self.is_carried is None:
            return jnp.einsum(product, q, carried)
        mask = self.is_carried[..., None]
        if self.restart_states is None:
            return jnp.where(mask, jnp.einsum(product, q, carried), 0.0)
        restarted = of(self.restart_states)
        if restarted.shape[2] > 1:
            new = jnp.einsum("bntk,bntkv->bntv", q, restarted)
            return jnp.where(mask, jnp.einsum(product, q, carried), new)
        # One matrix product with both states is faster than two.
        both = jnp.concatenate([carried, restarted[:, :, 0]], axis=-1)
        old, new = jnp.split(jnp.einsum(product, q, both), 2, axis=-1)
        return jnp.where(mask, old, new)

    def sums(self, x: Array) -> Array:
        """Cumulative sums of `x`, `[batch, heads, steps]`, within each span."""
        if self.is_carried is None:
            return jnp.cumsum(x, axis=-1)
        reads = self.reads[:, 0].astype(x.dtype)
        highest = jax.lax.Precision.HIGHEST
        product = jnp.einsum("bts,bns->bnt", reads, x, precision=highest)
        # The transpose of the product would multiply cotangents of other spans by 0,
        # and they are NaN where a score overflowed.
        read = jnp.where(self.reads.mT, x[..., None], 0.0)
        return with_tangent_of(product, jnp.sum(read, axis=-2))

    def maxima(self, x: Array) -> Array:
        """Cumulative maxima of `x`, `[batch, heads, steps]`, within each span."""
        if self.is_carried is None:
            return jax.lax.cummax(x, axis=x.ndim - 1)
        # CPUs reduce the second-to-last axis faster than the last.
        read = jnp.where(self.reads.mT, x[..., None], -jnp.inf)
        return jnp.max(read, axis=-2)

    def scores(self, q: Array, k: Array, pairs: Array) -> Array:
        """`dot(q_t, k_s) pairs_ts` where t reads s, otherwise 0.

        The shape is `[batch, heads, t, s]`. Where t does not read s, a product may
        overflow; the mask in `pairs` stops its derivative.
        """
        products = jnp.einsum("bntk,bnsk->bnts", q, k) * pairs
        return jnp.where(self.reads, products, 0.0)

    def pairs(self, log_read: Array, log_written: Array) -> Array:
        """`exp(log_read_t + log_written_s)` where t reads s, otherwise 0."""
        sums = log_read[..., :, None] + log_written[..., None, :]
        return jnp.exp(jnp.where(self.reads, sums, -jnp.inf))

    def after(self, x: Array) -> Array:
        """The steps of `x`, along axis 2, after which `attend` returns the states."""
        return x if self.returns_states else x[:, :, -1:]

    def memory(
        self,
        of: Callable[[Any], Array],
        keep: Array,
        pairs: Array,
        k: Array,
        u: Array,
    ) -> Array:
        """The matrices that `attend` returns, `[batch, heads, n, key, value]`.

        n is the number of steps if `returns_states` is true, otherwise 1.

        Args:
            of: Returns a state's matrices, `[batch, heads, 1 or steps, key, value]`.
            keep: The factor `keep` of each step in the module's docstring, scaled like
                the state, `[batch, heads, steps]`.
            pairs: The factors `pairs`, scaled likewise, `[batch, heads, t, s]`, with
                zeros where s > t or where s and t belong to different spans.
            k: The keys.
            u: The written values.
        """
        chunk = self
        if not self.returns_states:
            of_spans = self.restart_states, self.is_carried
            restart_states, is_carried = jax.tree.map(self.after, of_spans)
            chunk = dataclasses.replace(
                self, restart_states=restart_states, is_carried=is_carried
            )
        keys = self.after(pairs)[..., None] * k[:, :, None, :, :]
        written = jnp.einsum("bntsk,bnsv->bntkv", keys, u)
        return self.after(keep)[..., None, None] * chunk.start(of) + written


@fields.dataclass
class MatrixMemoryCell(SpecsCell):
    """A cell that writes values at keys into a matrix, and reads them with queries.

    The queries, keys and values of a step depend only on the inputs of the step. Whole
    sequences are therefore run in chunks of consecutive steps. Attention connects the
    steps of a chunk, and only the state is passed from chunk to chunk. A recurrence
    defines `update`, which runs one step, and `attend`, which runs all steps of a chunk
    at once. A cell is a recurrence with projections of its inputs (`project` and
    `output`), or without parameters (`BareMemoryCell`).

    Arithmetic is done in at least float32. The state may be wider than the inputs; use
    a float32 state for bfloat16 inputs.
    """

    _: dataclasses.KW_ONLY
    chunk_size: int = fields.count(default=64)

    @abc.abstractmethod
    def idle(self) -> Any:
        """The values for a finished row, with which a step does not change the state.

        The leaves are scalars.
        """

    @abc.abstractmethod
    def project(
        self, params: Params, inputs: Array, dtype: DType
    ) -> tuple[PyTree, PyTree]:
        """Computes what depends only on the inputs of a step.

        Args:
            params: The parameters.
            inputs: One step of inputs, `[batch, depth]` or a nest.
            dtype: The dtype of the results.

        Returns:
            `(rest, values)`: what `output` needs, leaves `[batch, ...]`; and what the
            step reads and writes, leaves `[batch, heads, ...]`.
        """

    def safety_check(self, params: Params, dtype: DType) -> Callable[..., Array]:
        """A function that tells which steps a chunk may read.

        The function maps the inputs of a chunk, the state before it and its steps to
        bool, with the first two axes of the inputs. Where the result is False, steps
        read zeros, and their results are NaN. By default, the products of the step with
        `kernel` must not overflow.
        """
        kernel = jax.lax.stop_gradient(params["kernel"].astype(dtype))
        largest = jnp.max(jnp.abs(kernel), axis=1, initial=0)
        return lambda inputs, state, steps: _may_multiply(inputs, largest)

    @abc.abstractmethod
    def update(self, values: Any, state: Any) -> tuple[Array, PyTree]:
        """Runs one step.

        Returns:
            `(h, state)`: what the step reads, `[batch, heads, size]`, and the new
            state.
        """

    @abc.abstractmethod
    def attend(self, chunk: Chunk) -> tuple[Array, PyTree]:
        """Runs all steps of a chunk.

        Returns:
            `(h, states)`: what the steps read, `[batch, heads, steps, size]`, and
            states with leaves `[batch, heads, n, ...]`. If `chunk.returns_states`,
            these are the states after each step, otherwise only the last state (n = 1).
        """

    @abc.abstractmethod
    def output(self, params: Params, h: Array, rest: PyTree) -> Array:
        """The output of one step, `[batch, units]` or `[batch, heads, size]`."""

    def stored(self, state: PyTree, like: PyTree) -> PyTree:
        """The state, cast to the dtypes of `like`."""
        return cast_like(like, state)

    def step(
        self, params: Params, inputs: PyTree, state: PyTree
    ) -> tuple[PyTree, PyTree]:
        """Runs one step with checked arguments; see `SpecsCell.step`."""
        dtype = arithmetic_dtype(inputs, state)
        rest, values = self.project(params, inputs, dtype)
        h, new_state = self.update(values, cast(state, dtype))
        output = self.output(params, h, rest)
        return output.astype(widest_dtype(inputs)), self.stored(new_state, state)

    def choose_loop(self, params: Params, run: Run) -> Choice:
        """Chooses a loop over chunks of steps; see `RNNCell.choose_loop`."""
        return choose_many_steps("chunks", self, run)

    def apply_sequence(self, params: Params, run: Run) -> tuple[PyTree, PyTree]:
        """Runs all steps in chunks; see `RNNCell.apply_sequence`."""
        params, run = on_each_device(self, params, run)
        with jax.named_scope(scope_name(self)):
            return memory_sequence(self, params, run)


def memory_sequence(
    cell: MatrixMemoryCell, params: Params, run: Run
) -> tuple[PyTree, PyTree]:
    """`(outputs, state)` of `cell` over all steps, as from a scan of `cell.apply`.

    Args:
        cell: A `MatrixMemoryCell`.
        params: The cell's parameters.
        run: Inputs `[batch, time, ...]`, or `[time, batch, ...]` if `steps.axis` is 0,
            with at least one step, and the initial state. If `steps.returns_states`
            is true, the outputs are pairs `(output, new_state)`.
    """
    dtype = arithmetic_dtype(run.inputs, run.state)
    params_in_loop = summed_in_float32(params)
    are_finite = cell.safety_check(params, dtype)

    def run_chunk(inputs: PyTree, state: PyTree, steps: Steps) -> tuple[PyTree, PyTree]:
        params = params_in_loop()
        inputs = steps.fill_finished(inputs)
        is_finite = are_finite(inputs, state, steps)
        finite = masking.zero_unless(is_finite, inputs)
        project = functools.partial(cell.project, params, dtype=dtype)
        rest, values = at_each_step(project, finite)
        alive = steps.alive_steps()
        if alive is not None:
            values = masking.select(alive, values, cell.idle())
            is_finite |= ~alive
        values = _move_axis(values, steps.axis, 2)
        chunk, starts_finite = _chunk(values, state, steps)
        is_finite = jnp.swapaxes(is_finite, 1, steps.axis)
        is_finite = _reads_finite(chunk, starts_finite, is_finite)
        h, states = cell.attend(chunk)
        hs = _move_axis(h, 2, steps.axis)
        results = at_each_step(functools.partial(cell.output, params), hs, rest)
        results = results.astype(widest_dtype(run.inputs))
        last = jax.tree.map(lambda x: x[:, :, -1], states)
        if steps.returns_states:
            states = cell.stored(_move_axis(states, 2, steps.axis), run.state)
            results = results, states
        results = with_nan(jnp.swapaxes(is_finite, 1, steps.axis), results)
        results = steps.map_outputs(steps.zero_finished, results)
        return results, with_nan(is_finite[:, -1], last)

    steps = run.steps
    if steps.restarts is not None:
        restart_states = only_finite(cast(steps.restarts.states, dtype))
        steps = steps.with_restart_states(restart_states)
    size = steps_in_chunk(steps.time, cell.chunk_size)
    state = cast(run.state, dtype)
    results, last = run_in_segments(size, run_chunk, run.inputs, state, steps)
    return results, cell.stored(last, run.state)


def _may_multiply(inputs: Array, largest: Array) -> Array:
    """Whether no product of a step with the kernel overflows, bool per row and step.

    A bound of the products decides, because to read all products would cost 6 % of a
    forward pass on a CPU. The bound is NaN, so the result is False, if an input is NaN.

    Args:
        inputs: The inputs, `[batch, steps, depth]` or `[steps, batch, depth]`.
        largest: The largest magnitude in each row of the kernel, `[depth]`.
    """
    inputs = jax.lax.stop_gradient(inputs).astype(largest.dtype)
    # A matrix product takes a third of the time of a reduction.
    bound = jnp.einsum("btd,d->bt", jnp.abs(inputs), largest)
    return bound < float(jnp.finfo(largest.dtype).max) / 2


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


def _chunk(values: PyTree, state: PyTree, steps: Steps) -> tuple[Chunk, Array]:
    """The chunk of `steps`, and which steps' spans start from a finite state.

    Args:
        values: What the steps read and write, leaves `[batch, heads, steps, ...]`.
        state: The state before the chunk.
        steps: The steps; the restart states are from `only_finite`.

    Returns:
        `(chunk, starts_finite)`: `starts_finite` is bool `[1 or batch, 1, 1 or steps]`.
    """
    size = steps.time
    causal = jnp.tril(jnp.ones((size, size), bool))[None, None]
    if steps.restarts is None:  # All steps read the state.
        state = jax.tree.map(lambda x: x[:, :, None], state)
        chunk = Chunk(values, state, causal, returns_states=steps.returns_states)
        return chunk, jnp.ones((1, 1, 1), bool)
    state, starts_finite = jax.tree.map(lambda x: x[:, :, None], only_finite(state))
    spans = jnp.cumsum(steps.swap_rows(steps.restarts.where), axis=1)
    is_carried = (spans == 0)[:, None, :]
    reads = causal & (spans[:, None, :, None] == spans[:, None, None, :])
    restart_states, is_restart_finite = _restart_states(steps)
    of_spans = restart_states, is_carried
    chunk = Chunk(values, state, reads, *of_spans, steps.returns_states)
    return chunk, jnp.where(is_carried, starts_finite, is_restart_finite)


def _reads_finite(chunk: Chunk, starts_finite: Array, is_finite: Array) -> Array:
    """Whether all that a step reads is finite, bool `[batch, steps]`.

    Args:
        chunk: The chunk.
        starts_finite: Bool `[1 or batch, 1, 1 or steps]`, from `_chunk`.
        is_finite: Bool `[batch, steps]`, whether the inputs of each step are finite.
    """
    # A matrix product counts the steps faster than a reduction.
    reads = chunk.reads[:, 0].astype(jnp.float32)
    reads = jnp.broadcast_to(reads, (is_finite.shape[0], *reads.shape[1:]))
    count = jnp.einsum("bts,bs->bt", reads, (~is_finite).astype(jnp.float32))
    return starts_finite[:, 0] & (count == 0)


def _restart_states(steps: Steps) -> tuple[PyTree, Any]:
    """The restart states of the steps' spans, and whether they are finite.

    Leaves are `[batch, heads, 1 or steps, ...]`.

    Args:
        steps: Steps with restarts, whose states are from `only_finite`.
    """
    restarts: Any = steps.restarts
    if restarts.are_zeros:
        return None, True
    if restarts.are_resets:  # A row has one restart state for all steps.
        return jax.tree.map(lambda x: x[:, :, None], restarts.states)
    numbers = steps.swap_rows(restarts.numbers)
    ts = jax.lax.broadcasted_iota(jnp.int32, numbers.shape, 1)
    begins = jax.lax.cummax(jnp.where(numbers >= 0, ts, 0), axis=1)
    of_segments = jnp.take_along_axis(numbers, begins, axis=1)
    return _move_axis(read_rows(restarts.states, of_segments), 1, 2)


def only_finite(state: PyTree) -> tuple[PyTree, Array]:
    """`(state, is_finite)`, with zeros in the rows of the state that are not finite.

    Args:
        state: Leaves `[rows, heads, ...]`. A scale `[rows, heads]` may also be -inf.

    Returns:
        The state, and bool `[rows, 1]`.
    """
    each = [
        jnp.all(
            x < jnp.inf if x.ndim == 2 else jnp.isfinite(x), tuple(range(1, x.ndim))
        )
        for x in jax.tree.leaves(state)
    ]
    is_finite = functools.reduce(jnp.logical_and, each)
    return masking.zero_unless(is_finite, state), is_finite[:, None]


def with_nan(is_finite: Array, tree: PyTree) -> PyTree:
    """Replaces values by NaN where `is_finite` is false."""
    return masking.select(is_finite, tree, jax.tree.map(lambda x: jnp.nan, tree))
