"""The protocol of `raw_rnn`, rule by rule; `tf1/` compares with TensorFlow."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import drawn
from jax.experimental import checkify

from jaxrnn import FunctionCell, LSTMCell, TensorArray, TensorShape, raw_rnn

F64, I32 = jnp.float64, jnp.int32
ROWS = 3


def plus_one(params, inputs, state, key=None):
    return state + 1, state + 1


COUNTER = FunctionCell(plus_one, 1, 1, lambda *_: {}).bind({})
ZERO = jnp.zeros((ROWS, 1))
# Outside of jit; and under jit, with a bound.
in_both = pytest.mark.parametrize("max_time", [None, 7], ids=["python", "compiled"])


def run(loop_fn, max_time=None, cell=COUNTER):
    """Run `raw_rnn` outside of jit, or inside of jit if `max_time` is given."""
    call = lambda: raw_rnn(cell, loop_fn, max_time=max_time)
    return call() if max_time is None else jax.jit(call)()


def looping(
    finished,
    start=ZERO,
    state=lambda state: state,
    template=None,
    emit=lambda time, output: output,
    loop_state=lambda *_: None,
):
    """A loop function, from what it returns at time 0 and later."""

    def loop_fn(time, output, cell_state, old):
        is_first = output is None
        new = start if is_first else state(cell_state)
        emits = template if is_first else emit(time, output)
        loop = loop_state(time, output, old)
        return finished(time, output), ZERO, new, emits, loop

    return loop_fn


def until(*lengths, **parts):
    """A loop function for rows that end at `lengths`."""
    ends = jnp.asarray(lengths, I32)
    return looping(lambda time, output: time >= ends, **parts)


def column(emit_ta):
    return np.asarray(emit_ta.stack()[..., 0])


def test_outside_of_jit_loop_fn_is_called_once_more_than_there_are_steps():
    calls = []

    def loop_fn(*args):
        calls.append(args)
        return until(1, 2, 3)(*args)

    run(loop_fn)
    times, outputs, states, loop_states = zip(*calls, strict=True)
    assert [(int(time), time.dtype) for time in times] == [(t, I32) for t in range(4)]
    assert outputs[0] is states[0] is None
    assert {*loop_states} == {None}
    # Row 0 is frozen at 1, but the cell still runs on it: loop_fn sees the raw results.
    seen = [output[:, 0].tolist() for output in outputs[1:]]
    assert seen == [[1, 1, 1], [2, 2, 2], [2, 3, 3]]


@in_both
def test_a_scalar_may_follow_a_vector(max_time):
    """What `loop_fn` says is finished: none of the rows at time 0, then all at once."""
    first = jnp.zeros(ROWS, bool)
    finished = lambda time, output: first if output is None else time >= 2
    emit_ta, state, _ = run(looping(finished), max_time)
    assert (emit_ta.size(), state[:, 0].tolist()) == (2, [2, 2, 2])


@in_both
def test_leaves_without_axes_and_arrays_in_the_state_are_not_masked(max_time):
    def step(params, inputs, state, key=None):
        count, rows, ta = state
        return rows, (count + 1, rows + 1, ta.write(count, rows[:, 0]))

    size = TensorShape([])
    cell = FunctionCell(step, (size, 1, size), 1, lambda *_: {}).bind({})
    start = jnp.int32(0), ZERO, TensorArray(F64, 3, element_shape=[ROWS])
    loop_fn = until(1, 2, 3, start=start, template=jnp.zeros(1))
    _, (count, rows, ta), _ = run(loop_fn, max_time, cell)
    assert (count, rows[:, 0].tolist()) == (3, [1, 2, 3])
    assert ta.stack().tolist() == [[0, 0, 0], [1, 1, 1], [1, 2, 2]]


def collecting(grows, shape=None):
    """A loop function that collects the outputs in a TensorArray."""

    def collect(time, output, old):
        if output is None:
            return TensorArray(F64, 0 if grows else 3, grows, element_shape=shape)
        return old.write(time - 1, output[:, 0])

    return until(1, 2, 3, loop_state=collect)


@pytest.mark.fast("False-*-compiled", "True-*-python")
@in_both
@pytest.mark.parametrize(("grows", "shape"), [(False, None), (True, [3])])
def test_arrays_in_the_loop_state_collect(grows, shape, max_time):
    *_, ta = run(collecting(grows, shape), max_time)
    assert (ta.size(), ta.stack().tolist()) == (3, [[1, 1, 1], [2, 2, 2], [2, 3, 3]])


def test_stacked_under_jit_come_all_rows_that_there_is_room_for():
    def stacked():
        emit_ta, _, ta = raw_rnn(COUNTER, collecting(grows=True), max_time=5)
        return emit_ta.stack()[..., 0], emit_ta.size(), ta.stack(), ta.size()

    emits, size, kept, kept_size = jax.jit(stacked)()
    assert (size, kept_size) == (3, 3)
    assert emits.tolist() == [[1, 1, 1], [0, 2, 2], [0, 0, 3], [0] * 3, [0] * 3]
    # One element for each call of loop_fn.
    assert kept.tolist() == [[1, 1, 1], [2, 2, 2], [2, 3, 3], *[[0] * 3] * 3]


@in_both
def test_emits_are_as_the_template_says(max_time):
    # A template has no batch axis, and its values are not read.
    template = {"a": np.full((2,), 9, np.int32), "b": [jnp.asarray(True)]}
    emit = lambda time, _: {"a": jnp.full((ROWS, 2), time), "b": [jnp.ones(ROWS, bool)]}
    emit_ta, _, _ = run(until(1, 2, 3, template=template, emit=emit), max_time)
    a, b = emit_ta["a"].stack(), emit_ta["b"][0].stack()
    assert (a.dtype, b.dtype) == (I32, bool)
    assert a[:3, :, 1].tolist() == [[1, 1, 1], [0, 2, 2], [0, 0, 3]]
    assert b[:3].tolist() == [[True] * 3, [False, True, True], [False, False, True]]


@pytest.mark.parametrize("jit", [jax.jit, lambda call: call])
def test_at_max_time_the_loop_stops_as_it_is(jit):
    emit_ta, state, _ = jit(lambda: raw_rnn(COUNTER, until(1, 9, 9), max_time=2))()
    assert column(emit_ta).tolist() == [[1, 1, 1], [0, 2, 2]]
    assert (emit_ta.size(), state[:, 0].tolist()) == (2, [1, 2, 2])


def test_checkify_finds_rows_that_max_time_cut_off():
    call = lambda n: raw_rnn(COUNTER, until(1, 2, 3), max_time=n)[1]
    for max_time, cut in ((2, True), (3, False)):
        error, _ = checkify.checkify(jax.jit(functools.partial(call, max_time)))()
        assert ("within `max_time` (2) steps" in str(error.get())) == cut


def test_vmap_outside_of_jit_finds_that_it_needs_a_bound():
    """At time 0, nothing is batched; later, `vmap` batches the end of a row."""

    def size(scale, max_time):
        def finished(time, output):
            if output is None:
                return jnp.zeros(ROWS, bool)
            return output[:, 0] * scale > 1

        return raw_rnn(COUNTER, looping(finished), max_time=max_time)[0].size()

    got = jax.vmap(lambda scale: size(scale, 4))(jnp.array([1.0, 0.1]))
    assert got.tolist() == [2, 4]
    with pytest.raises(ValueError, match="`max_time` must be given to emit values"):
        jax.vmap(lambda scale: size(scale, None))(jnp.array([1.0, 2.0]))


# What is named, and the result's position and its value at time 0 and later, or None
# for a valid one.
RESULTS = [
    (ValueError, "`finished`", 0, jnp.zeros(2, bool), None),
    (IndexError, "`next_input`", 1, (), None),
    (ValueError, "`next_cell_state`", 2, (ZERO,), None),
    (TypeError, "`emit_output`", 3, jax.random.key(0), None),
    (TypeError, "`next_cell_state`", 2, None, ZERO > 0),
    (TypeError, "`emit_output`", 3, None, ZERO > 0),
    (ValueError, "`next_loop_state`", 4, TensorArray(F64, 2), TensorArray(F64, 3)),
]


def returning(place, first, later=None):
    """A valid loop function, except for the result at a position."""

    def loop_fn(time, output, *others):
        result = list(until(1, 2, 3)(time, output, *others))
        value = first if output is None else later
        if value is not None:
            result[place] = value
        return tuple(result)

    return loop_fn


@in_both
@pytest.mark.parametrize(("error", "name", "place", "first", "later"), RESULTS)
def test_refuses_what_loop_fn_returns(error, name, place, first, later, max_time):
    with pytest.raises(error, match=name):
        run(returning(place, first, later), max_time)


LSTM = LSTMCell(1).bind(drawn(LSTMCell(1), ZERO))


def test_errors_from_within_say_where_they_came_from():
    with pytest.raises(TypeError) as caught:
        raw_rnn(COUNTER, lambda time: None)
    assert "Raised by `loop_fn(time, " in caught.value.__notes__[0]
    wide = jnp.zeros((ROWS, 5)), LSTM.zero_state(ROWS, F64)
    with pytest.raises(ValueError, match=r"`params\['kernel'\]`") as caught:
        raw_rnn(LSTM, lambda *_: (False, *wide, None, None))
    assert "Raised by `cell`, called with" in caught.value.__notes__[0]


def test_without_a_bound_derivatives_go_forward_alone():
    def total(start):
        parts = {"template": (), "emit": lambda *_: (), "state": lambda s: s * 2}
        emit_ta, state, _ = raw_rnn(COUNTER, until(1, 2, 3, start=start, **parts))
        assert emit_ta == ()
        return state.sum()

    # The derivatives of 2 (s + 1), 2 (2 (s + 1) + 1) and 2 (2 (2 (s + 1) + 1) + 1).
    slope = jax.jit(lambda s: jax.jvp(total, (s,), (jnp.ones_like(s),)))(ZERO)[1]
    assert slope == 2 + 4 + 8
    with pytest.raises(ValueError, match="Reverse-mode differentiation does not work"):
        jax.jit(jax.grad(total))(ZERO)
