"""Prepares a batch for the loop of a run over time."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._base import math, sharding, trees
from .._base.cell_keys import cell_at_step
from .._base.errors import InvalidValue, describe
from .._base.read_only import has_read_only, with_read_only, without_read_only
from .._base.typing import Array, DType, PyTree, RNNCellLike
from .._loops import masking
from .._loops.float32_sums import closed_over, reader
from .._loops.run import DeclinedError, Run
from .._loops.steps import Restarts, Steps, steps_to_run
from .._tensor_array.carried import with_capacity_for
from ..memory._strategy import Strategy
from .initial_state import call_start, zero_state
from .probe import probe
from .resets import Resets


class Batch(NamedTuple):
    """The arrays of a run, after the driver's checks.

    Attributes:
        inputs: All steps, each leaf `[batch, time, ...]`, or `[time, batch, ...]` if
            the time axis is 0.
        lengths: The length of each row, `[batch]`; None if all steps are valid.
        state: The initial state, each leaf `[batch, ...]`; None for the zero state.
        restarts: The first steps of the sequences in packed rows.
        resets: The resets of rows that hold one sequence each.
        mask: Bool, with the first two axes of the inputs; true at valid steps, which
            may be at any positions in a row. None if all steps are valid or if there
            are lengths.
    """

    inputs: PyTree
    lengths: Array | None
    state: PyTree
    restarts: Restarts | None = None
    resets: Resets | None = None
    mask: Array | None = None


@dataclasses.dataclass(frozen=True)
class Options:
    """The static options of a run.

    Attributes:
        dtype: The dtype of the zero state and of the outputs.
        axis: The time axis of inputs and outputs, 0 or 1.
        strategy: The memory strategy (`swap_memory`), which selects what the forward
            pass saves.
        unroll: The number of steps unrolled in each iteration of a scan.
        implementation: The name of the loop that runs an affine cell, or None.
        return_states: Whether to also return the states after all steps.
        has_mask: Whether the driver received a mask, even if it became lengths.
    """

    dtype: DType
    axis: int
    strategy: Strategy
    unroll: int = 1
    implementation: str | None = None
    return_states: bool = False
    has_mask: bool = False


class Prepared(NamedTuple):
    """A run that is ready for a loop: checked, laid out over devices, and with a state.

    Attributes:
        inputs: All steps.
        state: The initial state without its read-only parts, which are not carried
            through the loop.
        steps: The time axis, and which rows are finished at each step.
        apply: A function `apply(t, inputs, state) -> (output, new_state)` that runs
            step t.
        apply_sequence: A function `apply_sequence(run)` that runs whole sequences at
            once; None for a cell without this method.

    Each call of `apply` or `apply_sequence` reads the cell again, so that gradients of
    shared arrays are summed in float32; see `float32_sums`.
    """

    inputs: PyTree
    state: PyTree
    steps: Steps
    apply: Callable[[Array, PyTree, PyTree], tuple[PyTree, PyTree]]
    apply_sequence: Callable[[Run], tuple[PyTree, PyTree]] | None


def prepare(cell: RNNCellLike, batch: Batch, options: Options) -> Prepared:
    """Prepares a run of `cell` over a batch.

    Raises:
        ValueError: If one step of the cell does not fit the inputs and the state, or
            the options do not support a leaf without a batch axis.
        TypeError: If the step changes the dtypes of the state.
    """
    axis, dtype = options.axis, options.dtype
    inputs, lengths, state, restarts, resets, _ = batch
    beside = cell, lengths, state
    inputs = sharding.whole_features(inputs, beside, batch_axis=1 - axis)
    first, inputs_0 = jax.tree.leaves(inputs)[0], masking.first_inputs(inputs, axis)
    time, batch_size = first.shape[axis], first.shape[1 - axis]
    if state is None:
        state = with_capacity_for(zero_state(cell, batch_size, dtype), time)
    if resets is not None:
        resets = resets.with_state_like(cell, state, time, dtype)
    arrays = state, resets
    cell, lengths, (state, resets) = sharding.lay_out(cell, inputs_0, lengths, arrays)
    state = call_start(cell, state)
    state = probe(cell, inputs_0, state, dtype, strict=lengths is not None)
    longest = None if lengths is None else steps_to_run(lengths, time)
    lengths = None if lengths is None else jnp.minimum(lengths, math.axis_size(time))
    if resets is not None and time != 0:  # If a run has no steps, it has no resets.
        restarts = resets.as_restarts(lengths, axis)
    carried = without_read_only(state)
    if options.has_mask:
        fix = (
            "Use a leaf with one entry for each row. If the mask has no gaps, pass "
            f"`sequence_length=mask.sum({axis})` instead."
        )
        _check_has_rows(carried, "mask", fix)
    if options.return_states:
        fix = "Omit `return_states`, or let the cell return the values as outputs."
        _check_has_rows(carried, "return_states", fix)
    axes = {"time": time, "axis": axis, "returns_states": options.return_states}
    steps = Steps(lengths, longest, restarts=restarts, **axes)
    apply, apply_sequence = _step_and_sequence(cell, inputs_0, state)
    steps = steps.with_stand_in(inputs, carried)
    return Prepared(inputs, carried, steps, apply, apply_sequence)


def _check_has_rows(state: PyTree, option: str, fix: str) -> None:
    """Raises ValueError if a leaf of the state has no batch axis.

    Rows share such a leaf, so it has no value at a step of one row: with a mask, the
    rows are at different steps at the same time.
    """
    for name, leaf in trees.named_leaves("state", state, trees.is_tensor_array):
        if trees.is_tensor_array(leaf) or not leaf.ndim:
            raise InvalidValue(
                f"with `{option}`, each leaf of the state must be an array "
                f"[batch, ...], got {describe(leaf)} as `{name}`. {fix}"
            )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _TracedCell:
    """A cell that is not a pytree, together with the arrays that its step reads.

    Attributes:
        arrays: The arrays that were found by tracing the step.
        t: The number of the step.
        step: The traced function `step(arrays, t, inputs, state)`.
        cell: The cell.
    """

    arrays: list[Array]
    t: Any
    step: Callable = dataclasses.field(metadata={"static": True})
    cell: Any = dataclasses.field(metadata={"static": True})

    def at_step(self, t: Array) -> "_TracedCell":
        return dataclasses.replace(self, t=t)

    def __call__(self, inputs: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        return self.step(self.arrays, self.t, inputs, state)

    def apply_sequence(self, run: Run) -> tuple[PyTree, PyTree]:
        return self.cell.apply_sequence(run)


def _traced(cell: RNNCellLike, inputs: PyTree, state: PyTree) -> _TracedCell:
    at_step = lambda t, inputs, state: cell_at_step(cell, t)(inputs, state)
    step, arrays, _ = closed_over(at_step, jnp.int32(0), inputs, state)
    return _TracedCell(arrays, jnp.int32(0), step, cell)


def _step_and_sequence(
    cell: RNNCellLike, inputs: PyTree, state: PyTree
) -> tuple[Callable, Callable | None]:
    """Returns `apply` and `apply_sequence` for `Prepared`.

    Args:
        cell: The cell, laid out over devices.
        inputs: One step of inputs.
        state: The initial state, whose read-only parts every step reads.
    """
    is_pytree = trees.is_pytree_of_arrays(cell)
    read_cell = reader(cell if is_pytree else _traced(cell, inputs, state))
    read_memory = reader(state)

    def apply(t: Array, inputs: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        state = with_read_only(state, read_memory())
        output, new_state = cell_at_step(read_cell(), t)(inputs, state)
        return output, without_read_only(new_state)

    def apply_sequence(run: Run) -> tuple[PyTree, PyTree]:
        if has_read_only(state):
            raise DeclinedError("its state has read-only parts")
        return read_cell().apply_sequence(run)

    return apply, apply_sequence if hasattr(cell, "apply_sequence") else None
