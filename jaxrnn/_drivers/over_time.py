"""`over_time`, the loop of `dynamic_rnn` and similar drivers."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from .._base import shareable, trees
from .._base.read_only import with_read_only
from .._base.sharding import as_rows_of, whole_features
from .._base.typing import Array, PyTree, RNNCellLike
from .._loops.float32_sums import reader
from .._loops.gaps import Kept
from .._loops.run import Run, run_sequence
from .._loops.segments import segmented_run
from .._loops.steps import Steps
from ..memory._strategy import plan_of
from .preparation import Batch, Options, Prepared, prepare


class Results(NamedTuple):
    """The results of a run over time.

    Attributes:
        outputs: The outputs of all steps, with the axes of the inputs.
        state: The state after the last step of each row.
        states: The states after all steps, without read-only parts; None unless
            `Options.return_states` is set.
    """

    outputs: PyTree
    state: PyTree
    states: PyTree = None


def over_time(cell: RNNCellLike, batch: Batch, options: Options) -> Results:
    """Runs `cell` over all steps of a batch.

    Outside of jit, JAX would compile the loop in every call, because its body is a new
    closure. To avoid this, equal cells share one compiled function if sharing is safe.
    """
    if trees.is_pytree_of_arrays(cell) and shareable.is_shareable(cell):
        return _run_compiled(cell, batch, options)
    return _run(cell, batch, options)


def _run(cell: RNNCellLike, batch: Batch, options: Options) -> Results:
    kept, axis = None, options.axis
    if batch.mask is not None:
        batch, kept = _only_kept(batch, batch.mask, cell, options)
    prepared = prepare(cell, batch, options)
    outputs, state = _run_loop(prepared, options)
    outputs, states = outputs if options.return_states else (outputs, None)
    # If there are no lengths, a cell that declares a tuple may return a list.
    outputs = trees.with_structure(cell.output_size, outputs)
    if kept is not None:
        outputs = kept.to_places(outputs, axis)
        if options.return_states:
            states = kept.states(states, prepared.state, axis)
    elif options.return_states:
        states = prepared.steps.keep_last(states, state)
    return Results(outputs, with_read_only(state, batch.state), states)


def _only_kept(
    batch: Batch, mask: Array, cell: RNNCellLike, options: Options
) -> tuple[Batch, Kept]:
    """Returns the valid steps as a batch with lengths, and their positions."""
    axis, beside = options.axis, (cell, batch.state)
    inputs = whole_features(batch.inputs, beside, 1 - axis)
    kept = Kept.by(as_rows_of(inputs, jnp.swapaxes(mask, 1, axis), 1 - axis))
    inputs, resets = kept.to_front(inputs, axis), batch.resets
    if resets is not None:
        where = as_rows_of(inputs, resets.where, 1 - axis)
        resets = resets._replace(where=kept.resets(where))
    new = {"inputs": inputs, "lengths": kept.lengths, "resets": resets, "mask": None}
    return batch._replace(**new), kept


def _run_loop(prepared: Prepared, options: Options) -> tuple[PyTree, PyTree]:
    read = reader(prepared.steps.restart_states)

    def run_segment(
        inputs: PyTree, state: PyTree, steps: Steps
    ) -> tuple[PyTree, PyTree]:
        steps = steps.with_restart_states(read())
        run = Run(inputs, state, steps, implementation=options.implementation)
        ways = prepared.apply_sequence, prepared.apply
        return run_sequence(*ways, run, options.unroll)

    steps = prepared.steps
    plan = plan_of(options.strategy, steps.time)
    args = run_segment, prepared.inputs, prepared.state, steps
    return segmented_run(plan.segments, plan.names_on_host, *args)


_run_compiled = jax.jit(_run, static_argnames="options")
