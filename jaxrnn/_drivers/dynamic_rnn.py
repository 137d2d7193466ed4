"""`dynamic_rnn`: runs a cell over padded sequences, in one compiled loop.

The driver checks its arguments and puts them into a `Batch`. `run_batch` prepares one
`Run`, whose segments are run by the loops of `_loops`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._base import shareable, trees
from .._base.arguments import as_bool, as_scope, as_unroll, check_is_cell
from .._base.cell_keys import cell_at_step
from .._base.errors import InvalidValue, describe
from .._base.inputs import as_arrays, as_sequences, output_dtype
from .._base.lengths import as_lengths, check_not_inputs
from .._base.math import axis_size
from .._base.read_only import has_read_only, with_read_only, without_read_only
from .._base.sharding import as_rows_of, lay_out, whole_features
from .._base.typing import Array, ArrayLike, DType, Lengths, PyTree, RNNCellLike
from .._batching.packed_sequences import check_not_packed
from .._loops import masking
from .._loops.dispatch import as_implementation, run_sequence
from .._loops.scans import Apply, closed_over, summed_in_float32
from .._loops.segments import segmented_run
from .._loops.steps import DeclinedError, Restarts, Run, Steps, steps_to_run
from .._tensor_array.carried import with_capacity_for
from ..memory import CheckpointPlan, Strategy, as_strategy, plan_of
from .first_step import call_start, probe, zero_state
from .masks_and_resets import Resets, as_mask, as_resets

_SAVE_EVERYTHING = CheckpointPlan()


def dynamic_rnn(
    cell: RNNCellLike,
    inputs: PyTree,
    sequence_length: Lengths | None = None,
    initial_state: PyTree = None,
    dtype: DType | None = None,
    parallel_iterations: int | None = None,
    swap_memory: bool | Strategy = False,
    time_major: bool = False,
    scope: str | None = None,
    *,
    resets: ArrayLike | None = None,
    reset_state: PyTree = None,
    implementation: Any = None,
    mask: ArrayLike | None = None,
    return_states: bool = False,
) -> tuple[PyTree, ...]:
    """Runs `cell` over all time steps of `inputs`.

    Past its length, a row outputs zeros and keeps its state, so the final state is the
    state after each row's last valid step.

    A cell built from matrix products and element-wise updates (an `AffineCell`, such as
    an LSTM or a GRU) processes whole sequences at once. This also applies inside a
    stack, with residual connections and with dropout. Weight gradients are computed in
    large matrix products. On CPUs, the loop ends near the longest length; on TPUs and
    GPUs, it runs over the whole time axis. Linear recurrences (`LinearRecurrenceCell`)
    and `MLSTMCell` compute many steps in parallel, over the whole time axis. Any other
    cell runs step by step over the whole time axis; the logger "jaxrnn" reports the
    reason at level DEBUG.

    Args:
        cell: A bound cell (`cell.bind(params)`), or any object with `state_size`,
            `output_size`, `zero_state` and a call `(inputs, state) -> (output,
            new_state)`.
        inputs: `[batch, time, ...]`, or `[time, batch, ...]` if `time_major`; or a nest
            of such arrays with equal time and batch sizes. In each step, the cell
            receives a nest with the same structure, each leaf `[batch, ...]`.
        sequence_length: The length of each row, `[batch]`, integers, clamped to
            `[0, time]`; None for all steps. Inputs past a row's length, even NaN, do
            not affect outputs, states or gradients. For rows of length 0, the cell is
            evaluated on zeros, and must return finite results.
        initial_state: The state before the first step, with the structure of
            `cell.state_size`, each leaf `[batch, ...]`; None for the cell's zero state,
            which requires `dtype`. Scalar leaves are shared by all rows and are updated
            until the longest row ends. As in TensorFlow, a plain tuple `(c, h)` is
            accepted instead of an `LSTMStateTuple`, and the final state is then also a
            plain tuple. With lengths, a plain tuple raises a TypeError.
        dtype: The dtype of the zero state and of the outputs; None for the dtype that
            all leaves of `initial_state` share.
        parallel_iterations: The number of steps to unroll per loop iteration, at most
            4, for cells that run step by step. Other cells ignore the argument. Results
            may differ by rounding.
        swap_memory: Selects what the forward pass saves for the backward pass. False
            saves everything that the backward pass reads. For long sequences, pass True
            or a strategy from `jaxrnn.memory`. True recomputes segments of about
            sqrt(time) steps from saved states, which are stored in host memory if the
            device has separate memory. Results may differ by rounding.
        time_major: Whether time is the first axis of inputs and outputs, which saves
            two transposes.
        scope: The name of the loop in profiles; "rnn" by default.
        resets: Bool `[batch, time]`, or `[time, batch]` if `time_major`. At steps where
            `resets` is true, the row's state is set to `reset_state` before the step.
            Mark the first step of each episode, which is the step after `done`. Values
            from before a reset, even NaN, do not affect later outputs, later states or
            the gradients of later inputs. Gradients of parameters are sums over all
            steps, so NaN in any episode makes these gradients NaN. Resets past a row's
            length are ignored.
        reset_state: The state that rows are reset to, with the structure of
            `initial_state`, each leaf `[batch, ...]`; None for the cell's zero state,
            even if `initial_state` is given. Scalar leaves and read-only parts are not
            reset.
        implementation: The loop that runs an `AffineCell`. "xla" is a loop compiled by
            XLA. "native" is the package's own C++ loop; it supports LSTMs, GRUs and
            basic RNNs with tanh, relu or sigmoid, in float32 on CPUs. "cudnn" is
            cuDNN's LSTM; it supports plain LSTMs in float32. The driver must then be
            traced on a machine with an NVIDIA GPU. Default: "native" on a single CPU
            device or in a CPU `shard_map`, if built and supported; otherwise "xla". If
            there are no rows or no steps, the choice has no effect.
        mask: Bool `[batch, time]`, or `[time, batch]` if `time_major`; true at valid
            steps. Use `mask` instead of `sequence_length`. At masked steps, where
            `mask` is false, a row keeps its state and outputs zeros, and its inputs,
            even NaN, have no effect. A reset at a masked step takes effect at the row's
            next valid step. Random keys are numbered by valid steps: a row's first
            valid step uses the key of step 0. Each leaf of the state must have a batch
            axis, even if the mask has no gaps. For a state with scalar leaves or
            TensorArrays, pass `sequence_length`. None for no mask.
        return_states: Whether to also return the state after every step. The state
            before a step is the state after the previous step or, for the first step,
            the initial state.

    Returns:
        `(outputs, state)`. `outputs` has the structure of `cell.output_size`, each leaf
        `[batch, time, ...]`, or `[time, batch, ...]` if `time_major`. `state` is the
        state after each row's last valid step, with the structure of the initial state.
        With `return_states`, the result is `(outputs, state, states)`. `states` has the
        structure of `state`, and its leaves have the batch and time axes of the
        outputs. At masked steps and past a row's length, `states` holds the state that
        the row keeps.

    Raises:
        TypeError: If `cell` is not a cell; if the cell changes the dtypes of its state;
            if an argument has the wrong type.
        ValueError: If `inputs` is None or has rank less than 3; if `inputs` holds no
            array (also an IndexError, as in TensorFlow); if shapes disagree; if neither
            `initial_state` nor `dtype` is given; if `reset_state` is given without
            `resets`; if both `mask` and `sequence_length` are given; if
            `implementation` cannot run this cell; with `mask` or `return_states`, if a
            leaf of the state has no batch axis.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn
        >>> cell = jaxrnn.LSTMCell(5)
        >>> x = jnp.ones((4, 7, 3), jnp.float32)
        >>> params = cell.init(jax.random.key(0), x[:, 0])
        >>> outputs, state = jaxrnn.dynamic_rnn(
        ...     cell.bind(params), x, sequence_length=[7, 0, 3, 1], dtype=jnp.float32
        ... )
        >>> outputs.shape, state.h.shape
        ((4, 7, 5), (4, 5))

    Source: `tf.compat.v1.nn.dynamic_rnn`.
    """
    check_is_cell("cell", cell)
    inputs = _checked_inputs(inputs, sequence_length, time_major)
    axis = 0 if time_major else 1
    shape = jax.tree.leaves(inputs)[0].shape[:2]
    valid, sequence_length = as_mask(mask, sequence_length, shape, axis)
    initial_state = _checked_state(initial_state, shape[axis])
    batch = Batch(
        inputs=inputs,
        lengths=as_lengths(sequence_length, shape[1 - axis]),
        state=initial_state,
        mask=valid,
        resets=as_resets(resets, reset_state, shape, axis),
        dtype=output_dtype(initial_state, dtype),
        axis=axis,
        plan=_plan(swap_memory, shape[axis], (cell, inputs, initial_state)),
        unroll=as_unroll(parallel_iterations),
        implementation=as_implementation(implementation),
        return_states=as_bool("return_states", return_states),
        has_mask=mask is not None,
    )
    with jax.named_scope(as_scope(scope, "rnn")):
        results = run_batch(cell, batch)
    return results if return_states else results[:2]


def _checked_inputs(inputs: PyTree, sequence_length: Any, time_major: bool) -> PyTree:
    check_not_packed(inputs)
    order = "dynamic_rnn(cell, inputs, lengths, initial_state=state)"
    check_not_inputs(sequence_length, order)
    return as_sequences(inputs, time_major)


def _checked_state(state: PyTree, time: Any) -> PyTree:
    if state is None:
        return None
    return as_arrays("initial_state", with_capacity_for(state, time))


def _plan(swap_memory: bool | Strategy, time: Any, arrays: PyTree) -> CheckpointPlan:
    return plan_of(as_strategy("swap_memory", swap_memory, arrays), time)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields="inputs lengths state mask resets restarts".split(),
    meta_fields=(
        "dtype axis plan unroll implementation return_states has_mask".split()
    ),
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """The checked arrays and options of a driver; the argument of `run_batch`.

    Attributes:
        inputs: All steps, each leaf `[batch, time, ...]`, or `[time, batch, ...]` if
            the time axis is 0.
        lengths: The length of each row, `[batch]`; None if all steps are valid.
        state: The initial state, each leaf `[batch, ...]`; None for the zero state.
        mask: Bool, with the first two axes of the inputs; true at valid steps, which
            may be at any positions in a row. None if there is no mask with gaps.
        resets: The resets of rows that hold one sequence each.
        restarts: The first steps of the sequences in packed rows.
        dtype: The dtype of the zero state and of the outputs.
        axis: The time axis of inputs and outputs, 0 or 1.
        plan: What the forward pass saves for the backward pass.
        unroll: The number of steps unrolled in each iteration of a scan.
        implementation: The name of the loop that runs an affine cell, or None.
        return_states: Whether to also return the states after all steps.
        has_mask: Whether the driver received a mask, even if it became lengths.
    """

    inputs: PyTree
    lengths: Array | None
    state: PyTree
    dtype: DType
    axis: int
    mask: Array | None = None
    resets: Resets | None = None
    restarts: Restarts | None = None
    plan: CheckpointPlan = _SAVE_EVERYTHING
    unroll: int = 1
    implementation: str | None = None
    return_states: bool = False
    has_mask: bool = False


def run_batch(cell: RNNCellLike, batch: Batch) -> tuple[PyTree, PyTree, PyTree]:
    """Runs `cell` over all steps of a batch; returns `(outputs, state, states)`.

    `states` is None unless `batch.return_states`, and has no read-only parts.

    Outside of jit, JAX would compile the loop in every call, because its body is a new
    closure. To avoid this, equal cells share one compiled function if sharing is safe.
    """
    if trees.is_pytree_of_arrays(cell) and shareable.is_shareable(cell):
        return _compiled_run(cell, batch)
    return _run(cell, batch)


def _run(cell: RNNCellLike, batch: Batch) -> tuple[PyTree, PyTree, PyTree]:
    valid = None
    if batch.mask is not None:
        batch, valid = _move_valid_steps(cell, batch, batch.mask)
    cell, state, run = _prepare(cell, batch)
    outputs, last = _run_in_segments(cell, state, run, batch)
    states = None
    if batch.return_states:
        outputs, states = outputs
    # If there are no lengths, a cell that declares a tuple may return a list.
    outputs = trees.with_structure(cell.output_size, outputs)
    if valid is not None:
        outputs = valid.to_places(outputs, batch.axis)
    if states is not None and valid is not None:
        states = valid.states(states, run.state, batch.axis)
    elif states is not None:
        states = run.steps.keep_last(states, last)
    return outputs, with_read_only(last, batch.state), states


_compiled_run = jax.jit(_run)


def _move_valid_steps(
    cell: RNNCellLike, batch: Batch, mask: Array
) -> tuple[Batch, masking.ValidSteps]:
    """Returns the valid steps as a batch with lengths, and their positions."""
    axis = batch.axis
    inputs = whole_features(batch.inputs, (cell, batch.state), 1 - axis)
    mask = as_rows_of(inputs, jnp.swapaxes(mask, 1, axis), 1 - axis)
    valid = masking.ValidSteps.of(mask)
    inputs = valid.to_front(inputs, axis)
    resets = batch.resets
    if resets is not None:
        where = as_rows_of(inputs, resets.where, 1 - axis)
        resets = resets._replace(where=valid.resets(where))
    moved = dataclasses.replace(
        batch, inputs=inputs, lengths=valid.lengths, resets=resets, mask=None
    )
    return moved, valid


def _prepare(cell: RNNCellLike, batch: Batch) -> tuple[RNNCellLike, PyTree, Run]:
    """Returns the cell, the state and the run, laid out over devices and checked.

    The state holds the read-only parts, which the run does not carry through the loop.

    Raises:
        ValueError: If one step of the cell does not fit the inputs and the state, or
            the options do not support a leaf without a batch axis.
        TypeError: If the step changes the dtypes of the state.
    """
    axis = batch.axis
    lengths = batch.lengths
    state = batch.state
    resets = batch.resets
    inputs = whole_features(batch.inputs, (cell, lengths, state), 1 - axis)
    shape = jax.tree.leaves(inputs)[0].shape
    time = shape[axis]
    first_inputs = masking.first_inputs(inputs, axis)
    if state is None:
        state = with_capacity_for(zero_state(cell, shape[1 - axis], batch.dtype), time)
    if resets is not None:
        resets = resets.with_state_like(cell, state, time, batch.dtype)
    cell, lengths, (state, resets) = lay_out(
        cell, first_inputs, lengths, (state, resets)
    )
    state = call_start(cell, state)
    state = probe(cell, first_inputs, state, batch.dtype, strict=lengths is not None)
    carried = without_read_only(state)
    if batch.has_mask or batch.return_states:
        _check_has_rows(carried)
    longest = None
    if lengths is not None:
        longest = steps_to_run(lengths, time)
        lengths = jnp.minimum(lengths, axis_size(time))
    restarts = batch.restarts
    if resets is not None and time != 0:  # If a run has no steps, it has no resets.
        restarts = resets.as_restarts(lengths, axis)
    steps = Steps(
        lengths=lengths,
        longest=longest,
        restarts=restarts,
        time=time,
        axis=axis,
        returns_states=batch.return_states,
    )
    run = Run(inputs, carried, steps, implementation=batch.implementation)
    return cell, state, run


def _check_has_rows(state: PyTree) -> None:
    """Raises ValueError if a leaf of the state has no batch axis.

    Rows share such a leaf, so it has no value at a step of one row: with a mask, the
    rows are at different steps at the same time.
    """
    for name, leaf in trees.named_leaves("state", state, trees.is_tensor_array):
        if trees.is_tensor_array(leaf) or not leaf.ndim:
            raise InvalidValue(
                "with `mask` or `return_states`, each leaf of the state must be an "
                f"array [batch, ...], got {describe(leaf)} as `{name}`. Let the cell "
                "return the value as an output. For a mask without gaps, "
                "`sequence_length` supports such a leaf."
            )


def _run_in_segments(
    cell: RNNCellLike, state: PyTree, run: Run, batch: Batch
) -> tuple[PyTree, PyTree]:
    """Runs the cell over all steps; returns `(outputs, state)`.

    Args:
        cell: The cell, laid out over devices.
        state: The initial state, whose read-only parts every step reads.
        run: All steps. The run does not have a stand-in for finished rows yet.
        batch: The options.
    """
    cell_in_loop, step = _in_loop(cell, run, state)
    state_in_loop = summed_in_float32(state)
    steps = run.steps.with_stand_in(run.inputs, run.state)
    restart_states = summed_in_float32(steps.restart_states)

    def apply(t: Array, inputs: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        state = with_read_only(state, state_in_loop())
        output, new_state = step(t, inputs, state)
        return output, without_read_only(new_state)

    def apply_sequence(run: Run) -> tuple[PyTree, PyTree]:
        if not hasattr(cell, "apply_sequence"):
            raise DeclinedError("it has no `apply_sequence`")
        if has_read_only(state):
            raise DeclinedError("its state has read-only parts")
        return cell_in_loop().apply_sequence(run)

    def run_segment(
        inputs: PyTree, state: PyTree, steps: Steps
    ) -> tuple[PyTree, PyTree]:
        steps = steps.with_restart_states(restart_states())
        segment = run.replace(inputs=inputs, state=state, steps=steps)
        return run_sequence(apply_sequence, apply, segment, batch.unroll)

    plan = batch.plan
    return segmented_run(
        plan.segments, plan.names_on_host, run_segment, run.inputs, run.state, steps
    )


def _in_loop(
    cell: RNNCellLike, run: Run, state: PyTree
) -> tuple[Callable[[], Any], Apply]:
    """Returns a function that returns the cell, and a function that runs step t.

    A loop calls both in its body, so that gradients of the arrays that all steps share
    are summed in float32. If the cell is not a pytree, its arrays are found by tracing
    one step.
    """
    if trees.is_pytree_of_arrays(cell):
        cell_in_loop = summed_in_float32(cell)
        return cell_in_loop, lambda t, *args: cell_at_step(cell_in_loop(), t)(*args)
    first_inputs = masking.first_inputs(run.inputs, run.steps.axis)
    step, arrays, _ = closed_over(
        lambda t, *args: cell_at_step(cell, t)(*args), jnp.int32(0), first_inputs, state
    )
    arrays_in_loop = summed_in_float32(arrays)
    return lambda: cell, lambda *args: step(arrays_in_loop(), *args)
