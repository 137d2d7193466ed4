"""`raw_rnn`: runs a cell in a loop that `loop_fn` controls."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental import checkify

from .._base.arguments import as_axis_size, check_instance
from .._base.cell_keys import cell_at_step
from .._base.derivatives import with_float32_gradients
from .._base.hints import with_hints
from .._base.math import concrete_or_none
from .._base.trees import with_read_only, without_read_only
from .._base.typing import Array, PyTree, RNNCellLike
from .._run import masking
from .._run.first_step import call_start
from .._run.layout import lay_out
from .._run.memory import Strategy, as_strategy
from .._run.until_finished import Carry, run_until_finished
from .arguments import (
    as_scope,
    as_unroll,
    check_is_cell,
    first_values,
    next_values,
    with_notes,
)

LoopFn = Callable[[Array, PyTree, PyTree, PyTree], PyTree]


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

    In pseudocode::

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
    or if vmap batches `finished`, the loop is one `lax.while_loop`. `loop_fn` is traced
    twice, for time 0 and for all later times, and again if the state or the loop state
    holds a TensorArray. Under jit, `loop_fn` may branch on `cell_output is None`, but
    not on values.

    A Python loop, or a compiled loop with `max_time`, can be differentiated in forward
    and reverse mode, with respect to everything that `loop_fn` and the cell close over.
    A compiled loop without `max_time` supports only forward mode.

    The cost of the forward and backward passes is proportional to the number of steps
    taken, with two exceptions. Buffers of `max_time` entries are set to zeros. For
    derivatives, the number of steps is rounded up to a multiple of at most 16. If
    `swap_memory` divides the run into parts, the number of steps in a part replaces 16.

    In finished rows, zeros replace the emitted values, but `next_input` and the loop
    state are not masked. To exclude finished rows from a sum in the loop state, mask
    these rows in `loop_fn`.

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
              finished. As in TensorFlow, if all states and emitted values have the same
              shape, `finished` may also have this shape.
            - `next_input`: the next input of the cell, a nest of `[batch, ...]`. In
              finished rows, the cell receives 0 instead of NaN and infinity.
            - `next_cell_state`: the next state of the cell, usually `cell_state`; at
              time 0, the initial state. Finished rows keep their state, except in
              scalar leaves and TensorArrays.
            - `emit_output`: the value to emit at this step, usually `cell_output`. At
              time 0, nothing is emitted. Instead, `emit_output` describes the values
              that one row emits later, by arrays or `jax.ShapeDtypeStruct`s without a
              batch axis, of which only shapes and dtypes are used. Return `()` to emit
              nothing later. Return None to emit values of `cell.output_size`, in the
              dtype of the state's first leaf.
            - `next_loop_state`: a nest of arrays and TensorArrays, without None, for
              the next call. Return None to keep the current loop state. If
              `next_loop_state` is None at time 0, there is no loop state.
        parallel_iterations: Accepted for compatibility with TensorFlow; steps run one
            after another.
        swap_memory: Selects the arrays that a compiled loop saves for the backward
            pass. False saves the state and the loop state before each step. True or a
            strategy from `jaxrnn.memory` saves less, or saves to host memory. Do not
            use False if the loop state holds a TensorArray with an element for every
            step. A different value of `swap_memory` may change results by rounding.
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
        TypeError: If `cell` is not a cell, `loop_fn` is not a function, or the
            dtypes of its results change after time 0.
        ValueError: If `loop_fn` does not return five values, structures or shapes of
            these values change after time 0, or `max_time` is missing under jit.
        ValueError: If `next_input` holds no array, or holds a scalar. This error is
            also an IndexError, as in TensorFlow.

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
    check_is_cell("cell", cell)
    check_instance("loop_fn", loop_fn, Callable, "callable")
    call = "`loop_fn(time, cell_output, cell_state, loop_state)`"
    loop_fn = with_notes(loop_fn, call)
    as_unroll(parallel_iterations)
    strategy = as_strategy("swap_memory", swap_memory)
    if max_time is not None:
        max_time = as_axis_size("max_time", max_time)
    with jax.named_scope(as_scope(scope, "rnn")):
        returned = loop_fn(jnp.zeros((), jnp.int32), None, None, None)
        finished, next_input, initial_state, emit_types, loop_state = first_values(
            cell, returned
        )
        cell, finished, state = lay_out(cell, next_input, finished, initial_state)
        first_state = call_start(cell, state)
        in_loop = with_float32_gradients((cell, first_state))

        # One iteration: a call of the cell, then a call of `loop_fn`. The loop does not
        # carry the read-only parts of the state, which come from the first state.
        def step(time: Array, carry: Carry) -> tuple[Carry, PyTree]:
            cell, first_state = in_loop()
            carry = carry._replace(state=with_read_only(carry.state, first_state))
            finished, next_input, state, loop_state = carry
            cell = with_notes(
                cell_at_step(cell, time), "`cell`, called with values from `loop_fn`"
            )
            next_input = masking.hide_nonfinite(finished, next_input)
            output, cell_state = cell(next_input, state)
            returned = loop_fn(time + 1, output, cell_state, loop_state)
            next_finished, next_input, next_state, emit, loop_state = next_values(
                returned, carry, emit_types
            )
            # Finished rows emit zeros and keep their state.
            state = masking.advance(
                valid=~finished,
                running=True,
                new=without_read_only(next_state),
                old=without_read_only(state),
            )
            emit = masking.zero_unless(~finished, emit)
            # Mark the rows that finish now.
            finished = finished | next_finished
            return Carry(finished, next_input, state, loop_state), emit

        state = without_read_only(first_state)
        emit_ta, last = run_until_finished(
            step=step,
            carry=Carry(finished, next_input, state, loop_state),
            emit_types=emit_types,
            max_time=max_time,
            strategy=strategy,
            # `loop_fn` may write at index 0 at time 0, and at index 1 in step 0.
            first_write=1,
        )
        ended = jnp.all(last.finished)
        if max_time is not None and concrete_or_none(ended) is None:
            must = f"all rows must finish within `max_time` ({max_time}) steps"
            text = f"{must}, but some did not. Increase `max_time`."
            checkify.debug_check(ended, text)
        return emit_ta, with_read_only(last.state, initial_state), last.loop_state
