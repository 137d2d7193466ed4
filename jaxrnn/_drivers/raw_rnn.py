"""`raw_rnn`: runs a cell in a loop that `loop_fn` controls."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import (
    as_axis_size,
    as_scope,
    as_unroll,
    check_instance,
    is_list_of,
)
from .._base.cell_keys import cell_at_step
from .._base.derivatives import summed_in_float32
from .._base.errors import EntryError, counted, error_note, expect, is_array, is_key
from .._base.inputs import (
    as_array,
    as_arrays,
    check_rows_of_state,
    check_same_size,
    check_structure,
    like,
    named_inputs,
)
from .._base.sharding import lay_out
from .._base.trees import (
    is_tensor_array,
    map_named,
    opaque,
    types_of_size,
    with_read_only,
    without_read_only,
)
from .._base.typing import Array, PyTree, RNNCellLike
from .._hints import with_hints
from .._run import masking
from .._run.first_step import call_start
from .._run.until_finished import Carry, Step, run_until_finished
from ..memory import Strategy, as_strategy
from .arguments import check_is_cell

EMIT_FIX = (
    "At time 0, `emit_output` describes one row: return arrays without a batch axis, "
    "`()` to emit nothing, or None to emit outputs of `cell.output_size`."
)
SAME_FIX = "Return the same structure as at time 0."
STATE_FIX = "To start all rows from one state, apply `jnp.broadcast_to` at time 0."
NAMES = ("finished", "next_input", "next_cell_state", "emit_output", "next_loop_state")

LoopFn = Callable[[Array, PyTree, PyTree, PyTree], PyTree]

Values = tuple[Array, PyTree, PyTree, PyTree, PyTree]
"""The five values that `loop_fn` returns, checked."""


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
    traced twice, for time 0 and for all later times, and again if the state or the loop
    state holds a TensorArray. Under jit, `loop_fn` may branch on `cell_output is
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
              finished. As in TensorFlow, the shape that all states and emitted values
              share is accepted too.
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
    check_is_cell("cell", cell)
    check_instance("loop_fn", loop_fn, Callable, "callable")
    call = "`loop_fn(time, cell_output, cell_state, loop_state)`"
    loop_fn = _with_notes(loop_fn, call)
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
    in_loop = summed_in_float32((cell, first_state))

    def step(time: Array, carry: Carry) -> tuple[Carry, PyTree]:
        cell, first_state = in_loop()
        carry = carry._replace(state=with_read_only(carry.state, first_state))
        finished, next_input, state, loop_state = carry
        cell_now = _with_notes(
            cell_at_step(cell, time), "`cell`, called with values from `loop_fn`"
        )
        next_input = masking.hide_nonfinite(finished, next_input)
        output, cell_state = cell_now(next_input, state)
        returned = loop_fn(time + 1, output, cell_state, loop_state)
        next_finished, next_input, next_state, emit, loop_state = next_values(
            returned, carry, emit_types
        )
        # Finished rows emit zeros and keep their state.
        state = masking.advance(
            alive=~finished,
            running=True,
            new=without_read_only(next_state),
            old=without_read_only(state),
        )
        emit = masking.zero_unless(~finished, emit)
        # Mark the rows that finish now.
        finished = finished | next_finished
        return Carry(finished, next_input, state, loop_state), emit

    return step


def first_values(
    cell: RNNCellLike, returned: PyTree
) -> tuple[Array, PyTree, PyTree, PyTree, PyTree]:
    """Checks the values that `loop_fn` returned at time 0, and converts them to arrays.

    Args:
        cell: The cell, which defines the sizes.
        returned: The return value of `loop_fn`.

    Returns:
        `(finished, next_input, initial_state, emit_types, loop_state)`. `finished` is
        bool: `[batch]`, a scalar, or of the shape that all masked values share. The
        first input and the initial state have leaves `[batch, ...]`. `emit_types` has a
        `jax.ShapeDtypeStruct` `[batch, ...]` for each leaf that a step emits. The
        initial loop state may be None.

    Raises:
        ValueError: If `loop_fn` did not return five values; if the state does not have
            the structure of `cell.state_size`; if batch sizes disagree.
        EntryError: If `next_input` holds no array, or holds a scalar.
        TypeError: If `finished` is not bool; if a leaf is not an array.
    """
    finished, next_input, state, template, loop_state = _five(returned)
    next_input = as_arrays("next_input", next_input)
    named = named_inputs(next_input, name="next_input")
    for name, leaf in named:
        expect(leaf.ndim > 0, name, "be [batch, ...]", leaf, error=EntryError)
    check_same_size(named)
    rows = named[0][1].shape[0]
    state = as_arrays("next_cell_state", state)
    masked = opaque(without_read_only(state))
    what = "the first `next_cell_state` (see `cell.state_size`)"
    check_structure(what, cell.state_size, masked, strict=True)
    emit_types = _emit_types(cell, template, state, rows)
    # As in TensorFlow, `finished` may also have the shape of all masked values.
    shapes = {x.shape for x in jax.tree.leaves((masked, emit_types)) if np.ndim(x)}
    finished = _as_finished(finished, (rows,), *shapes if len(shapes) == 1 else ())
    if finished.ndim:
        must = f"have {counted(rows, 'row')} like `next_input`"
        check_rows_of_state(state, rows, must, STATE_FIX)
    if loop_state is not None:
        loop_state = as_arrays("next_loop_state", loop_state)
    return finished, next_input, state, emit_types, loop_state


def next_values(returned: PyTree, carry: Carry, emit_types: PyTree) -> Values:
    """Checks the values of a later `loop_fn` call, and converts them to arrays.

    If the new loop state is None, the previous loop state is kept.

    Args:
        returned: The return value of `loop_fn`.
        carry: The values before the call, whose types must not change.
        emit_types: The types of the emitted values, from `first_values`.

    Raises:
        ValueError: If a structure or shape differs from time 0.
        TypeError: If a dtype or a sequence type differs from time 0.
    """
    finished, next_input, state, emit, loop_state = _five(returned)
    shape = carry.finished.shape
    return (
        jnp.broadcast_to(_as_finished(finished, shape), shape),
        like("next_input", next_input, carry.next_input, fix=SAME_FIX),
        like("next_cell_state", state, carry.state, fix=STATE_FIX),
        like("emit_output", emit, emit_types, fix=EMIT_FIX),
        carry.loop_state
        if loop_state is None
        else like("next_loop_state", loop_state, carry.loop_state, fix=SAME_FIX),
    )


def _five(returned: PyTree) -> PyTree:
    fits = is_list_of(returned, len(NAMES))
    error = ValueError if isinstance(returned, tuple | list) else TypeError
    expect(fits, "loop_fn", f"return ({', '.join(NAMES)})", returned, error=error)
    return returned


def _as_finished(finished: object, *shapes: tuple[int, ...]) -> Array:
    """Returns `finished` as a bool array of one of these shapes, or as a scalar."""
    is_nest = isinstance(finished, tuple | list)
    expect(not is_nest, "finished", "be one boolean array", finished)
    array = as_array("finished", finished)
    fix = "Return a comparison, such as `time >= lengths`."
    expect(array.dtype == bool, "finished", "be of dtype bool", array, fix, TypeError)
    must = f"be a scalar or have shape {list(shapes[0])}"
    fix = "To return [batch] later, return `jnp.zeros(batch, bool)` at time 0."
    expect(array.shape in ((), *shapes), "finished", must, array, fix)
    return array


def _emit_types(
    cell: RNNCellLike, template: PyTree, state: PyTree, rows: int
) -> PyTree:
    """The types of the emitted values, from a template or from `cell.output_size`."""
    if template is None:
        dtype = next((x.dtype for x in jax.tree.leaves(state)), None)
        return types_of_size(cell.output_size, rows, dtype, "cell.output_size")

    def emitted(name: str, leaf: Any) -> jax.ShapeDtypeStruct:
        shaped = is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)
        must = "be an array without a batch axis, such as `jnp.zeros([])`"
        expect(shaped and not is_key(leaf), name, must, leaf, error=TypeError)
        dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
        return jax.ShapeDtypeStruct((rows, *leaf.shape), dtype)

    return map_named("emit_output", emitted, template, is_tensor_array)


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
