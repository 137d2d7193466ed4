"""The protocol of `raw_rnn`, rule by rule; `tf1/` compares with TensorFlow."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import drawn
from hypothesis import given, settings, strategies as st
from jax.experimental import checkify
from jax.test_util import check_grads

from jaxrnn import (
    BasicRNNCell,
    DropoutWrapper,
    FunctionCell,
    GRUCell,
    LSTMCell,
    TensorArray,
    TensorShape,
    dynamic_rnn,
    raw_rnn,
)

F64, I32 = jnp.float64, jnp.int32
close = functools.partial(chex.assert_trees_all_close, rtol=1e-10, atol=1e-10)
ROWS = 3


def plus_one(params, inputs, state, key=None):
    return state + 1, state + 1


COUNTER = FunctionCell(plus_one, 1, 1, lambda *_: {}).bind({})
ZERO = jnp.zeros((ROWS, 1))
STARTS = {"python": None, "compiled": 7}


def run(loop_fn, max_time=None, cell=COUNTER):
    """Run `raw_rnn` outside of jit, or inside of jit if `max_time` is given."""
    call = lambda: raw_rnn(cell, loop_fn, max_time=max_time)
    return call() if max_time is None else jax.jit(call)()


def until(*lengths, state=lambda s: s, emit=lambda e: e, loop_state=lambda *_: None):
    """A loop function for rows that end at `lengths`."""
    ends = jnp.asarray(lengths, I32)

    def loop_fn(time, output, cell_state, old):
        new = ZERO if output is None else state(cell_state)
        emitted = None if output is None else emit(output)
        return time >= ends, ZERO, new, emitted, loop_state(time, output, old)

    return loop_fn


def column(emit_ta):
    return np.asarray(emit_ta.stack()[..., 0])


@pytest.mark.parametrize("max_time", STARTS.values(), ids=STARTS)
def test_the_pages_pseudo_code(max_time):
    emit_ta, state, loop_state = run(until(1, 2, 3), max_time)
    assert column(emit_ta).tolist() == [[1, 1, 1], [0, 2, 2], [0, 0, 3]]
    assert (emit_ta.size(), emit_ta.size().dtype) == (3, I32)
    assert state[:, 0].tolist() == [1, 2, 3]
    assert loop_state is None


def test_outside_of_jit_loop_fn_is_called_once_more_than_there_are_steps():
    calls = []

    def loop_fn(*args, **kwargs):
        assert not kwargs  # Arguments are positional.
        time, output, state, loop_state = args
        assert time.dtype == I32
        calls.append((int(time), output, state, loop_state))
        return until(1, 2, 3)(*args)

    run(loop_fn)
    assert [time for time, *_ in calls] == [0, 1, 2, 3]
    assert calls[0][1:] == (None, None, None)
    # Row 0 is frozen at 1, but the cell still runs on it: loop_fn sees the raw results.
    assert [output[:, 0].tolist() for _, output, _, _ in calls[1:]] == [
        [1, 1, 1],
        [2, 2, 2],
        [2, 3, 3],
    ]


@pytest.mark.parametrize("with_array", [False, True])
def test_under_jit_loop_fn_is_traced_twice_or_thrice(with_array):
    calls = []

    def loop_fn(time, *args):
        calls.append(time)
        ta = TensorArray(F64, 5, element_shape=()) if with_array else 0
        keep = lambda time, output, old: ta if output is None else old
        return until(1, 2, 3, loop_state=keep)(time, *args)

    compiled = jax.jit(lambda: raw_rnn(COUNTER, loop_fn, max_time=4))
    compiled()
    compiled()
    assert len(calls) == 2 + with_array  # Once more, to find out whether it is read.


@pytest.mark.parametrize("max_time", STARTS.values(), ids=STARTS)
def test_a_scalar_that_follows_a_vector_is_for_all_rows(max_time):
    def loop_fn(time, output, state, loop_state):
        first = output is None
        finished = jnp.zeros(ROWS, bool) if first else time >= 2
        emit = (
            {"a": output, "b": (output,)}
            if not first
            else {"a": ZERO[0], "b": (ZERO[0],)}
        )
        return finished, ZERO, ZERO if first else state, emit, None

    emit_ta, state, _ = run(loop_fn, max_time)
    assert state[:, 0].tolist() == [2] * ROWS
    is_array = lambda x: isinstance(x, TensorArray)
    stacked = jax.tree.map(lambda ta: ta.stack(), emit_ta, is_leaf=is_array)
    assert stacked["b"][0][:2, 0, 0].tolist() == [1, 2]


@pytest.mark.parametrize("max_time", STARTS.values(), ids=STARTS)
def test_a_row_reported_finished_stays_finished(max_time):
    def loop_fn(time, output, state, loop_state):
        flags = jnp.stack([time == 1, time >= 2, time >= 4])  # Row 0 reports it once.
        return flags, ZERO, ZERO if output is None else state, output, None

    emit_ta, state, _ = run(loop_fn, max_time)
    assert emit_ta.size() == 4
    assert state[:, 0].tolist() == [1, 2, 4]


@pytest.mark.parametrize("max_time", STARTS.values(), ids=STARTS)
def test_an_altered_state_is_masked_in_rows_that_were_finished_before(max_time):
    _, state, _ = run(until(1, 2, 3, state=lambda s: s * 10), max_time)
    assert state[:, 0].tolist() == [10, 110, 1110]


@pytest.mark.parametrize("max_time", STARTS.values(), ids=STARTS)
@pytest.mark.parametrize("shape", [(), (ROWS, 1)])
def test_finished_may_be_a_scalar_or_of_the_shape_of_all_leaves(max_time, shape):
    def loop_fn(time, output, state, loop_state):
        finished = jnp.broadcast_to(time >= 2, shape)
        return finished, ZERO, ZERO if output is None else state, output, None

    emit_ta, state, _ = run(loop_fn, max_time)
    assert (emit_ta.size(), state[:, 0].tolist()) == (2, [2, 2, 2])


@pytest.mark.parametrize("max_time", STARTS.values(), ids=STARTS)
def test_all_finished_at_the_start(max_time):
    emit_ta, state, loop_state = run(until(0, 0, 0, loop_state=lambda *_: 5), max_time)
    assert emit_ta.size() == 0
    assert emit_ta.stack().shape == (0, ROWS, 1)
    assert state[:, 0].tolist() == [0, 0, 0]
    assert loop_state == 5


@pytest.mark.parametrize("max_time", STARTS.values(), ids=STARTS)
def test_leaves_without_axes_and_arrays_in_the_state_are_not_masked(max_time):
    def step(params, inputs, state, key=None):
        count, rows, ta = state
        return rows, (count + 1, rows + 1, ta.write(count, rows[:, 0]))

    size = TensorShape([])
    cell = FunctionCell(step, (size, 1, size), 1, lambda *_: {}).bind({})
    start = jnp.int32(0), ZERO, TensorArray(F64, 3, element_shape=[ROWS])

    def loop_fn(time, output, state, loop_state):
        ends = jnp.array([1, 2, 3], I32)
        template = jnp.zeros(1) if output is None else output
        return time >= ends, ZERO, start if state is None else state, template, None

    _, (count, rows, ta), _ = run(loop_fn, max_time, cell)
    assert count == 3
    assert rows[:, 0].tolist() == [1, 2, 3]
    assert ta.stack().tolist() == [[0, 0, 0], [1, 1, 1], [1, 2, 2]]


@pytest.mark.parametrize("max_time", STARTS.values(), ids=STARTS)
def test_the_loop_state_is_never_masked_and_none_keeps_it(max_time):
    def add_up(time, output, old):
        if output is None:
            return {"total": 0.0, "steps": jnp.int32(7)}
        return {"total": old["total"] + output.sum(), "steps": old["steps"]}

    *_, loop_state = run(until(1, 2, 3, loop_state=add_up), max_time)
    # loop_fn sees the outputs 1 1 1, then 2 2 2, then 2 3 3.
    assert (loop_state["total"], loop_state["steps"]) == (3 + 6 + 8, 7)
    once = lambda time, output, old: jnp.ones(2) if output is None else None
    *_, loop_state = run(until(1, 2, 3, loop_state=once), max_time)
    assert loop_state.tolist() == [1, 1]


@pytest.mark.parametrize("max_time", STARTS.values(), ids=STARTS)
def test_a_loop_state_of_none_is_passed_on_as_none(max_time):
    seen = []
    look = lambda time, output, old: seen.append(old)
    assert run(until(1, 2, 3, loop_state=look), max_time)[2] is None
    assert set(seen) == {None}


@pytest.mark.fast("None-False-python", "shape1-True-compiled", "None-True-compiled")
@pytest.mark.parametrize("max_time", STARTS.values(), ids=STARTS)
@pytest.mark.parametrize("grows", [False, True])
@pytest.mark.parametrize("shape", [None, (ROWS,)])
def test_arrays_in_the_loop_state_collect(max_time, grows, shape):
    def collect(time, output, old):
        if output is None:
            size = 0 if grows else 3
            return TensorArray(F64, size, grows, element_shape=shape)
        return old.write(time - 1, output[:, 0])

    *_, ta = run(until(1, 2, 3, loop_state=collect), max_time)
    assert ta.size() == 3
    assert ta.stack().tolist() == [[1, 1, 1], [2, 2, 2], [2, 3, 3]]


def test_stacked_under_jit_come_all_rows_that_there_is_room_for():
    def stacked():
        grows = lambda time, output, old: (
            TensorArray(F64, 0, True)
            if output is None
            else old.write(time - 1, output[:, 0])
        )
        emit_ta, _, ta = raw_rnn(COUNTER, until(1, 2, 3, loop_state=grows), max_time=5)
        return emit_ta.stack()[..., 0], emit_ta.size(), ta.stack(), ta.size()

    emits, size, kept, kept_size = jax.jit(stacked)()
    assert (size, kept_size) == (3, 3)
    assert emits.tolist() == [[1, 1, 1], [0, 2, 2], [0, 0, 3], [0] * 3, [0] * 3]
    # One element for each call of loop_fn.
    assert kept.tolist() == [[1, 1, 1], [2, 2, 2], [2, 3, 3], *[[0] * 3] * 3]


@pytest.mark.parametrize("max_time", STARTS.values(), ids=STARTS)
def test_emits_are_as_the_template_says(max_time):
    def loop_fn(time, output, state, loop_state):
        ends = jnp.array([1, 2, 3], I32)
        if output is None:
            # A template has no batch axis, and its values are not read.
            template = {"a": np.full((2,), 9, np.int32), "b": [jnp.asarray(True)]}
            return time >= ends, ZERO, ZERO, template, None
        emit = {"a": jnp.full((ROWS, 2), time), "b": [jnp.ones(ROWS, bool)]}
        return time >= ends, ZERO, state, emit, None

    emit_ta, _, _ = run(loop_fn, max_time)
    a, b = emit_ta["a"].stack(), emit_ta["b"][0].stack()
    assert (a.dtype, b.dtype) == (I32, bool)
    assert a[:3, :, 1].tolist() == [[1, 1, 1], [0, 2, 2], [0, 0, 3]]
    assert b[:3].tolist() == [[True] * 3, [False, True, True], [False, False, True]]


def test_emitting_nothing_needs_no_bound():
    def loop_fn(time, output, state, loop_state):
        ends = jnp.array([1, 2, 3], I32)
        return time >= ends, ZERO, ZERO if output is None else state, (), None

    for call in (raw_rnn, jax.jit(raw_rnn, static_argnums=(0, 1))):
        emit_ta, state, _ = call(COUNTER, loop_fn)
        assert emit_ta == ()
        assert state[:, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("compiled", [False, True])
def test_at_max_time_the_loop_stops_as_it_is(compiled):
    call = lambda: raw_rnn(COUNTER, until(1, 9, 9), max_time=2)
    emit_ta, state, _ = (jax.jit(call) if compiled else call)()
    assert emit_ta.size() == 2
    assert column(emit_ta).tolist() == [[1, 1, 1], [0, 2, 2]]
    assert state[:, 0].tolist() == [1, 2, 2]


def test_checkify_finds_rows_that_max_time_cut_off():
    call = lambda n: raw_rnn(COUNTER, until(1, 2, 3), max_time=n)[1]
    for max_time, cut in ((2, True), (3, False)):
        error, _ = checkify.checkify(jax.jit(functools.partial(call, max_time)))()
        assert ("max_time 2 was reached" in str(error.get())) == cut


def cells():
    rng = np.random.default_rng(0)
    cell = LSTMCell(2)
    shape = jax.ShapeDtypeStruct((ROWS, 2), F64)
    params = drawn(cell, shape)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape))
    params = jax.tree.map(lambda p: p + 0.3 * draw(*p.shape), params)
    return cell, params, draw(6, ROWS, 2), draw(ROWS, 2)


def from_array(cell, params, x, lengths, max_time=None):
    """`dynamic_rnn` from TensorFlow's page: (outputs [time, batch, ...], state)."""
    inputs_ta = TensorArray(x.dtype, x.shape[0]).unstack(x)
    bound = cell.bind(params)

    def loop_fn(time, cell_output, cell_state, loop_state):
        emit_output = cell_output
        if cell_output is None:
            next_cell_state = bound.zero_state(x.shape[1], x.dtype)
        else:
            next_cell_state = cell_state
        elements_finished = time >= lengths
        next_input = jax.lax.cond(
            jnp.all(elements_finished),
            lambda: jnp.zeros(x.shape[1:], x.dtype),
            lambda: inputs_ta.read(time),
        )
        return elements_finished, next_input, next_cell_state, emit_output, None

    outputs_ta, final_state, _ = raw_rnn(bound, loop_fn, max_time=max_time)
    return outputs_ta.stack(), final_state


@pytest.mark.slow
@given(st.lists(st.integers(0, 6), min_size=ROWS, max_size=ROWS))
@settings(max_examples=10)
def test_is_dynamic_rnn_for_any_lengths(lengths):
    cell, params, x, _ = cells()
    lengths = jnp.asarray(lengths, I32)
    steps = int(lengths.max())
    want, want_state = dynamic_rnn(
        cell.bind(params), x, lengths, dtype=F64, time_major=True
    )
    got, state = PAGE(params, x, lengths)
    for g, w in zip((got, *state), (want, *want_state), strict=True):
        np.testing.assert_allclose(g, w, 1e-12, 1e-12)
    got, state = from_array(cell, params, x, lengths)
    assert got.shape[0] == steps
    np.testing.assert_allclose(got, want[:steps], 1e-12, 1e-12)


PAGE = jax.jit(lambda params, x, n: from_array(cells()[0], params, x, n, max_time=6))


@pytest.mark.fast("compiled-nan")
@pytest.mark.parametrize("padding", [0.5, np.nan, np.inf])
@pytest.mark.parametrize("max_time", STARTS.values(), ids=STARTS)
def test_has_the_gradients_of_dynamic_rnn_whatever_the_padding_holds(max_time, padding):
    cell, params, x, weights = cells()
    lengths = jnp.array([6, 0, 3], I32)
    dead = jnp.arange(6)[:, None, None] >= lengths.astype(int)[None, :, None]

    def total(outputs, state):
        weigh = weights[None] * jnp.cos(jnp.arange(6.0))[:, None, None]
        return (outputs[:6] * weigh).sum() + (state.c * weights).sum()

    def by_hand(params, x):
        return total(*from_array(cell, params, x, lengths, max_time))

    def built_in(params, x):
        bound = cell.bind(params)
        return total(*dynamic_rnn(bound, x, lengths, dtype=F64, time_major=True))

    want = jax.grad(built_in, (0, 1))(params, jnp.where(dead, 0.0, x))
    compiled = jax.jit if max_time else lambda f: f
    got = compiled(jax.grad(by_hand, (0, 1)))(params, jnp.where(dead, padding, x))
    close(got, want)


def feed_back(params, start, ends, max_time):
    """A decoder that reads its own output and carries floats, integers and a key."""
    cell = GRUCell(2)

    def loop_fn(time, output, state, loop_state):
        if output is None:
            kept = TensorArray(F64, 9, element_shape=(ROWS,))
            loop_state = kept, jnp.zeros(ROWS), jnp.int32(0), jax.random.key(1)
            return time >= ends, start, start * 0.5, jnp.zeros(()), loop_state
        kept, total, count, key = loop_state
        key, now = jax.random.split(key)
        output = output + 0.1 * jax.random.normal(now, output.shape)
        kept = kept.write(time - 1, output[:, 0])
        loop_state = kept, total + output[:, 1] ** 2, count + 1, key
        return time >= ends, output * 2, state, output.prod(-1), loop_state

    ta, state, (kept, total, _, _) = raw_rnn(
        cell.bind(params), loop_fn, max_time=max_time
    )
    rows = ta.stack()
    return (rows**2).sum() + state.sum() + (kept.stack() ** 2).sum() + total.sum()


def feedback_data():
    cell = GRUCell(2)
    start = cells()[3]
    return drawn(cell, start), start, jnp.array([2, 5, 4], I32)


@pytest.mark.slow
def test_gradients_equal_those_outside_of_jit_and_finite_differences():
    params, start, ends = feedback_data()
    loss = lambda params, start: feed_back(params, start, ends, max_time=8)
    check_grads(jax.jit(loss), (params, start), order=1, modes=("fwd", "rev"))
    want = jax.grad(lambda p, s: feed_back(p, s, ends, None), (0, 1))(params, start)
    got = jax.jit(jax.grad(loss, (0, 1)))(params, start)
    close(got, want)


@pytest.mark.slow
def test_vmap_gives_the_runs_one_by_one():
    params, start, ends = feedback_data()
    both_ends = jnp.stack([ends, ends[::-1] // 2])

    def slope(scale, ends):
        loss = lambda p: feed_back(p, start * scale, ends, max_time=8)
        return jax.value_and_grad(loss)(params)

    scales = jnp.array([1.0, 0.3])
    got = jax.jit(jax.vmap(slope))(scales, both_ends)
    for i in range(2):
        want = slope(scales[i], both_ends[i])
        close(jax.tree.map(lambda g, i=i: g[i], got), want)


@pytest.mark.slow
def test_vmap_outside_of_jit_finds_that_it_needs_a_bound():
    """At time 0, nothing is batched; later, `vmap` batches the end of a row."""
    params, start, _ = feedback_data()

    def size(scale, max_time):
        def loop_fn(time, output, state, loop_state):
            if output is None:
                return jnp.zeros(ROWS, bool), start, start, None, None
            return output.sum(-1) * scale > -9.0, output, state, output, None

        return raw_rnn(GRUCell(2).bind(params), loop_fn, max_time=max_time)[0].size()

    got = jax.vmap(lambda s: size(s, 4))(jnp.array([1.0, -1e9]))
    assert got.tolist() == [size(1.0, 4), size(-1e9, 4)]
    with pytest.raises(ValueError, match="`max_time` must be given under jit and vmap"):
        jax.vmap(lambda s: size(s, None))(jnp.array([1.0, 2.0]))


def test_the_loop_stops_with_the_longest_row_instead_of_at_max_time():
    steps = []

    def counted(params, inputs, state, key=None):
        jax.debug.callback(lambda _: steps.append(1), state[0, 0])
        return state, state + 1.0

    def loop_fn(time, output, state, loop_state):
        new = jnp.ones((ROWS, 2)) if output is None else state
        return time >= jnp.array([30, 9, 0], I32), new, new, output, None

    cell = FunctionCell(counted, 2, 2).bind({})
    jax.block_until_ready(jax.jit(lambda: raw_rnn(cell, loop_fn, max_time=1000)[1])())
    jax.effects_barrier()
    assert len(steps) == 30


def test_random_cells_draw_at_step_t_what_dynamic_rnn_draws():
    cell, params, x, _ = cells()
    noisy = DropoutWrapper(cell, 0.5, 0.5, 0.5)
    bind = lambda params: noisy.bind(params, jax.random.key(5))
    lengths = jnp.array([6, 2, 3], I32)
    wrapped = type("Bound", (), {"bind": staticmethod(bind)})
    got, _ = from_array(wrapped, params, x, lengths, max_time=6)
    want, _ = dynamic_rnn(bind(params), x, lengths, dtype=F64, time_major=True)
    np.testing.assert_allclose(got, want, 1e-12, 1e-12)


def returning(first=None, later=None):
    """A valid loop function, except for the given results by position."""

    def loop_fn(time, output, state, loop_state):
        result = list(until(1, 2, 3)(time, output, state, loop_state))
        wrong = first if output is None else later
        for place, value in (wrong or {}).items():
            result[place] = value
        return tuple(result)

    return loop_fn


LSTM = LSTMCell(1).bind(drawn(LSTMCell(1), jnp.zeros((ROWS, 1))))
FIRST_REFUSALS = [
    (
        {0: jnp.zeros(2, bool)},
        ValueError,
        "`finished` must be a scalar or have one entry for each of the 3 rows",
    ),
    ({0: jnp.zeros(1, bool)}, ValueError, "`finished` must be a scalar"),
    (
        {0: jnp.zeros(ROWS, int)},
        TypeError,
        "`finished` must be of dtype bool, got int64",
    ),
    ({0: "no"}, TypeError, "`finished` must be an array, got 'no'"),
    ({0: np.array([None] * ROWS)}, TypeError, "`finished` must be an array, got obj"),
    ({0: [False] * ROWS}, ValueError, "`finished` must be one boolean array"),
    ({1: None}, ValueError, "`next_input` must hold at least one array"),
    ({1: jnp.float64(0)}, IndexError, "`next_input` must have rank at least 1"),
    ({1: (ZERO, ZERO[:2])}, ValueError, "Batch size must be the same"),
    ({1: "x"}, TypeError, "`next_input` must be an array, got 'x'"),
    ({2: (ZERO,)}, ValueError, r"must have the structure \*, got \(\*,\)"),
    ({2: None}, ValueError, r"must be an initial state, got None. .*zero_state\(3, d"),
    ({2: (None,)}, ValueError, r"`next_cell_state\[0\]` must be an array: None values"),
    ({3: 1.0}, TypeError, "`emit_output` must be None, or arrays without a batch axis"),
    ({3: TensorShape([1])}, TypeError, "`emit_output` must be None"),
    (
        {3: {"a": ZERO[0], "b": None}},
        TypeError,
        "`emit_output` must be None, .* got None",
    ),
    ({3: TensorArray(F64, 1)}, TypeError, "`emit_output` must be None, .* TensorArray"),
    ({3: jax.random.key(0)}, TypeError, r"`emit_output` must be None, .* key<fry>\[\]"),
    ({4: "x"}, TypeError, "`next_loop_state` must be an array"),
]
LATER_REFUSALS = [
    ({0: jnp.zeros((ROWS, 1), bool)}, ValueError, "a scalar or have the shape from"),
    ({0: jnp.zeros(ROWS)}, TypeError, "`finished` must be of dtype bool"),
    ({1: ZERO[:2]}, ValueError, r"`next_input` must have shape \(3, 1\)"),
    (
        {1: jnp.zeros((ROWS, 1), F64).astype("float32")},
        TypeError,
        "`next_input` must have dtype float64",
    ),
    ({1: (ZERO,)}, ValueError, "`next_input` must have the structure"),
    ({2: jnp.zeros((ROWS, 2))}, ValueError, "`next_cell_state` must have shape"),
    ({2: ZERO.astype(int)}, TypeError, "`next_cell_state` must have dtype float64"),
    (
        {3: None},
        ValueError,
        "`emit_output` must have the structure .* as at time 0, got None",
    ),
    (
        {3: jnp.zeros((ROWS, 2))},
        ValueError,
        r"`emit_output` must have shape \(3, 1\) .* return arrays without a batch axis",
    ),
    ({3: ZERO.astype("float32")}, TypeError, "`emit_output` must have dtype float64"),
    ({3: [ZERO]}, ValueError, "`emit_output` must have the structure"),
    ({4: ZERO}, ValueError, "`next_loop_state` must be None as at time 0"),
]


@pytest.mark.parametrize("max_time", STARTS.values(), ids=STARTS)
@pytest.mark.parametrize(
    ("first", "later", "error", "match"),
    [(wrong, None, *rest) for wrong, *rest in FIRST_REFUSALS]
    + [(None, wrong, *rest) for wrong, *rest in LATER_REFUSALS],
)
def test_refuses_what_loop_fn_returns(max_time, first, later, error, match):
    with pytest.raises(error, match=f"^raw_rnn: .*{match}"):
        run(returning(first, later), max_time)


def kinds(later):
    """A loop function whose loop state and emits change kind after time 0."""

    def loop_fn(time, output, state, loop_state):
        parts = (ZERO, ZERO) if output is None else later
        new = ZERO if output is None else state
        return time >= jnp.array([1, 2, 3], I32), ZERO, new, (), parts

    return loop_fn


@pytest.mark.parametrize("max_time", STARTS.values(), ids=STARTS)
@pytest.mark.parametrize(
    ("later", "error", "match"),
    [
        ([ZERO, ZERO], TypeError, "`next_loop_state` must have the structure"),
        ((ZERO,), ValueError, "`next_loop_state` must have the structure"),
        ((ZERO, ZERO[0]), ValueError, r"`next_loop_state\[1\]` must have shape"),
        ((ZERO, ZERO > 0), TypeError, r"`next_loop_state\[1\]` must have dtype"),
        ((ZERO, None), ValueError, r"`next_loop_state"),
        ((ZERO, TensorArray(F64, 2)), ValueError, r"`next_loop_state\[1\]` must be"),
    ],
)
def test_refuses_a_loop_state_of_another_kind(max_time, later, error, match):
    with pytest.raises(error, match=f"^raw_rnn: {match}"):
        run(kinds(later), max_time)


REFUSALS = [
    (lambda: raw_rnn(3, until(1)), TypeError, "`cell` must be an RNNCell, got 3"),
    (lambda: raw_rnn(3, 4), TypeError, "`cell` must be"),  # The cell is checked first.
    (
        lambda: raw_rnn(BasicRNNCell(2), until(1)),
        TypeError,
        r"the unbound BasicRNNCell.*Bind it to its parameters: `cell\.bind",
    ),
    (lambda: raw_rnn(COUNTER, 4), TypeError, "`loop_fn` must be callable, got 4"),
    (
        lambda: raw_rnn(COUNTER, until(1), 1.5),
        TypeError,
        "`parallel_iterations` must be an integer",
    ),
    (
        lambda: raw_rnn(COUNTER, until(1), -1),
        TypeError,
        "`parallel_iterations` must be at least 0",
    ),
    (
        lambda: raw_rnn(COUNTER, until(1), swap_memory=3),
        TypeError,
        "`swap_memory` must be",
    ),
    (
        lambda: raw_rnn(COUNTER, until(1), scope=3),
        TypeError,
        "`scope` must be a string",
    ),
    (
        lambda: raw_rnn(COUNTER, until(1), max_time=2.5),
        TypeError,
        "`max_time` must be an integer",
    ),
    (
        lambda: raw_rnn(COUNTER, until(1), max_time=2**31),
        ValueError,
        "`max_time` must be at most 2147483647, got 2147483648",
    ),
    (
        lambda: raw_rnn(COUNTER, until(1), max_time=-1),
        ValueError,
        "`max_time` must be at least 0",
    ),
    (
        lambda: raw_rnn(COUNTER, lambda *_: (1, 2)),
        ValueError,
        r"must return \(finished, .*\), got 2 values",
    ),
    (lambda: raw_rnn(COUNTER, lambda *_: 5), TypeError, "must return .*, got 5"),
    (
        lambda: jax.jit(lambda n: raw_rnn(COUNTER, until(1, 2, 3), max_time=n))(3),
        TypeError,
        "`max_time` must be an integer, got int64",
    ),
    (
        lambda: run(returning({2: (ZERO, ZERO)}), cell=LSTM),
        TypeError,
        r"got \(\*, \*\)",
    ),
    (
        lambda: jax.jit(lambda: raw_rnn(COUNTER, until(1, 2, 3)))(),
        ValueError,
        "`max_time` must be given under jit",
    ),
]


@pytest.mark.parametrize(("call", "error", "match"), REFUSALS)
def test_refuses(call, error, match):
    with pytest.raises(error, match=f"^raw_rnn: .*{match}"):
        call()


def test_errors_from_within_say_where_they_came_from():
    with pytest.raises(TypeError) as caught:
        raw_rnn(COUNTER, lambda time: None)
    assert "Raised by `loop_fn(time, " in caught.value.__notes__[0]
    wide = returning({1: jnp.zeros((ROWS, 5))})
    start = LSTM.zero_state(ROWS, F64)
    too_wide = lambda *args: (*wide(*args)[:2], start, *wide(*args)[3:])
    with pytest.raises(ValueError, match="LSTMCell") as caught:
        raw_rnn(LSTM, too_wide)
    assert "Raised by `cell`, called with" in caught.value.__notes__[0]


def test_asking_for_a_traced_value_is_told_apart():
    def loop_fn(time, output, state, loop_state):
        finished = jnp.full(ROWS, bool(time >= 3))
        return finished, ZERO, ZERO if output is None else state, output, None

    assert raw_rnn(COUNTER, loop_fn)[0].size() == 3
    with pytest.raises(jax.errors.TracerBoolConversionError) as caught:
        run(loop_fn, 5)
    assert any(
        "use `if` only for `cell_output is None`" in n for n in caught.value.__notes__
    )


def test_without_a_bound_derivatives_go_forward_alone():
    def total(start):
        def loop_fn(time, output, state, loop_state):
            ends = jnp.array([1, 2, 3], I32)
            return time >= ends, ZERO, start if output is None else state * 2, (), None

        return raw_rnn(COUNTER, loop_fn)[1].sum()

    # The derivatives of 2 (s + 1), 2 (2 (s + 1) + 1) and 2 (2 (2 (s + 1) + 1) + 1).
    slope = jax.jit(lambda s: jax.jvp(total, (s,), (jnp.ones_like(s),)))(ZERO)[1]
    assert slope == 2 + 4 + 8
    with pytest.raises(ValueError, match="Reverse-mode differentiation does not work"):
        jax.jit(jax.grad(total))(ZERO)
