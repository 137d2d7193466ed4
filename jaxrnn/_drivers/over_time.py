"""`over_time`, the loop of `dynamic_rnn` and `packed_rnn`, compiled where possible."""

from typing import Any, NoReturn

import jax
import jax.numpy as jnp

from .._base import cell_keys, math, sharding, shareable, trees
from .._base.inputs import started, zero_state
from .._base.read_only import has_read_only, with_read_only, without_read_only
from .._base.typing import Array, DType, PyTree, RNNCellLike
from .._tensor_array.carried import with_capacity_for
from .._time import masking
from .._time.run import DeclinedError, Run, run_sequence
from .._time.segments import segmented_run
from .._time.steps import Restarts, Steps, steps_to_run
from ..memory._strategy import Strategy, names_on_host, plan_of
from .probe import probe
from .resets import Resets


def over_time(cell: RNNCellLike, *arrays: Any, **options: Any) -> tuple[PyTree, PyTree]:
    """Runs `_run`, through one compiled function for equal cells where that is safe.

    Outside of jit, JAX would compile a loop over a new closure in every call.
    """
    if trees.is_pytree_of_arrays(cell) and shareable.is_shareable(cell):
        return _run_compiled(cell, *arrays, **options)
    return _run(cell, *arrays, **options)


def _run(
    cell: RNNCellLike,
    inputs: PyTree,
    lengths: Array | None,
    state: PyTree,
    restarts: Restarts | None = None,
    resets: Resets | None = None,
    *,
    caller: str,
    dtype: DType,
    axis: int,
    strategy: Strategy,
    unroll: int = 1,
    implementation: Any = None,
) -> tuple[PyTree, PyTree]:
    """`(outputs, state)` of `cell` over all steps.

    Args:
        cell: As drivers take it.
        inputs: All steps, time along `axis`, rows along the other of axes 0 and 1.
        lengths: `[batch]`, or None for all steps.
        state: The initial state, or None for the zero state.
        restarts: Where further sequences start within the rows, if any do; then the
            states after every step are returned in place of those after the last.
        resets: Where the rows start again, if they do.
        caller: The driver, for messages.
        dtype: The dtype of the zero state and of the outputs.
        axis: The time axis, 0 or 1.
        strategy: Which residuals of the steps are saved for derivatives.
        unroll: The number of steps unrolled in each iteration of a scan.
        implementation: What runs an affine cell, a name or None.
    """
    inputs = sharding.whole_features(caller, inputs, (cell, lengths, state), 1 - axis)
    leaf = jax.tree.leaves(inputs)[0]
    time, batch_size = leaf.shape[axis], leaf.shape[1 - axis]
    if state is None:
        state = with_capacity_for(zero_state(caller, cell, batch_size, dtype), time)
    initial_state, inputs_0 = state, masking.first_inputs(inputs, axis)
    if resets is not None:
        resets = resets.with_state(caller, cell, state, time, dtype)
    args = cell, inputs_0, lengths, (state, resets)
    cell, lengths, (state, resets) = sharding.lay_out(*args)
    state = started(cell, state)
    apply_sequence = getattr(cell, "apply_sequence", None)
    state = probe(caller, cell, inputs_0, state, dtype, strict=lengths is not None)
    full_state, state = state, without_read_only(state)
    if has_read_only(full_state):
        apply_sequence = _declined  # It would be given the state without them.
    steps = _steps(lengths, restarts, resets, time, axis).with_stand_in(inputs, state)

    def run_segment(inputs: PyTree, state: PyTree, steps: Steps) -> Any:
        def apply(t: Array, inputs: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
            state = with_read_only(state, full_state)
            cell_now = cell_keys.cell_at_step(cell, steps.offset + t)
            output, new_state = cell_now(inputs, state)
            return output, without_read_only(new_state)

        run = Run(inputs, state, steps, implementation=implementation)
        return run_sequence(caller, apply_sequence, apply, run, unroll)

    plan = plan_of(strategy, time)
    args = run_segment, inputs, state, steps
    outputs, state = segmented_run(plan.segments, names_on_host(plan), *args)
    outputs, state = outputs if steps.returns_states else (outputs, state)
    # Without lengths a cell may return a list where it declares a tuple: restore the
    # declared structure.
    outputs = trees.with_structure(cell.output_size, outputs)
    return outputs, with_read_only(state, initial_state)


def _steps(
    lengths: Array | None, restarts: Any, resets: Resets | None, time: Any, axis: int
) -> Steps:
    """The steps of a run, as `_run` is given them; without a stand-in."""
    longest = None if lengths is None else steps_to_run(lengths, time)
    lengths = None if lengths is None else jnp.minimum(lengths, math.axis_size(time))
    restarts = restarts if resets is None else resets.restarts(lengths, axis)
    return Steps(lengths, longest, restarts=restarts, time=time, axis=axis)


def _declined(run: Run) -> NoReturn:
    raise DeclinedError("its state has read-only parts")


_run_compiled = jax.jit(
    _run,
    static_argnames=("caller", "dtype", "unroll", "axis", "strategy", "implementation"),
)
