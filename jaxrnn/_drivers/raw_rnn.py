"""`raw_rnn`: a cell in a loop whose inputs, end and results a function decides."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify

from .._autodiff.transposable import transposable
from .._base.arguments import as_count, as_scope, as_unroll, check_cell
from .._base.errors import describe, noting
from .._base.keys import cell_at_step
from .._base.sharding import as_varying_as, lay_out
from .._base.typing import Array, PyTree, RNNCellLike
from .._tensor_array.store import as_known
from .._tensor_array.tensor_array import (
    TensorArray,
    is_tensor_array,
    of_rows,
    shaped_like,
    with_room,
)
from .._time import masking
from ..memory._resolve import as_strategy
from ..memory._segmented_loop import segmented_loop
from ..memory._strategy import CheckpointPlan, Strategy
from .loop_fn import WHERE, hold_first_call, hold_next_call

TRACED = (
    "Under jit and vmap its arguments are traced: select by jnp.where or lax.cond, "
    "index jnp arrays or TensorArrays, and ask only `cell_output is None` by `if`."
)
LoopFn = Callable[[Array, PyTree, PyTree, PyTree], Any]
Carry = tuple[Array, PyTree, PyTree, PyTree]
"""`(finished, next_input, state, loop_state)`."""


def raw_rnn(
    cell: RNNCellLike,
    loop_fn: LoopFn,
    parallel_iterations: int | None = None,
    swap_memory: bool | Strategy = False,
    scope: str | None = None,
    *,
    max_time: int | None = None,
) -> tuple[PyTree, PyTree, PyTree]:
    """Runs `cell` in a loop that `loop_fn` feeds, ends and reads.

    In pseudo-code:

        finished, next_input, state, _, loop_state = loop_fn(0, None, None, None)
        time = 0
        while not all(finished):  # And time < max_time, if that is given.
            output, cell_state = cell(next_input, state)
            next_finished, next_input, next_state, emit, loop_state = loop_fn(
                time + 1, output, cell_state, loop_state)
            # Rows that were finished before emit zeros and keep their state.
            state = where(finished, state, next_state)
            emit_ta = emit_ta.write(time, where(finished, 0, emit))
            finished = finished | next_finished
            time += 1

    Outside of jit this is a Python loop, as in TensorFlow's eager mode: `loop_fn` is
    called once more than there are steps, with values that can be printed. Under jit
    (and where vmap batches what ends the loop) it is one `lax.while_loop`; `loop_fn` is
    then traced twice, for time 0 and for all later times, and can ask by `if` whether
    `cell_output is None`, but not for values. Either way it can be differentiated in
    every mode, by all that `loop_fn` and the cell close over, and backward as forward
    costs what the steps taken cost, beside the filling of buffers of `max_time` rows.

    Emits are masked, `next_input` and the loop state are not: a sum that finished rows
    must not add to keeps its own account of who is finished.

    A batch of loops belongs into the rows: under `vmap` the loops run until the last
    one ends, and each step then costs a copy of all buffers.

    Args:
        cell: A bound cell, or any object that keeps the RNNCell protocol.
        loop_fn: `loop_fn(time, cell_output, cell_state, loop_state)`, called by
            position, `time` an int32 scalar. It returns five things:

            - `finished`: bool `[batch]`, or a scalar for all rows. A row that was
              reported once stays finished.
            - `next_input`: what the cell is given next, a nest of `[batch, ...]`. In
              finished rows NaN and infinity are shown to the cell as 0.
            - `next_cell_state`: the state that goes on, usually `cell_state`; at time 0
              the initial state. Finished rows keep theirs, except in leaves without
              axes and in TensorArrays.
            - `emit_output`: what is written at this step, usually `cell_output`. At
              time 0 arrays (or `jax.ShapeDtypeStruct`s) without batch axis that stand
              for shape and dtype, their values not being read; or `()` for nothing; or
              None for `cell.output_size` in the dtype of the state's first leaf.
            - `next_loop_state`: any nest of arrays and TensorArrays (without None in
              it), handed to the next call as it is; None keeps the present one. If it
              is None at time 0 there is none.

            At time 0 the other three arguments are None. Types must not change from
            call to call.
        parallel_iterations: Taken for TensorFlow's sake; steps follow one another.
        swap_memory: What derivatives of a compiled loop keep of its steps: False for
            what each started from, True or a strategy of `jaxrnn.memory` for less, or
            for the host's memory. Never changes values.
        scope: The name of the loop in profiles; "rnn" by default.
        max_time: The most steps that are taken, an int. Needed under jit, where it is
            the size of the buffers, unless nothing is emitted and nothing is
            differentiated backward. When it is reached the loop stops as it is: rows
            that are not finished have emitted `max_time` times, `emit_ta.size()` is
            `max_time`. `jax.experimental.checkify` makes an error of that, and of
            writes to TensorArrays for which there is no room, which are dropped
            otherwise.

    Returns:
        `(emit_ta, final_state, final_loop_state)`. `emit_ta` is a nest of TensorArrays
        of as many elements `[batch, ...]` as there were steps. Outside of jit `stack()`
        returns `[steps, batch, ...]`; under jit `[max_time, batch, ...]`, zeros beyond
        the steps, and `size()` is traced. TensorArrays in the state or the loop state
        that may grow have room for `max_time + 1` elements under jit, one for each call
        of `loop_fn`. The loop state is None if it was None at time 0.

    Raises:
        TypeError: If `cell` is not a cell or `loop_fn` not a function; if dtypes are
            not what they were at time 0.
        ValueError: If `loop_fn` does not return five things, or structures or shapes
            are not what they were at time 0; if `max_time` is missing under jit.

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
    check_cell(WHERE, "cell", cell)
    if not callable(loop_fn):
        raise TypeError(
            f"{WHERE}: `loop_fn` must be callable, got {describe(loop_fn)}."
        )
    as_unroll(WHERE, parallel_iterations)
    strategy = as_strategy(WHERE, "swap_memory", swap_memory)
    limit = max_time
    if limit is not None:
        fix = "It is static: the size of buffers."
        limit = as_count(WHERE, "max_time", limit, least=0, fix=fix)
    with jax.named_scope(as_scope(WHERE, scope, "rnn")):
        loop_fn = _noting(
            loop_fn, "`loop_fn(time, cell_output, cell_state, loop_state)`"
        )
        time = jnp.zeros((), jnp.int32)
        first = hold_first_call(cell, loop_fn(time, None, None, None))
        xs = jax.tree.map(lambda x: x[None], first.next_input)
        cell, finished, state = lay_out(cell, xs, first.finished, first.state, 1)

        def step(time: Array, carry: Carry) -> tuple[Carry, PyTree]:
            return _step(cell, loop_fn, first.emit, time, carry)

        def compiled(carry: Carry) -> tuple[PyTree, Carry]:
            return _run_compiled(step, carry, first.emit, limit, strategy)

        carry: Any = finished, first.next_input, state, first.loop_state
        carry = as_varying_as(carry, carry)
        emit_ta, carry = _run(step, compiled, carry, first.emit, limit)
        return emit_ta, *carry[2:]


def _step(
    cell: RNNCellLike, loop_fn: LoopFn, emits: PyTree, time: Array, carry: Carry
) -> tuple[Carry, PyTree]:
    """The body of the loop: `((finished, next_input, state, loop_state), emit)`."""
    finished, next_input, state, loop_state = carry
    next_input = masking.hide_nonfinite(finished, next_input)
    call = _noting(cell_at_step(cell, time), "`cell` on what `loop_fn` returned")
    output, cell_state = call(next_input, state)
    next_finished, next_input, next_state, emit, loop_state = hold_next_call(
        loop_fn(time + 1, output, cell_state, loop_state), carry, emits
    )
    # Emit zeros and copy the state forward in rows that were finished before.
    state = masking.advance(~finished, True, next_state, state)
    emit = masking.zero_dead(~finished, emit)
    finished = finished | next_finished
    return (finished, next_input, state, loop_state), emit


def _run(
    step: Callable,
    compiled: Callable,
    start: Carry,
    emits: PyTree,
    limit: int | None,
) -> tuple[PyTree, Carry]:
    """The loop in Python, as long as it is known outside of a trace when to end it."""
    time, carry, rows = 0, start, []
    while time != limit:
        goes_on = as_known(_is_running(time, carry))
        if goes_on is None:
            return compiled(start)
        if not goes_on:
            break
        carry, emit = step(jnp.asarray(time, jnp.int32), carry)
        rows.append(emit)
        time += 1

    def stacked(like: jax.ShapeDtypeStruct, *rows: Array) -> TensorArray:
        none = jnp.zeros((0, *like.shape), like.dtype)
        return of_rows(jnp.stack(rows) if rows else none, np.int32(time))

    return jax.tree.map(stacked, emits, *rows), carry


def _run_compiled(
    step: Callable,
    carry: Carry,
    emits: PyTree,
    limit: int | None,
    strategy: Strategy,
) -> tuple[PyTree, Carry]:
    """The loop as one operation, of `limit` steps at most."""
    if limit is None:
        return emits, _run_unbounded(step, carry, emits)
    carry = _with_room(step, carry, limit)
    plan = strategy.plan(limit) if limit else CheckpointPlan()
    size, carry, rows = segmented_loop(plan, _is_running, step, carry, limit)
    checkify.debug_check(
        ~_is_running(size, carry), f"{WHERE}: max_time {limit} was reached"
    )
    return jax.tree.map(lambda rows: of_rows(rows, size), rows), carry


def _run_unbounded(step: Callable, carry: Carry, emits: PyTree) -> Carry:
    if jax.tree.leaves(emits):
        raise ValueError(
            f"{WHERE}: `max_time` must be given under jit and vmap, got None. It "
            "bounds the number of steps, and with it the size of `emit_ta`."
        )

    def body(loop: tuple[Array, Carry]) -> tuple[Array, Carry]:
        time, carry = loop
        return time + 1, step(time, carry)[0]

    start = (jnp.zeros((), jnp.int32), carry)
    carry = jax.lax.while_loop(lambda loop: _is_running(*loop), body, start)[1]
    return jax.tree.map(_not_reversible, carry)


def _not_reversible(leaf: Array) -> Array:
    """The same value; an error of our own where JAX would go backwards from it."""

    def refuse(_: Any, cotangent: Any) -> Any:
        raise ValueError(
            f"{WHERE}: `max_time` must be given to differentiate backward under jit, "
            "got None. It bounds what is kept of the steps."
        )

    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return leaf
    return transposable(lambda _, leaf: leaf, refuse, (), leaf)


def _is_running(time: Array | int, carry: Carry) -> Array:
    return ~jnp.all(carry[0])


def _noting(fn: Callable, what: str) -> Callable:
    def noted(*args: Any) -> Any:
        with noting(f"{WHERE}: raised by {what}."):
            try:
                return fn(*args)
            except jax.errors.JAXTypeError as error:
                error.add_note(TRACED)
                raise

    return noted


def _with_room(step: Callable, carry: Carry, limit: int) -> Carry:
    """The carry, its TensorArrays of the shape and with the room for all writes."""
    carry = _map_arrays(lambda array: with_room(array, limit + 1), carry)
    leaves = jax.tree.leaves(carry, is_leaf=is_tensor_array)
    if not any(is_tensor_array(x) and x.element_shape is None for x in leaves):
        return carry
    time = jax.ShapeDtypeStruct((), jnp.int32)
    after, _ = jax.eval_shape(step, time, carry)
    # What a step writes to tells the shape.
    return _map_arrays(shaped_like, carry, after)


def _map_arrays(fn: Callable, tree: PyTree, *rest: PyTree) -> PyTree:
    return jax.tree.map(
        lambda x, *others: fn(x, *others) if is_tensor_array(x) else x,
        tree,
        *rest,
        is_leaf=is_tensor_array,
    )
