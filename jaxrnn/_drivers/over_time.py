"""`over_time`, the loop of `dynamic_rnn` and its kin, compiled where possible."""

import jax

from .._base import shareable, trees
from .._base.read_only import with_read_only
from .._base.typing import PyTree, RNNCellLike
from .._time.float32_sums import reader
from .._time.run import Run, run_sequence
from .._time.segments import segmented_run
from .._time.steps import Steps
from ..memory._strategy import plan_of
from .preparation import Batch, Options, prepare


def over_time(
    cell: RNNCellLike, batch: Batch, options: Options
) -> tuple[PyTree, PyTree]:
    """`(outputs, state)` of `cell` over all steps of a batch.

    Outside of jit, JAX would compile a loop over a new closure in every call. So equal
    cells share one compiled function, where that is safe.
    """
    if trees.is_pytree_of_arrays(cell) and shareable.is_shareable(cell):
        return _run_compiled(cell, batch, options)
    return _run(cell, batch, options)


def _run(cell: RNNCellLike, batch: Batch, options: Options) -> tuple[PyTree, PyTree]:
    prepared = prepare(cell, batch, options)
    read = reader(prepared.steps.restart_states)

    def run_segment(
        inputs: PyTree, state: PyTree, steps: Steps
    ) -> tuple[PyTree, PyTree]:
        steps = steps.with_restart_states(read())
        run = Run(inputs, state, steps, implementation=options.implementation)
        ways = prepared.apply_sequence, prepared.apply
        return run_sequence(options.caller, *ways, run, options.unroll)

    steps = prepared.steps
    plan = plan_of(options.strategy, steps.time)
    args = run_segment, prepared.inputs, prepared.state, steps
    outputs, state = segmented_run(plan.segments, plan.names_on_host, *args)
    if steps.returns_states:
        outputs, state = outputs
    # Without lengths a cell may return a list where it declares a tuple.
    outputs = trees.with_structure(cell.output_size, outputs)
    return outputs, with_read_only(state, batch.state)


_run_compiled = jax.jit(_run, static_argnames="options")
