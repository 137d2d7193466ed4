"""Windows: how long sequences and packed rows are cut, and gradients over windows."""

import functools
import pickle

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

from jaxrnn import pack_sequences, truncated_bptt, windows
from jaxrnn.testing._oracle import close

DTYPE = np.dtype("float64")


@hypothesis.given(
    st.integers(0, 9),
    st.integers(1, 10),
    st.none() | st.just([4, -3, 20]),
    st.booleans(),
)
def test_windows_give_the_whole_back(time, size, lengths, time_major):
    x = np.arange(1, 3 * time * 2 + 1, dtype=np.float32).reshape(3, time, 2)
    turn = lambda x: np.swapaxes(x, 0, 1) if time_major else x
    named = lambda x: {"x": turn(x), "ids": turn(x[..., 0].astype(jnp.bfloat16))}
    inputs = named(x) | {"ids": jax.device_put(named(x)["ids"])}
    made = list(windows(inputs, size, lengths, time_major=time_major))
    assert [w.start for w in made] == list(range(0, time, size))
    padded = np.pad(x, [(0, 0), (0, size), (0, 0)])
    want = np.clip([time] * 3 if lengths is None else lengths, 0, time)
    for w in made:
        assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(w.inputs))
        assert_same(w.inputs, named(padded[:, w.start :][:, :size]))
        if lengths is None and time % size == 0:
            assert w.sequence_length is None
        else:
            left = np.clip(want - w.start, 0, size)
            assert_same(w.sequence_length, left.astype(np.int32))


class Remote:
    """An array outside of memory, which counts how much of it is read."""

    shape, dtype, read, lost = (2, 10, 3), np.dtype("float32"), 0, False

    def __getitem__(self, index):
        if self.lost:
            raise IndexError("lost")
        part = np.ones(self.shape, self.dtype)[index]
        self.read += part.size
        return part


def test_a_window_is_read_when_its_turn_comes():
    source = Remote()
    for i, _ in enumerate(windows(source, 4), 1):
        assert source.read == 2 * min(4 * i, 10) * 3
    source.lost = True  # An error of the data does not end the windows.
    with pytest.raises(IndexError, match="lost"):
        list(windows(source, 4))
    buffer = np.zeros((2, 10))
    made = iter(windows(buffer, 5))
    first = next(made)
    buffer[:] = 1
    assert not first.inputs.any()  # What was read has been copied,
    assert next(made).inputs.all()  # and what was not is.


PACKED = pack_sequences([np.ones(n) for n in (5, 2, 4)])


@pytest.mark.parametrize("inputs", [np.arange(10).reshape(2, 5), PACKED])
def test_windows_are_a_sequence(inputs):
    """They have a length, for a progress bar, and slices, to resume after a break."""
    made = windows(inputs, 2)
    assert len(made) == len(list(made)) == len(list(made)) == 3
    for got, start in [(made[1:][0], 2), (made[-1], 4), (made[::-1][0], 4)]:
        assert got.start == start
        assert_same(got, list(made)[start // 2])
    with pytest.raises(IndexError, match="out of range"):
        made[3]
    assert repr(made) == "<3 windows>"
    for some in (made, made[1:], made[::-1]):
        assert_same(list(pickle.loads(pickle.dumps(some))), list(some))


# Packed rows.


@hypothesis.given(
    st.lists(st.integers(0, 6), max_size=7),
    st.integers(6, 13),
    st.integers(1, 14),
    st.booleans(),
)
def test_parts_of_packed_sequences(lengths, row_length, size, time_major):
    sequences = [100 * i + np.arange(1, n + 1) for i, n in enumerate(lengths, 1)]
    sequences.append(np.ones(1, int))
    packed = pack_sequences(sequences, row_length=row_length, time_major=time_major)
    turn = np.transpose if time_major else np.asarray
    whole = np.pad(turn(packed.inputs), [(0, 0), (0, size)])
    done, shapes = np.zeros(len(sequences), int), set()
    state = np.full(len(whole), -1)  # Of each row, the step last seen.
    for window in windows(packed, size):
        parts = window.packed
        shapes.add((window.new, parts.starts.shape))
        inputs, starts = turn(parts.inputs), turn(parts.starts)
        np.testing.assert_array_equal(inputs, whole[:, window.start :][:, :size])
        used = np.arange(size) < parts.lengths[:, None]
        np.testing.assert_array_equal(inputs > 0, used)
        states = np.append(state, np.full(window.new, -1))
        for p, i in enumerate(window.part_of):
            r, at, n = parts.row[p], parts.offset[p], parts.sequence_length[p]
            assert (i >= 0) == (n > 0)
            if n == 0:
                assert (r, at, window.ends[p]) == (0, 0, -1)
                continue
            assert starts[r, at] == p
            assert (p < window.rows) == (done[i] > 0)
            if done[i]:  # It continues from the row's previous step.
                assert (r, at, state[p]) == (p, 0, sequences[i][done[i] - 1])
            steps = sequences[i][done[i] :][:n]
            np.testing.assert_array_equal(inputs[r, at : at + n], steps)
            done[i], states[p] = done[i] + n, steps[-1]
            assert window.ends[p] == (i if done[i] == len(sequences[i]) else -1)
        assert (starts >= 0).sum() == (window.part_of >= 0).sum()
        ends = inputs[np.arange(len(inputs)), parts.lengths - 1]
        state = np.where(parts.lengths > 0, ends, state)
        np.testing.assert_array_equal(states[window.last], state)
    assert done.tolist() == list(map(len, sequences))
    assert len(shapes) == 1


def test_one_fresh_state_serves_all_sequences():
    window = windows(pack_sequences(np.ones((4, 3)), [3, 1, 2, 1]), 2)[0]
    old, new = np.ones((window.rows, 2)), np.array([[2.0, 3.0]])
    start = window.start_from({"h": old}, {"h": new})["h"]
    np.testing.assert_array_equal(start, [*old, *[[2, 3]] * window.new])


# How far gradients reach back over windows, and which parameters each call uses.

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


state_after = jax.jit(lambda *given: loss(*given)[1])


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


def step_of(bptt):
    """A step of training, as a scan has it."""

    def step(carry, window):
        params, carry = carry
        value, gradient, carry = bptt.value_and_grad(params, carry, window)
        return (descend(params, gradient), carry), (value, gradient)

    return step


@pytest.mark.slow
@pytest.mark.parametrize("reach", [1, 3])
def test_gradients_while_the_parameters_change(reach):
    bptt = truncated_bptt(loss, reach=reach)
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(step_of(bptt), 1))
    types, got = jax.eval_shape(lambda x: x, WINDOWS[0]), []
    carry = PARAMS, bptt.init(STATE, types)
    for window in WINDOWS:
        carry, made = step(carry, window)
        got.append(made)
    close(got, by_hand(PARAMS, reach), DTYPE)
    _, last = carry
    assert last.seen == reach - 1
    assert last.state["steps"] == K1 * (COUNT - reach + 1)
    assert last.state["key"] == STATE["key"]


@pytest.mark.slow
def test_within_scan_and_vmap():
    bptt = truncated_bptt(loss, reach=3)
    step, start = step_of(bptt), lambda p: (p, bptt.init(STATE, WINDOWS[0]))
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
