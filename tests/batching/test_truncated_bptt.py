"""How far gradients reach back over windows, and which parameters each call uses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import truncated_bptt
from jaxrnn.testing._oracle import close

DTYPE = np.dtype("float64")
ROWS, K1, DEPTH, UNITS, COUNT = 2, 2, 2, 3, 5
RATE = 0.5


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape) * 0.7, DTYPE)


PARAMS = {"w": draw(0, DEPTH, UNITS), "u": draw(1, UNITS, UNITS)}
KEYS = jax.random.split(jax.random.key(3), COUNT)
X = draw(2, COUNT, ROWS, K1, DEPTH)
STACKED = {"x": X, "key": KEYS, "label": jnp.arange(COUNT, dtype=jnp.int32)}
WINDOWS = [jax.tree.map(lambda leaf, i=i: leaf[i], STACKED) for i in range(COUNT)]
STATE = {"h": draw(4, ROWS, UNITS), "steps": jnp.int32(0), "key": jax.random.key(7)}


def loss(params, state, window):
    """An RNN with random numbers from the window's key. A window of zeros gives NaN."""
    x = window["x"] / jnp.linalg.norm(window["x"], axis=-1, keepdims=True)
    x = x + 0.1 * jax.random.normal(window["key"], x.shape, x.dtype)
    h, total = state["h"], jnp.zeros((), x.dtype)
    for t in range(K1):
        h = jnp.tanh(x[:, t] @ params["w"] + h @ params["u"])
        total = total + jnp.sum(h**2) + window["label"].astype(x.dtype) * jnp.sum(h)
    return total, state | {"h": h, "steps": state["steps"] + K1}


def descend(params, gradient):
    return jax.tree.map(lambda p, g: p - RATE * g, params, gradient)


@jax.jit
def state_after(params, state, window):
    return loss(params, state, window)[1]


@jax.jit
@jax.value_and_grad
def back_over(params, state, reached):
    for window in reached[:-1]:
        state = loss(params, state, window)[1]
    return loss(params, state, reached[-1])[0]


def by_hand(params, reach):
    """Values and gradients of all windows, each from the state as it is defined."""
    made, history = [], []
    for n in range(COUNT):
        history.append(params)
        first, state = max(0, n - reach + 1), STATE
        for i in range(first):  # In which call window i ran for the last time.
            state = state_after(history[i + reach - 1], state, WINDOWS[i])
        made.append(back_over(params, state, WINDOWS[first : n + 1]))
        params = descend(params, made[-1][1])
    return made


def stack(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@pytest.mark.fast("3")
@pytest.mark.parametrize("reach", [1, 3])
def test_gradients_while_the_parameters_change(reach):
    traced = []
    bptt = truncated_bptt(loss, reach=reach)
    carry = bptt.init(STATE, jax.eval_shape(lambda x: x, WINDOWS[0]))

    @jax.jit
    def step(params, carry, window):
        traced.append(1)
        value, gradient, carry = bptt.value_and_grad(params, carry, window)
        return (value, gradient), descend(params, gradient), carry

    params, got = PARAMS, []
    for window in WINDOWS:
        made, params, carry = step(params, carry, window)
        got.append(made)
    close(got, by_hand(PARAMS, reach), DTYPE)
    assert len(traced) == 1
    assert carry.seen == reach - 1
    assert carry.state["steps"] == K1 * (COUNT - reach + 1)
    assert carry.state["key"] == STATE["key"]


@pytest.mark.slow
def test_within_scan_and_vmap():
    bptt = truncated_bptt(loss, reach=3)

    def step(carry, window):
        params, carry = carry
        value, gradient, carry = bptt.value_and_grad(params, carry, window)
        return (descend(params, gradient), carry), (value, gradient)

    start = lambda params: (params, bptt.init(STATE, WINDOWS[0]))
    double = jax.tree.map(lambda p: 2 * p, PARAMS)
    one, other = (stack(by_hand(params, 3)) for params in (PARAMS, double))
    got = jax.jit(lambda p: jax.lax.scan(step, start(p), STACKED)[1])(PARAMS)
    close(got, one, DTYPE)
    # Here the count of windows is batched too, so that both branches run.
    both_steps = jax.vmap(step, (0, None))
    both_start = jax.vmap(start)(stack([PARAMS, double]))
    got = jax.jit(lambda s: jax.lax.scan(both_steps, s, STACKED)[1])(both_start)
    want = jax.tree.map(lambda *leaves: jnp.stack(leaves, 1), one, other)
    close(got, want, DTYPE)


def test_what_has_not_come_is_not_run():
    ran = []

    def counted(params, state, window):
        jax.debug.callback(lambda: ran.append(1))
        return jnp.sum(params * state), state * params + window

    bptt = truncated_bptt(counted, reach=3)
    step = jax.jit(bptt.value_and_grad)
    one = jnp.ones((), DTYPE)
    carry, counts = bptt.init(one, one), []
    for _ in range(4):
        _, _, carry = jax.block_until_ready(step(one, carry, one))
        jax.effects_barrier()
        counts.append(len(ran))
        ran.clear()
    assert counts == [1, 2, 3, 3]


@pytest.mark.fast("2")
@pytest.mark.parametrize("reach", [1, 2])
def test_no_gradient_goes_through_what_is_carried(reach):
    bptt = truncated_bptt(lambda w, s, x: (w * s, w * s + x), reach=reach)
    one = jnp.ones((), DTYPE)

    def last_of(calls, state):
        carry = bptt.init(state, one)
        for _ in range(calls):
            value, _, carry = bptt.value_and_grad(one, carry, one)
        return value

    for calls in (1, 2, 3):  # The first call starts from the state itself.
        slope = jax.jit(jax.grad(functools.partial(last_of, calls)))(one)
        assert float(slope) == float(calls == 1)


def test_windows_that_are_not_held_may_differ_in_length():
    loss = lambda w, s, x: (w * s, (s + x.sum(), x.size))
    bptt = truncated_bptt(loss, has_aux=True)
    carry = bptt.init(0.0, np.ones(4))
    for size in (4, 1, 3):
        (value, aux), gradient, carry = bptt.value_and_grad(2.0, carry, np.ones(size))
        assert aux == size
    assert (value, gradient, carry.state) == (10, 5, 8)


def test_numbers_become_arrays_that_keep_their_type():
    bptt = truncated_bptt(lambda w, s, x: (w * s, 3.0))
    carry = bptt.init(0.0, 1.0)
    _, _, after = bptt.value_and_grad(2.0, carry, 1.0)
    assert not carry.state.weak_type
    assert not after.state.weak_type
