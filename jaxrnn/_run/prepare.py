"""Makes the `Run` of a loop from the checked arguments of a call, a `Given`."""

import dataclasses
import functools

import jax.numpy as jnp

from .._base import cell_keys
from .._base.math import batch_maximum
from .._base.sharding import as_rows_of
from .._base.trees import with_tuples_of, without_read_only
from .._base.typing import Array, PyTree, RNNCellLike, bound_or_none
from . import masking
from .arguments import (
    as_reset_state,
    check_has_rows,
    check_rows_of_state,
    fix_of_rows,
    fix_of_zeros,
)
from .first_step import call_start, probe, rows_interact, zero_state
from .given import Given
from .layout import laid_out, with_only_rows_divided
from .masking import Steps
from .reorder import Gaps, ValidSteps, resets_of_valid_steps
from .run import Run
from .tensor_array.carried import with_capacity_for


def prepared(cell: RNNCellLike, given: Given) -> tuple[RNNCellLike, Run, Gaps]:
    """Returns `(cell, run, gaps)`; `gaps` moves the results of valid steps back.

    `run.state` includes the read-only parts of the state, such as an attention memory.

    Raises:
        ValueError: If one step of the cell does not fit the inputs and the state, or if
            a leaf has no batch axis although `given.needs_rows` is true.
        TypeError: If the step changes the dtypes of the state.
    """
    run, gaps = without_gaps(cell, given)
    run = with_all_states(cell, run, given)
    cell, run = laid_out(cell, run)
    run = with_steps_to_run(run, given.least_steps)
    run = with_checked_step(cell, run, given)
    return cell, with_keys(cell, run).with_stand_in(), gaps


def without_gaps(cell: RNNCellLike, given: Given) -> tuple[Run, Gaps]:
    """Makes a run with lengths in place of the mask, and `Gaps` for its results.

    If the rows of the cell interact, step t of all rows must run at the same time. In
    this case, no step moves, and the run has both a mask and lengths.
    """
    inputs, gaps = given.inputs, Gaps()
    steps = Steps(
        lengths=given.lengths,
        mask=given.mask,
        resets=given.resets,
        time=given.time,
        axis=given.axis,
        returns_states=given.returns_states,
        rows_interact=rows_interact(cell),
    )
    if given.time == 0:  # No step is masked, and no row is reset.
        steps = dataclasses.replace(steps, mask=None, resets=None)
    if steps.mask is not None:
        inputs = with_only_rows_divided(inputs, (cell, given.state), 1 - given.axis)
        arrays = steps.to_batch_major((steps.mask, steps.resets))
        arrays = as_rows_of(inputs, arrays, 1 - given.axis)
        if steps.rows_interact:
            steps = _with_mask(steps, *arrays)
        else:
            inputs, steps, gaps = _with_valid_steps_first(inputs, steps, *arrays)
    run = Run(
        inputs=inputs,
        state=given.state,
        steps=steps,
        reset_state=given.reset_state,
        implementation=given.implementation,
        vmap_size=given.vmap_size,
    )
    return run, gaps


def _with_mask(steps: Steps, mask: Array, resets: Array | None) -> Steps:
    """Returns the steps with a mask. The arguments are `[batch, time]`.

    The length of a row is the number of steps up to its last valid step or reset.
    """
    changes_state = mask if resets is None else mask | resets
    ends = jnp.arange(steps.time, dtype=jnp.int32) + 1
    lengths = jnp.max(jnp.where(changes_state, ends, 0), axis=1, initial=0)
    mask, resets = steps.from_batch_major((mask, resets))
    return dataclasses.replace(steps, lengths=lengths, mask=mask, resets=resets)


def _with_valid_steps_first(
    inputs: PyTree, steps: Steps, mask: Array, resets: Array | None
) -> tuple[PyTree, Steps, Gaps]:
    """Moves the valid steps to the front of each row, so that lengths describe them.

    A reset at a masked step moves to the next valid step. `mask` and `resets` are
    `[batch, time]`.
    """
    lengths, moved, pending = steps.lengths, None, None
    if resets is not None:
        resets, pending = resets_of_valid_steps(resets, mask)
    if lengths is None:  # The mask may have gaps.
        moved = ValidSteps.of(mask)
        inputs = moved.to_front(inputs, steps.axis)
        resets = moved.to_front(resets, 1)
        lengths = moved.lengths
    resets, pending = steps.from_batch_major((resets, pending))
    steps = dataclasses.replace(steps, lengths=lengths, mask=None, resets=resets)
    return inputs, steps, Gaps(moved, pending)


def with_all_states(cell: RNNCellLike, run: Run, given: Given) -> Run:
    """Fills in zero states where the user passed None, in the cell's named tuples.

    The cell needs its own classes of named tuples. Later, `results_of` restores the
    user's classes.
    """
    time, rows, bound = given.time, given.rows, bound_or_none(cell)

    def zeros() -> PyTree:
        return with_capacity_for(zero_state(cell, rows, given.dtype), time)

    state = zeros() if run.state is None else run.state
    reset_state, to_zeros = None, False
    if run.steps.resets is not None:
        fix = fix_of_rows(cell, state, rows, time)
        check_rows_of_state(state, rows, "or be a scalar", fix)
        user = with_capacity_for(run.reset_state, time)
        reset_state = without_read_only(as_reset_state(user, zeros, state))
        to_zeros = bool(user is None and bound and bound.cell.starts_from_zeros)
    strict = run.steps.lengths is not None
    state, reset_state = (
        with_tuples_of(cell.state_size, x, strict=strict) for x in (state, reset_state)
    )
    steps = dataclasses.replace(run.steps, resets_to_zeros=to_zeros)
    return run.replace(state=state, reset_state=reset_state, steps=steps)


def with_steps_to_run(run: Run, least_steps: int) -> Run:
    """Sets the number of steps to run, and removes resets past the length of a row.

    Such a reset would change the state of a finished row.
    """
    steps, resets = run.steps, run.steps.resets
    if steps.lengths is None:
        return run
    count = batch_maximum(jnp.max(steps.lengths, initial=least_steps))
    if resets is not None:
        resets &= steps.unfinished_steps()
    steps = dataclasses.replace(steps, steps_to_run=count, resets=resets)
    return run.replace(steps=steps)


def with_checked_step(cell: RNNCellLike, run: Run, given: Given) -> Run:
    """Checks one step, and converts the state to a form that a loop can carry."""
    first_inputs = masking.first_inputs(run.inputs, run.steps.axis)
    fix = fix_of_zeros(first_inputs, given.dtype)
    if given.state is not None:
        fix = fix_of_rows(cell, run.state, given.rows, given.time)
    strict = run.steps.lengths is not None
    state = call_start(cell, run.state)
    state = probe(cell, first_inputs, state, given.dtype, strict, fix)
    if given.needs_rows:
        check_has_rows(without_read_only(state))
    return run.replace(state=state)


def with_keys(cell: RNNCellLike, run: Run) -> Run:
    """Sets the random key of each step, derived from the key of a bound cell."""
    bound = bound_or_none(cell)
    if bound is None or bound.key is None:
        return run
    return run.replace(key_of_step=functools.partial(cell_keys.at_step, bound.key))
