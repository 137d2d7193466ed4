"""Arrays that a loop only writes are filled after it, exactly and in linear time."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn

STEPS, ROWS, UNITS = 5, 2, 3
CELL = jaxrnn.BasicRNNCell(UNITS)
KERNEL = np.sin(np.arange(2 * UNITS * UNITS)).reshape(2 * UNITS, UNITS)
PARAMS = {"kernel": KERNEL, "bias": np.zeros(UNITS)}
FIRST = np.cos(np.arange(ROWS * UNITS)).reshape(ROWS, UNITS)


def array(size=STEPS, **options):
    return jaxrnn.TensorArray(jnp.float64, size, element_shape=(ROWS, UNITS), **options)


def outputs_of(params, steps=STEPS):
    """The outputs of a cell that reads its own output, by a loop over steps."""
    x = h = jnp.asarray(FIRST)
    outputs = []
    for _ in range(steps):
        x = h = jnp.tanh(jnp.concatenate([x, h], 1) @ params["kernel"])
        outputs.append(h)
    return jnp.stack(outputs)


def run(params, write, start, steps=STEPS, max_time=STEPS):
    """Runs a loop whose loop state is `write(step, output, loop_state)`."""

    def loop_fn(time, output, state, loop_state):
        finished = jnp.full(ROWS, time >= steps)
        if output is None:
            return finished, FIRST, FIRST, (), start
        return finished, output, state, (), write(time - 1, output, loop_state)

    bound = CELL.bind(params)
    return jaxrnn.raw_rnn(bound, loop_fn, max_time=max_time)[2]


def as_it_is(t, output, ta):
    return ta.write(t, output)


def in_a_scatter(t, output, ta):
    return ta.scatter(jnp.stack([2 * t + 1, 2 * t]), jnp.stack([-output, output]))


def when_odd(t, output, ta):
    return jax.lax.cond(t % 2 == 1, lambda: ta.write(t, output), lambda: ta)


def reads_the_last(t, output, ta):
    return ta.write(t, output + 2 * ta.read(t - 1))


def reads_in_a_try(t, output, ta):
    try:
        last = ta.read(t - 1)
    except Exception:
        last = jnp.zeros_like(output)
    return ta.write(t, output + 2 * last)


def replaces(t, output, ta):
    return ta.unstack(jnp.stack([output] * STEPS))


def sums_of_the_last(outputs):
    total, sums = jnp.zeros_like(outputs[0]), []
    for output in outputs:
        total = output + 2 * total
        sums.append(total)
    return jnp.stack(sums)


doubled = lambda h: jnp.stack([h, -h], 1).reshape(-1, ROWS, UNITS)

# The write at each step, the array at the start, and the rows that result.
WRITES = {
    "each_step": (as_it_is, array(), lambda h: h),
    "may_grow": (as_it_is, array(0, dynamic_size=True), lambda h: h),
    "scatter": (in_a_scatter, array(2 * STEPS), doubled),
    "past_the_end": (
        lambda t, h, ta: ta.write(t + 2, h),
        array(),
        lambda h: jnp.concatenate([jnp.zeros_like(h[:2]), h[:3]]),
    ),
    "one_slot": (
        lambda t, h, ta: ta.write(1 + t % 2, h),
        array(),
        lambda h: jnp.zeros_like(h).at[1].set(h[4]).at[2].set(h[3]),
    ),
    "before_the_loop": (
        lambda t, h, ta: ta.write(t + 1, h),
        array(STEPS + 1).write(0, jnp.asarray(FIRST)),
        lambda h: jnp.concatenate([FIRST[None], h]),
    ),
    "under_cond": (when_odd, array(), lambda h: h.at[::2].set(0)),
    "read": (reads_the_last, array(), sums_of_the_last),
    "read_in_a_try": (reads_in_a_try, array(), sums_of_the_last),
    "replaced": (replaces, array(), lambda h: jnp.stack([h[-1]] * STEPS)),
    "kept": (lambda t, h, ta: ta, array(), jnp.zeros_like),
}


@pytest.mark.fast(*(WRITES.keys() - {"may_grow"}))
@pytest.mark.parametrize("name", WRITES)
def test_values_and_gradients_are_those_of_writes_in_the_loop(name):
    write, start, expected = WRITES[name]
    weights = np.sin(np.arange(2.0 * STEPS * ROWS * UNITS)).reshape(-1, ROWS, UNITS)
    loss = lambda rows: jnp.sum(jnp.sin(rows) * weights[: len(rows)])

    def both(params):
        by_loop = lambda params: loss(run(params, write, start).stack())
        by_hand = lambda params: loss(expected(outputs_of(params)))
        return jax.value_and_grad(by_loop)(params), jax.value_and_grad(by_hand)(params)

    (value, gradient), (want, want_gradient) = jax.jit(both)(PARAMS)
    np.testing.assert_allclose(value, want, rtol=1e-12)
    kernel, want_kernel = gradient["kernel"], want_gradient["kernel"]
    np.testing.assert_allclose(kernel, want_kernel, rtol=1e-10, atol=1e-12)


def test_several_arrays_one_of_them_twice_one_read_and_one_without_entries():
    def write(t, output, arrays):
        once = arrays["once"].write(t, output)
        return {
            "once": once,
            "again": once,
            "read": reads_the_last(t, output, arrays["read"]),
            "empty": arrays["empty"].write(t, output[:0]),
        }

    start = dict.fromkeys(["once", "again", "read"], array())
    start["empty"] = jaxrnn.TensorArray(jnp.float64, STEPS, element_shape=(0, UNITS))
    found = jax.jit(lambda: run(PARAMS, write, start))()
    outputs = outputs_of(PARAMS)
    want = {"once": outputs, "again": outputs, "read": sums_of_the_last(outputs)}
    for name, rows in want.items():
        np.testing.assert_allclose(found[name].stack(), rows, rtol=1e-12)
    assert found["empty"].stack().shape == (STEPS, 0, UNITS)


def test_the_writes_of_all_steps_need_at_most_twice_the_memory_of_an_array():
    def needed(steps):
        def write(t, output, ta):
            rows = jnp.stack([output] * steps)
            return ta.scatter(jnp.arange(steps, dtype=jnp.int32), rows)

        loop = jax.jit(lambda: run(PARAMS, write, array(steps), steps, steps).stack())
        return loop.lower().compile().memory_analysis().temp_size_in_bytes

    assert needed(64) < 3 * needed(32)


@pytest.mark.parametrize("place", ["read", "carried"])
def test_a_loop_inside_of_a_step_uses_an_array_of_the_outer_loop(place):
    def write(t, output, ta):
        def inner(time, cell_output, state, loop_state):
            finished = time >= 2
            if cell_output is None:
                inside = ta if place == "carried" else array(2)
                return finished, output, output, (), inside
            if place == "carried":
                return finished, output, state, (), loop_state.write(t, output)
            value = cell_output + ta.read(jnp.maximum(t - 1, 0))
            return finished, output, state, (), loop_state.write(time - 1, value)

        inside = jaxrnn.raw_rnn(CELL.bind(PARAMS), inner, max_time=2)[2]
        return inside if place == "carried" else ta.write(t, inside.read(1))

    by_loop = lambda max_time: run(PARAMS, write, array(), max_time=max_time).stack()
    # Outside of `jit`, writes happen in the loop.
    expected = by_loop(None) if place == "read" else outputs_of(PARAMS)
    got = jax.jit(by_loop, static_argnums=0)(STEPS)
    np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["each_step", "read"])
def test_no_step_of_a_gradient_copies_an_array_that_is_only_written(name):
    steps = 400

    def loss(params):
        ta = run(params, WRITES[name][0], array(steps), steps, steps)
        return jnp.sum(jnp.sin(ta.stack()))

    program = jax.jit(jax.grad(loss)).lower(PARAMS).compile().as_text()
    # A copy at every step is a copy of an element of the loop's carry.
    copied = rf"f64\[{steps},{ROWS},{UNITS}\]\S* copy\(%get-tuple-element"
    assert bool(re.findall(copied, program)) == (name == "read")
