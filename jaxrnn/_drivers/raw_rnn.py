"""`raw_rnn`: runs a cell in a loop that `loop_fn` controls.

If `finished` is concrete, the loop is a Python loop. Otherwise, the loop is compiled.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify

from .._base import arguments
from .._base.arguments import check_given
from .._base.cell_keys import cell_at_step
from .._base.errors import error_note
from .._base.hints import with_hints
from .._base.math import concrete_or_none
from .._base.sharding import as_varying_as, lay_out
from .._base.trees import with_read_only, without_read_only
from .._base.typing import Array, AxisSize, PyTree, RNNCellLike
from .._loops import masking
from .._loops.scans import summed_in_float32
from .._tensor_array.carried import (
    LoopWrites,
    of_rows,
    with_capacity_for,
    with_known_shapes,
)
from .._tensor_array.tensor_array import TensorArray
from ..memory import CheckpointPlan, Strategy, as_strategy, plan_of
from .bounded_loop import Position, bounded_loop
from .first_step import call_start
from .loop_fn import Carry, check_first_call, check_next_call

LoopFn = Callable[[Array, PyTree, PyTree, PyTree], PyTree]

Step = Callable[[Array, Carry], tuple[Carry, PyTree]]
"""`step(t, carry) -> (carry, emit)`, at time t."""


@with_hints
def raw_rnn(
    cell: RNNCellLike,
    loop_fn: LoopFn,
    parallel_iterations: int | None = None,
    swap_memory: bool | Strategy = False,
    scope: str | None = None,
    *,
    max_time: int | None = None,
) -> tuple[PyTree, PyTree, PyTree]:
    """Runs `cell` in a loop whose inputs, end and results `loop_fn` controls.

    In pseudocode:

        time = 0
        finished, next_input, initial_state, _, loop_state = loop_fn(
            time, None, None, None)
        state = initial_state
        while not all(finished):  # And time < max_time, if given.
            output, cell_state = cell(next_input, state)
            next_finished, next_input, next_state, emit, loop_state = loop_fn(
                time + 1, output, cell_state, loop_state)
            # Finished rows emit zeros and keep their state.
            state = where(finished, state, next_state)
            emit = where(finished, 0, emit)
            emit_ta = emit_ta.write(time, emit)
            # Mark the rows that finish now.
            finished = finished | next_finished
            time += 1
        return emit_ta, state, loop_state

    Outside jit, the loop is a Python loop, as in TensorFlow's eager mode. If there are
    n steps, `loop_fn` is called n + 1 times, with values that you can print. Under jit,
    and if vmap batches `finished`, the loop is one `lax.while_loop`. `loop_fn` is
    traced twice, for time 0 and for all later times, and once more if the state or the
    loop state holds a TensorArray. Under jit, `loop_fn` may branch on `cell_output is
    None`, but not on values. Both kinds of loop can be differentiated in forward and
    reverse mode, with respect to everything that `loop_fn` and the cell close over; a
    compiled loop without `max_time` has only forward mode. The cost of the forward and
    backward passes is proportional to the number of steps taken, except that buffers of
    `max_time` entries are zeroed, and derivatives run whole segments, which have at
    most 16 steps unless `swap_memory` selects longer segments.

    Emitted values are masked in finished rows; `next_input` and the loop state are not.
    To exclude finished rows from a sum in the loop state, mask these rows in `loop_fn`.

    To run many loops at once, combine them as rows of one batch. Under `vmap`, every
    loop runs until the last loop ends, and each step copies all buffers.

    Args:
        cell: A bound cell, or any object that implements the RNNCell protocol.
        loop_fn: `loop_fn(time, cell_output, cell_state, loop_state)`, called with
            positional arguments. `time` is an int32 scalar; at time 0, the other three
            arguments are None. `loop_fn` returns five values, whose types must not
            change from call to call:

            - `finished`: bool `[batch]`, or a scalar for all rows. If the call at time
              0 returns `[batch]`, later calls may return a scalar. A finished row stays
              finished.
            - `next_input`: the next input of the cell, a nest of `[batch, ...]`. In
              finished rows, the cell receives 0 instead of NaN and infinity.
            - `next_cell_state`: the next state of the cell, usually `cell_state`; at
              time 0, the initial state. Finished rows keep their state, except in
              scalar leaves and TensorArrays.
            - `emit_output`: the value to emit at this step, usually `cell_output`. At
              time 0, nothing is emitted, and `emit_output` describes the values that
              one row emits later: arrays or `jax.ShapeDtypeStruct`s without a batch
              axis, of which only shapes and dtypes are used; `()` to emit nothing; None
              for `cell.output_size` in the dtype of the state's first leaf.
            - `next_loop_state`: a nest of arrays and TensorArrays, without None, for
              the next call; or None to keep the current loop state. If
              `next_loop_state` is None at time 0, there is no loop state.
        parallel_iterations: Accepted for compatibility with TensorFlow; steps run one
            after another.
        swap_memory: Selects what a compiled loop saves for the backward pass. False
            saves the carry before each step. True or a strategy from `jaxrnn.memory`
            saves less, or saves to host memory. Use such a value if the loop state
            holds a TensorArray with an element for every step. Results with different
            values may differ by rounding.
        scope: The name of the loop in profiles; "rnn" by default.
        max_time: The maximum number of steps, an int, or symbolic under `jax.export`.
            Under jit, `max_time` is the size of the buffers, and is required unless
            nothing is emitted and no reverse-mode derivative is taken. The loop stops
            after `max_time` steps even if not all rows are finished. `emit_ta.size()`
            is then `max_time`, and `jax.experimental.checkify` reports an error. Inside
            the steps of a compiled loop, `checkify` reports no errors, and writes
            beyond the capacity of a TensorArray are dropped.

    Returns:
        `(emit_ta, final_state, final_loop_state)`. `emit_ta` is a nest of TensorArrays,
        each with one element `[batch, ...]` per step. Outside jit, `stack()` returns
        `[steps, batch, ...]`. Under jit, `stack()` returns `[max_time, batch, ...]`,
        with zeros after the last step, and `size()` is traced. To stack a nest, use
        `jax.tree.map(lambda ta: ta.stack(), emit_ta, is_leaf=lambda x: isinstance(x,
        jaxrnn.TensorArray))`. Under jit, TensorArrays with `dynamic_size` in the state
        or the loop state have a capacity of at least `max_time + 1` elements, one for
        each call of `loop_fn`. The loop state is None if it was None at time 0.

    Raises:
        TypeError: If `cell` is not a cell or `loop_fn` is not a function; if dtypes
            change after time 0.
        ValueError: If `loop_fn` does not return five values; if structures or shapes
            change after time 0; if `max_time` is missing under jit; if `next_input`
            holds no array, or holds a scalar (also an IndexError, as in TensorFlow).

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn
        >>> cell = jaxrnn.BasicRNNCell(2)
        >>> x = jnp.ones((3, 2), jnp.float32)
        >>> params = cell.init(jax.random.key(0), x)
        >>> zero = cell.zero_state(3, jnp.float32)
        >>> def feed_back(time, output, state, loop_state):
        ...     if output is None:  # Time 0.
        ...         return time >= 4, x, zero, None, None
        ...     return time >= 4, output, state, output, None
        >>> emit_ta, state, _ = jaxrnn.raw_rnn(cell.bind(params), feed_back)
        >>> emit_ta.stack().shape
        (4, 3, 2)

    Source: `tf.compat.v1.nn.raw_rnn`.
    """
    arguments.check_is_cell("cell", cell)
    arguments.check_instance("loop_fn", loop_fn, Callable, "callable")
    loop_fn = _with_notes(
        loop_fn, "`loop_fn(time, cell_output, cell_state, loop_state)`"
    )
    arguments.as_unroll(parallel_iterations)
    strategy = as_strategy("swap_memory", swap_memory)
    if max_time is not None:
        max_time = arguments.as_axis_size("max_time", max_time)
    with jax.named_scope(arguments.as_scope(scope, "rnn")):
        time = jnp.zeros((), jnp.int32)
        finished, next_input, initial_state, emit_types, loop_state = check_first_call(
            cell, loop_fn(time, None, None, None)
        )
        cell, finished, state = lay_out(cell, next_input, finished, initial_state)
        first_state = call_start(cell, state)
        state = without_read_only(first_state)
        emit_ta, last = run_until_finished(
            step=_step_of(cell, loop_fn, emit_types, first_state),
            carry=Carry(finished, next_input, state, loop_state),
            emit_types=emit_types,
            max_time=max_time,
            strategy=strategy,
            # `loop_fn` may write at index 0 at time 0, and at index 1 in step 0.
            first_write=1,
        )
        return emit_ta, with_read_only(last.state, initial_state), last.loop_state


def _step_of(
    cell: RNNCellLike, loop_fn: Callable, emit_types: PyTree, first_state: PyTree
) -> Step:
    """Returns one iteration of the loop: a call of the cell, then a call of `loop_fn`.

    Read-only parts of the state come from `first_state`.
    """
    read = summed_in_float32((cell, first_state))

    def step(time: Array, carry: Carry) -> tuple[Carry, PyTree]:
        cell, first_state = read()
        carry = carry._replace(state=with_read_only(carry.state, first_state))
        finished, next_input, state, loop_state = carry
        cell_now = _with_notes(
            cell_at_step(cell, time), "`cell`, called with values from `loop_fn`"
        )
        next_input = masking.hide_nonfinite(finished, next_input)
        output, cell_state = cell_now(next_input, state)
        returned = loop_fn(time + 1, output, cell_state, loop_state)
        next_finished, next_input, next_state, emit, loop_state = check_next_call(
            returned, carry, emit_types
        )
        # Finished rows emit zeros and keep their state.
        state = masking.advance(
            alive=~finished,
            running=True,
            new=without_read_only(next_state),
            old=without_read_only(state),
        )
        emit = masking.zero_dead(~finished, emit)
        # Mark the rows that finish now.
        finished = finished | next_finished
        return Carry(finished, next_input, state, loop_state), emit

    return step


def _with_notes(fn: Callable, what: str) -> Callable:
    """Wraps a function to add notes to the errors that the function raises."""

    def noted(*args: Any) -> Any:
        with error_note(f"Raised by {what}."):
            try:
                return fn(*args)
            except jax.errors.JAXTypeError as error:
                error.add_note(
                    "Under jit or vmap, `time` and all arrays are traced. Select with "
                    "`jnp.where` or `lax.cond`, and use `if` only for `cell_output is "
                    "None`. Index JAX arrays or TensorArrays, not NumPy arrays."
                )
                raise

    return noted


def run_until_finished(
    step: Step,
    carry: Carry,
    emit_types: PyTree,
    max_time: AxisSize | None,
    strategy: Strategy,
    first_write: int = 0,
    limit_name: str = "max_time",
) -> tuple[PyTree, Carry]:
    """Runs `step` until all rows are finished; returns `(emit_ta, carry)`.

    Args:
        step: The body of the loop.
        carry: The carry before the step at time 0.
        emit_types: The shape and dtype of each leaf that a step emits.
        max_time: The maximum number of steps, which may be symbolic; None for no limit.
        strategy: The memory strategy, which selects what a compiled loop saves for
            derivatives.
        first_write: The index at which the first step may write to an empty
            TensorArray in the carry.
        limit_name: The argument that sets the maximum number of steps, for messages.

    Raises:
        ValueError: If a loop that emits values must be compiled, but has no limit.
    """
    first_carry = as_varying_as(carry, carry)
    carry = first_carry
    emits = []
    while len(emits) != max_time:
        finished = concrete_or_none(jnp.all(carry.finished))
        if finished is None and max_time is None:
            _check_emits_nothing(emit_types, limit_name)
            return emit_types, _unbounded(step, first_carry)
        if finished is None:
            carry = with_capacity_for(first_carry, max_time, first_write)
            plan = plan_of(strategy, max_time)
            emit_ta, carry = _bounded(step, carry, max_time, plan)
            must = f"all rows must finish within `{limit_name}` ({max_time}) steps"
            text = f"{must}, but some did not. Increase `{limit_name}`."
            checkify.debug_check(jnp.all(carry.finished), text)
            return emit_ta, carry
        if finished:
            break
        carry, emit = step(jnp.asarray(len(emits), jnp.int32), carry)
        emits.append(emit)

    def stacked(emitted: jax.ShapeDtypeStruct, *rows: Array) -> TensorArray:
        no_rows = jnp.zeros((0, *emitted.shape), emitted.dtype)
        return of_rows(jnp.stack(rows) if rows else no_rows, np.int32(len(rows)))

    return jax.tree.map(stacked, emit_types, *emits), carry


def _bounded(
    step: Step, carry: Carry, max_time: AxisSize, plan: CheckpointPlan
) -> tuple[PyTree, Carry]:
    """Runs the loop as one compiled operation; returns `(emit_ta, carry)`."""

    def carry_after() -> Carry:
        return jax.eval_shape(step, jnp.int32(0), carry)[0]

    carry = with_known_shapes(carry, carry_after)
    arrays = LoopWrites.find(step, carry, max_time)
    count, last, (emits, writes) = bounded_loop(
        is_running=_is_running,
        step=arrays.emitting(step),
        carry=arrays.without(carry),
        max_steps=max_time,
        plan=plan,
    )
    emit_ta = jax.tree.map(lambda rows: of_rows(rows, count), emits)
    return emit_ta, arrays.filled(last, count, writes)


def _unbounded(step: Step, carry: Carry) -> Carry:
    """Runs a compiled loop that emits nothing and has no limit; lacks reverse mode."""

    def is_running(position: Position) -> Array:
        t, carry = position
        return _is_running(t, carry)

    def body(position: Position) -> Position:
        t, carry = position
        carry, _ = step(t, carry)
        return t + 1, carry

    _, last = jax.lax.while_loop(is_running, body, (jnp.zeros((), jnp.int32), carry))
    return last


def _check_emits_nothing(emit_types: PyTree, limit_name: str) -> None:
    if jax.tree.leaves(emit_types):
        fix = f"Pass `{limit_name}`, the largest number of steps, to size the results."
        check_given(limit_name, None, fix, "given to emit values under jit or vmap")


def _is_running(t: Array, carry: Carry) -> Array:
    del t
    return ~jnp.all(carry.finished)
