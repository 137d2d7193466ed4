"""`TensorArray` in and out of compiled programs: shapes, errors, loops and states."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_near, differentiated, refusals
from jax.experimental import checkify

import jaxrnn
from jaxrnn import FunctionCell, TensorArray, TensorShape, dynamic_rnn, static_rnn

F32, I32 = jnp.float32, jnp.int32


def array(size=3, **kwargs):
    return TensorArray(F32, size, **kwargs)


def ones(*shape):
    return jnp.ones(shape, F32)


def rows(n=3, *shape):
    return 1 + jnp.arange(n * np.prod(shape), dtype=F32).reshape(n, *shape)


def compiled_writes(ta, indices, values):
    """The array after writes in a `lax.while_loop`."""

    def body(loop):
        i, ta = loop
        return i + 1, ta.write(indices[i], values[i])

    start = (jnp.zeros((), I32), ta)
    return jax.lax.while_loop(lambda loop: loop[0] < len(values), body, start)[1]


def test_attributes():
    ta = array(3, element_shape=[2, 5])
    assert (ta.dtype, ta.dynamic_size) == (F32, False)
    assert ta.element_shape == TensorShape([2, 5])
    assert repr(ta) == "TensorArray(float32, elements=float32[3, 2, 5])"
    assert array().element_shape is None
    assert array(dynamic_size=True).dynamic_size
    assert (ta.size().dtype, ta.size()) == (np.int32, 3)
    assert ta.identity() is ta
    assert ta.close() is None


def test_keeps_what_is_known_of_the_element_shape():
    ta = array(2, element_shape=[None, 10, 20])
    assert list(ta.element_shape) == [None, 10, 20]
    assert repr(ta) == "TensorArray(float32, size=2, element_shape=(None, 10, 20))"
    assert ta.write(0, ones(5, 10, 20)).element_shape == TensorShape([5, 10, 20])
    ragged = array(2, element_shape=[None, 2], infer_shape=False)
    ragged = ragged.write(0, ones(1, 2)).write(1, ones(3, 2))
    assert list(ragged.element_shape) == [None, 2]
    assert jax.jit(TensorArray.concat)(ragged).shape == (4, 2)


def test_a_batch_has_no_size_and_no_methods():
    """The first axis of its leaves is the mapped one, which is no element's axis."""
    batch = jax.vmap(lambda x: array(2).write(0, x))(ones(3, 5))
    for call in (batch.stack, batch.size, lambda: batch.write(1, ones(5))):
        with pytest.raises(ValueError, match=r"got float32\[3, 2, 5\]. Use `jax.vmap`"):
            call()
    with pytest.raises(ValueError, match=r"`value` must have shape \[5\], got"):
        jax.vmap(lambda ta, x: ta.write(1, x))(batch, ones(3, 2, 5))


def test_grows_outside_of_jit_and_reports_a_traced_size_inside():
    ta = array(0, dynamic_size=True).write(6, 1.0).write(2, 3.0)
    assert (ta.size(), ta.stack().tolist()) == (7, [0, 0, 3, 0, 0, 0, 1])
    roomy = array(5, dynamic_size=True, element_shape=())

    def run(i):
        ta = roomy.unstack(rows(2)).write(2, 1.0)
        return jax.lax.while_loop(lambda ta: ta.size() < i, lambda ta: ta, ta).stack()

    assert run(0).tolist() == [1, 2, 1]


# What messages advise, and so more of them, is in `tests/package/test_advice.py`.
FULL, ONCE = array().unstack(rows()), array().write(0, 1.0)
ROOM = array(2, infer_shape=False)
split_traced = jax.jit(lambda n: array(1).split(rows(2), n))
E, T, V = IndexError, TypeError, ValueError
test_refuses = refusals([
    (V, "`size` must be given", lambda: TensorArray(F32)),
    (V, "`size` .* 1099511627776", lambda: array(2**40)),
    (T, "`size` .*static", lambda: jax.jit(lambda n: TensorArray(F32, n))(2)),
    (T, r"not an array: .* Call `.stack\(\)`", lambda: np.asarray(array())),
    (E, r"must be in \[0, 3\)", lambda: FULL.gather([2**32 + 1])),
    (E, r"`indices` .* -1\]", lambda: FULL.gather([0, -1])),
    (V, "`lengths` .* add up to 3", lambda: array().split(rows(), [2**32 + 1, 1, 1])),
    (T, "must be int32", lambda: TensorArray("int32", 3).write(0, 1.7)),
    (V, "`index` .* only once, got 0", lambda: ONCE.write(0, 1.0)),
    (V, r"only once, got \[1, 0\]", lambda: ONCE.scatter([1, 0], rows(2))),
    (V, r"`value` .*\[2\]", lambda: array(element_shape=[2]).write(0, 1.0)),
    (V, r"`value` .*\[3, ...\]", lambda: array().unstack(rows(2))),
    (T, "`lengths` must not be traced", lambda: split_traced(jnp.array([2]))),
    (V, r"`elements` .*\[any, any, ...\]", lambda: ONCE.concat()),
    (V, r"\[any, 3\]", lambda: ROOM.write(0, ones(2, 3)).write(1, ones(2)).concat()),
])  # fmt: skip


def test_out_of_range_at_run_time_reads_zeros_and_drops_writes():
    ta = array().unstack(rows())
    assert jax.jit(ta.read)(3) == 0
    assert jax.jit(ta.read)(-1) == 0
    assert jax.jit(ta.gather)(jnp.array([-1, 1, 7])).tolist() == [0, 2, 0]
    write = lambda i: array(element_shape=()).write(i, 1.0).stack()
    assert jax.jit(write)(jnp.asarray(2**32, jnp.int64)).tolist() == [0, 0, 0]
    nothing = lambda i: array(0, element_shape=[2]).gather(i)
    assert jax.jit(nothing)(jnp.array([0, 1])).tolist() == [[0, 0], [0, 0]]
    scatter = lambda i: array(element_shape=()).scatter(i, rows(2)).stack()
    assert jax.jit(scatter)(jnp.array([-1, 2])).tolist() == [0, 0, 2]


def writes_five_of_four(i):
    ta, indices = array(4, element_shape=()), jnp.arange(5, dtype=I32) + i - 5
    return compiled_writes(ta, indices, rows(5))


AT_RUN_TIME = [
    (lambda i: array(element_shape=()).write(i, 1.0).stack(), "be in [0, 3)"),
    (lambda i: array().unstack(rows()).read(-i), "be in [0, 3)"),
    (lambda i: writes_five_of_four(i).stack(), "be in [0, 4)"),
]


@pytest.mark.parametrize(("call", "message"), AT_RUN_TIME)
def test_checkify_finds_what_is_known_at_run_time_alone(call, message):
    error, _ = checkify.checkify(jax.jit(call))(jnp.int32(5))
    assert message in str(error.get())
    jax.jit(call)(jnp.int32(5))  # Without checkify nothing is raised.


# Arrays in the state of drivers.


def step(params, inputs, state, key=None):
    count, ta = state
    return inputs, (count + 1, ta.write(count, inputs))


SIZE = TensorShape([])
CELL = FunctionCell(step, (SIZE, SIZE), 1, lambda *_: {}).bind({})


def run(driver, ta, x, lengths=None, count=0, jit=False):
    """The counter and the array after the steps of `x`, `[time, batch, 1]`."""

    def final_state(state, x):
        options = {"sequence_length": lengths, "initial_state": state, "dtype": F32}
        if driver is dynamic_rnn:
            return dynamic_rnn(CELL, x, **options, time_major=True)[1]
        return static_rnn(CELL, list(x), **options)[1]

    state = jnp.int32(count), ta
    return (jax.jit(final_state) if jit else final_state)(state, x)


def test_grows_in_a_state():
    """Also of unknown shape; as in TensorFlow's graphs, by one element a step."""
    x = rows(4, 2, 1)
    count, ta = run(static_rnn, array(0, dynamic_size=True), x, [1, 3], jit=True)
    assert (count, ta.size()) == (3, 3)
    alive = np.arange(4)[:, None] < [1, 3]
    np.testing.assert_array_equal(ta.stack(), np.where(alive[..., None], x, 0)[:3])


@pytest.mark.fast("False")
@pytest.mark.parametrize("jit", [True, False])
def test_goes_on_growing_in_the_state_of_the_next_window(jit):
    x, count = rows(7, 2, 1), 1
    ta = array(1, dynamic_size=True, element_shape=[2, 1]).write(0, x[0])
    for part in (x[1:3], x[3:4], x[4:7]):
        count, ta = run(dynamic_rnn, ta, part, count=count, jit=jit)
    assert ta.size() == 7
    np.testing.assert_array_equal(ta.stack(), x)


def test_steps_past_the_longest_row_write_nothing():
    """Nor are they reported: there both the counter and the array are set back."""
    start, x, lengths = array(3, element_shape=[2, 1]), rows(4, 2, 1), [2, 1]
    count, ta = run(static_rnn, start, x, lengths)
    assert count == 2
    assert not ta.stack()[2:].any()
    traced = lambda n: run(dynamic_rnn, start, x, n)[0]
    error, count = checkify.checkify(traced)(jnp.asarray(lengths))
    error.throw()
    assert count == 2


# Arrays that a loop only writes are filled after it, exactly and in linear time.

STEPS, ROWS, UNITS = 5, 2, 3
RNN = jaxrnn.BasicRNNCell(UNITS)
KERNEL = np.sin(np.arange(2 * UNITS * UNITS)).reshape(2 * UNITS, UNITS)
PARAMS = {"kernel": KERNEL, "bias": np.zeros(UNITS)}
FIRST = np.cos(np.arange(ROWS * UNITS)).reshape(ROWS, UNITS)


def room(size=STEPS):
    return TensorArray(jnp.float64, size, element_shape=(ROWS, UNITS))


def outputs_of(params, steps=STEPS):
    """The outputs of a cell that reads its own output, by a loop over steps."""
    outputs = [FIRST]
    for _ in range(steps):
        outputs.append(jnp.tanh(jnp.tile(outputs[-1], 2) @ params["kernel"]))
    return jnp.stack(outputs[1:])


def run_loop(params, write, start, steps=STEPS):
    """Runs a loop whose loop state is `write(step, output, loop_state)`."""

    def loop_fn(time, output, state, loop_state):
        finished = jnp.full(ROWS, time >= steps)
        if output is None:
            return finished, FIRST, FIRST, (), start
        return finished, output, state, (), write(time - 1, output, loop_state)

    return jaxrnn.raw_rnn(RNN.bind(params), loop_fn, max_time=steps)[2]


def as_it_is(t, output, ta):
    return ta.write(t, output)


def in_a_scatter(t, output, ta):
    return ta.scatter(jnp.stack([2 * t + 1, 2 * t]), jnp.stack([-output, output]))


def when_odd(t, output, ta):
    return jax.lax.cond(t % 2 == 1, lambda: ta.write(t, output), lambda: ta)


def reads_the_last(t, output, ta):
    return ta.write(t, output + 2 * ta.read(t - 1))


def sums_of_the_last(outputs):
    sums = [outputs[0]]
    for output in outputs[1:]:
        sums.append(output + 2 * sums[-1])
    return jnp.stack(sums)


after_first = lambda h: jnp.concatenate([FIRST[None], h])
doubled = lambda h: jnp.stack([h, -h], 1).reshape(-1, ROWS, UNITS)

# The write at each step, the array at the start, and the rows that result.
WRITES = {
    "each_step": (as_it_is, room(), lambda h: h),
    "scatter": (in_a_scatter, room(2 * STEPS), doubled),
    "before_the_loop": (
        lambda t, h, ta: ta.write(t + 1, h),
        room(STEPS + 1).write(0, jnp.asarray(FIRST)),
        after_first,
    ),
    "under_cond": (when_odd, room(), lambda h: h.at[::2].set(0)),
    "read": (reads_the_last, room(), sums_of_the_last),
}


@pytest.mark.fast("each_step", "read")
@pytest.mark.parametrize("name", WRITES)
def test_values_and_gradients_are_those_of_writes_in_the_loop(name):
    write, start, expected = WRITES[name]
    by_loop = lambda kernel: run_loop(
        {**PARAMS, "kernel": kernel}, write, start
    ).stack()
    by_hand = lambda kernel: expected(outputs_of({"kernel": kernel}))
    want = differentiated(by_hand, KERNEL)
    assert_near(differentiated(by_loop, KERNEL), want, tolerance=1e-12)


@pytest.mark.slow
def test_several_arrays_one_of_them_twice_one_read_and_one_without_entries():
    def write(t, output, arrays):
        once = arrays["once"].write(t, output)
        return {
            "once": once,
            "again": once,
            "read": reads_the_last(t, output, arrays["read"]),
            "empty": arrays["empty"].write(t, output[:0]),
        }

    start = dict.fromkeys(["once", "again", "read"], room())
    start["empty"] = jaxrnn.TensorArray(jnp.float64, STEPS, element_shape=(0, UNITS))
    found = jax.jit(lambda: run_loop(PARAMS, write, start))()
    outputs = outputs_of(PARAMS)
    want = {"once": outputs, "again": outputs, "read": sums_of_the_last(outputs)}
    for name, rows in want.items():
        np.testing.assert_allclose(found[name].stack(), rows, rtol=1e-12)
    assert found["empty"].stack().shape == (STEPS, 0, UNITS)


def test_a_loop_inside_of_a_step_carries_an_array_of_the_outer_loop():
    def write(t, output, ta):
        def inner(time, cell_output, state, loop_state):
            inside = ta if cell_output is None else loop_state.write(t, output)
            start = output if cell_output is None else state
            return time >= 2, output, start, (), inside

        return jaxrnn.raw_rnn(RNN.bind(PARAMS), inner, max_time=2)[2]

    got = jax.jit(lambda: run_loop(PARAMS, write, room()).stack())()
    np.testing.assert_allclose(got, outputs_of(PARAMS), rtol=1e-12)


@pytest.mark.fast("each_step")
@pytest.mark.parametrize("name", ["each_step", "read"])
def test_no_step_of_a_gradient_copies_an_array_that_is_only_written(name):
    steps = 400

    def loss(params):
        ta = run_loop(params, WRITES[name][0], room(steps), steps)
        return jnp.sum(jnp.sin(ta.stack()))

    program = jax.jit(jax.grad(loss)).lower(PARAMS).compile().as_text()
    # A copy at every step is a copy of an element of the loop's carry.
    copied = rf"f64\[{steps},{ROWS},{UNITS}\]\S* copy\(%get-tuple-element"
    assert bool(re.findall(copied, program)) == (name == "read")
