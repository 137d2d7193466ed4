"""Long sequences by windows: how they are cut, and how far gradients reach back."""

import dataclasses
import functools
import pickle

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import drawn

import jaxrnn
from jaxrnn import pack_sequences, packed_rnn, truncated_bptt, windows
from jaxrnn.testing._oracle import close, weighted_sum

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


@pytest.mark.fast("2")
@pytest.mark.parametrize("reach", [1, 2, 4])
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
        slope = jax.grad(functools.partial(last_of, calls))(one)
        assert float(slope) == float(calls == 1)


def test_far_reach_is_the_whole_gradient():
    """The gradient of the last window's loss over all steps, without windows."""
    cell, lengths = jaxrnn.LSTMCell(UNITS), [11, 0, 6]
    x = np.asarray(draw(5, 3, 11, DEPTH))
    params = drawn(cell, x[:, 0], DTYPE)
    state = jax.tree.map(lambda s: draw(6, *s.shape), cell.zero_state(3, DTYPE))

    def of_window(params, state, window):
        outputs, state = jaxrnn.dynamic_rnn(
            cell.bind(params), window.inputs, window.sequence_length, state
        )
        return weighted_sum(outputs), (state, outputs)

    def of_last(params):
        outputs, _ = jaxrnn.dynamic_rnn(cell.bind(params), x, lengths, state)
        outputs = jnp.pad(outputs, [(0, 0), (0, 1), (0, 0)])[:, 8:]
        return weighted_sum(outputs), outputs

    bptt = truncated_bptt(of_window, reach=9, has_aux=True)
    step = jax.jit(bptt.value_and_grad)
    carry = bptt.init(state, windows(x, 4, lengths)[0])
    for window in windows(x, 4, lengths):
        value, gradient, carry = step(params, carry, window)
    want = jax.jit(jax.value_and_grad(of_last, has_aux=True))(params)
    close((value, gradient), want, DTYPE)


def test_windows_that_are_not_held_may_differ_in_length():
    bptt = truncated_bptt(lambda w, s, x: (w * s, s + x.sum()))
    carry = bptt.init(0.0, np.ones(4))
    for size in (4, 1, 3):
        value, gradient, carry = bptt.value_and_grad(2.0, carry, np.ones(size))
    assert (value, gradient, carry.state) == (10, 5, 8)


def test_numbers_become_arrays_that_keep_their_type():
    bptt = truncated_bptt(lambda w, s, x: (w * s, 3.0))
    carry = bptt.init(0.0, 1.0)
    _, _, after = bptt.value_and_grad(2.0, carry, 1.0)
    assert not carry.state.weak_type
    assert not after.state.weak_type


# Cutting.


@hypothesis.given(
    st.integers(0, 9),
    st.integers(1, 10),
    st.none() | st.just([4, -3, 20]),
    st.booleans(),
)
def test_windows_give_the_whole_back(time, size, lengths, time_major):
    x = np.arange(1, 3 * time * 2 + 1, dtype=np.float32).reshape(3, time, 2)
    ids = x[..., 0].astype(np.int8)
    turn = lambda x: np.swapaxes(x, 0, 1) if time_major else x
    made = list(
        windows({"x": turn(x), "ids": turn(ids)}, size, lengths, time_major=time_major)
    )
    assert len(made) == -(-time // size)
    assert [w.start for w in made] == list(range(0, time, size))
    for name, whole in {"x": x, "ids": ids}.items():
        parts = [turn(w.inputs[name]) for w in made]
        assert all(part.shape[1] == size for part in parts)
        joined = np.concatenate([whole[:, :0], *parts], 1)
        assert joined.dtype == whole.dtype
        np.testing.assert_array_equal(joined[:, :time], whole)
        assert not joined[:, time:].any()
    if lengths is None and time % size == 0:
        assert all(w.sequence_length is None for w in made)
        return
    want = np.clip([time] * 3 if lengths is None else lengths, 0, time)
    for w in made:
        assert w.sequence_length.dtype == np.int32
        counted = [sum(w.start <= t < w.start + size for t in range(n)) for n in want]
        np.testing.assert_array_equal(w.sequence_length, counted)


class Remote:
    """An array outside of memory, which counts how much of it is read."""

    shape, dtype, read = (2, 10, 3), np.dtype("float32"), 0

    def __getitem__(self, index):
        part = np.ones(self.shape, self.dtype)[index]
        self.read += part.size
        return part


def test_a_window_is_read_when_its_turn_comes(tmp_path):
    source = Remote()
    for i, _ in enumerate(windows(source, 4), 1):
        assert source.read == 2 * min(4 * i, 10) * 3
    on_disk = np.memmap(tmp_path / "x", np.float32, "w+", shape=(2, 10, 3))
    made = iter(windows(on_disk, 5))
    first = next(made)
    on_disk[:] = 1
    assert not first.inputs.any()  # What was read has been copied,
    assert next(made).inputs.all()  # and what was not is.


@pytest.mark.parametrize("packed", [False, True])
def test_windows_are_a_sequence(packed):
    """They have a length, for a progress bar, and slices, to resume after a break."""
    x = [draw(0, n, 3) for n in (5, 2, 4)]
    made = (
        windows(jaxrnn.pack_sequences(x), 2) if packed else windows(draw(1, 2, 5, 3), 2)
    )
    assert len(made) == len(list(made)) == len(list(made)) == 3
    for got, start in [(made[1:][0], 2), (made[-1], 4), (made[::-1][0], 4)]:
        assert got.start == start
        want = list(made)[start // 2]
        chex.assert_trees_all_equal(got, want)
    with pytest.raises(IndexError, match="out of range"):
        made[3]
    assert repr(made) == "<3 windows>"


def test_an_error_of_the_data_does_not_end_the_windows():
    class Broken(Remote):
        def __getitem__(self, index):
            raise IndexError("lost")

    with pytest.raises(IndexError, match="lost"):
        list(windows(Broken(), 4))


def test_arrays_of_jax():
    x = draw(0, 2, 5, 3).astype(jnp.bfloat16)
    made = [w.inputs for w in windows(x, 3)]
    assert all(isinstance(part, np.ndarray) for part in made)
    np.testing.assert_array_equal(np.concatenate(made, 1)[:, :5], x)


# Packed rows.

lengths_of_a_batch = st.lists(st.integers(0, 6), max_size=7)


@hypothesis.given(
    lengths_of_a_batch, st.integers(6, 13), st.integers(1, 14), st.booleans()
)
def test_parts_of_packed_sequences(lengths, row_length, size, time_major):
    sequences = [100 * i + np.arange(1, n + 1) for i, n in enumerate(lengths, 1)]
    sequences.append(np.ones(1, int))
    packed = pack_sequences(sequences, row_length=row_length, time_major=time_major)
    found, ended = [[] for _ in sequences], []
    state = np.full(packed.lengths.shape, -1)  # Of each row, the step last seen.
    shapes = set()
    for window in windows(packed, size):
        parts = window.packed
        shapes.add((window.new, parts.starts.shape))
        turn = np.transpose if time_major else np.asarray
        inputs, starts = turn(parts.inputs), turn(parts.starts)
        states, used = np.full(len(window.part_of), -1), np.zeros(inputs.shape, int)
        states[: window.rows] = state
        for p, i in enumerate(window.part_of):
            r, at, n = parts.row[p], parts.offset[p], parts.sequence_length[p]
            assert (i >= 0) == (n > 0)
            if n == 0:
                assert r == at == 0
                continue
            assert starts[r, at] == p
            if p < window.rows:  # It continues from the row's previous step.
                assert r == p
                assert at == 0
                assert state[r] == found[i][-1]
            else:
                assert found[i] == []
            found[i] += inputs[r, at : at + n].tolist()
            used[r, at : at + n] += 1
            states[p] = found[i][-1]
            if window.ends[p] >= 0:
                ended.append(window.ends[p])
                assert len(found[i]) == len(sequences[i])
        assert (starts >= 0).sum() == (window.part_of >= 0).sum()
        np.testing.assert_array_equal(used, np.arange(size) < parts.lengths[:, None])
        for r in np.flatnonzero(parts.lengths):
            state[r] = inputs[r, parts.lengths[r] - 1]
        np.testing.assert_array_equal(states[window.last], state)
    assert [np.array(f).tolist() for f in found] == [s.tolist() for s in sequences]
    assert sorted(ended) == [i for i, s in enumerate(sequences) if len(s)]
    assert len(shapes) == 1


def stacked_windows(packed, size):
    made = list(windows(packed, size))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *made)


def with_inputs(window, inputs):
    packed = dataclasses.replace(window.packed, inputs=inputs)
    return dataclasses.replace(window, packed=packed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "size", "time_major"),
    [(jaxrnn.LSTMCell(UNITS), 4, False), (jaxrnn.GRUCell(UNITS), 3, True)],
)
def test_packed_windows_are_the_whole(cell, size, time_major):
    """Outputs, final states and all gradients, with states that are not stopped."""
    x, axis = draw(8, 6, 7, DEPTH), 0 if time_major else 1
    x = jnp.swapaxes(x, 0, 1) if time_major else x
    lengths = [3, 0, 7, 1, 5, 2]
    packed = pack_sequences(x, lengths, row_length=10, time_major=time_major)
    params = drawn(cell, jnp.ones((1, DEPTH), DTYPE))
    fresh = jax.tree.map(lambda s: draw(9, *s.shape), cell.zero_state(6, DTYPE))
    stacked = stacked_windows(packed, size)

    def whole(params, fresh, inputs):
        one = dataclasses.replace(packed, inputs=inputs)
        outputs, states = packed_rnn(cell.bind(params), one, fresh)
        made = packed.unpack(outputs), states
        return weighted_sum(made), made

    def by_windows(params, fresh, inputs):
        def step(carry, window_and_inputs):
            row_state, ended = carry
            window = with_inputs(*window_and_inputs)
            of_new = jax.tree.map(lambda s: s[window.part_of[window.rows :]], fresh)
            start = window.start_from(row_state, of_new)
            outputs, states = packed_rnn(cell.bind(params), window.packed, start)
            put = lambda e, s: e.at[window.ends].set(s, wrap_negative_indices=False)
            carry = window.row_state(states), jax.tree.map(put, ended, states)
            return carry, outputs

        nothing = jax.tree.map(
            lambda s: jnp.full_like(s, jnp.inf),
            cell.zero_state(len(packed.lengths), DTYPE),
        )
        (_, states), outputs = jax.lax.scan(step, (nothing, fresh), (stacked, inputs))
        outputs = jnp.concatenate(outputs, axis)
        outputs = jax.lax.slice_in_dim(outputs, 0, 10, axis=axis)
        made = packed.unpack(outputs), states
        return weighted_sum(made), made

    gradients = lambda f: jax.jit(jax.grad(f, (0, 1, 2), has_aux=True))
    want, made = gradients(whole)(params, fresh, jnp.asarray(packed.inputs))
    got = gradients(by_windows)(params, fresh, jnp.asarray(stacked.packed.inputs))
    (*got_slopes, slope), got_made = got
    slope = jax.lax.slice_in_dim(jnp.concatenate(slope, axis), 0, 10, axis=axis)
    close(((*got_slopes, slope), got_made), (want, made), DTYPE)


@pytest.mark.slow
def test_packed_windows_of_one_fresh_state_are_trained_on():
    cell, traced = jaxrnn.GRUCell(UNITS), []
    x = np.asarray(draw(8, 6, 7, DEPTH))
    packed = pack_sequences(x, [3, 0, 7, 1, 5, 2], row_length=9)
    params = drawn(cell, x[:, 0], DTYPE)

    def of_window(params, state, window):
        traced.append(1)
        start = window.start_from(state, cell.zero_state(1, DTYPE))
        outputs, states = packed_rnn(cell.bind(params), window.packed, start)
        return weighted_sum(outputs), window.row_state(states)

    def of_last(params):
        outputs, _ = packed_rnn(cell.bind(params), packed, dtype=DTYPE)
        return weighted_sum(outputs[:, 6:])

    first, *rest = windows(packed, 3)
    bptt = truncated_bptt(of_window, reach=3)
    step = jax.jit(bptt.value_and_grad)
    carry = bptt.init(cell.zero_state(first.rows, DTYPE), first)
    value, gradient, carry = step(params, carry, first)
    count = len(traced)
    for window in rest:
        value, gradient, carry = step(params, carry, window)
    want = jax.jit(jax.value_and_grad(of_last))(params)
    close((value, gradient), want, DTYPE)
    assert len(traced) == count


# Refusals.

ONE, PAIR = np.ones(2), jaxrnn.LSTMStateTuple(np.ones(2), np.ones(2))


def calling(loss, state=ONE, window=ONE, example=ONE, **options):
    def call():
        bptt = truncated_bptt(loss, **options)
        carry = bptt.init(state, example)
        bptt.value_and_grad(1.0, carry, window)

    return call


def never(params, state, window):
    return jnp.sum(params * window), state


X3 = np.ones((2, 6, 3))
PACKED = pack_sequences([np.ones((3, 2)), np.ones((2, 2))], row_length=3)
PART = windows(PACKED, 2)[0]
BPTT = truncated_bptt(lambda params, state, window: (state.sum(), state))
CARRY = BPTT.init(jnp.zeros(2), ())
REFUSALS = {
    "loss": (TypeError, r"`loss` must be callable, got 3", lambda: truncated_bptt(3)),
    "reach_zero": (
        ValueError,
        r"`reach` must be at least 1, got 0",
        lambda: truncated_bptt(never, reach=0),
    ),
    "reach_float": (
        TypeError,
        r"`reach` must be an integer, got 2.5",
        lambda: truncated_bptt(never, reach=2.5),
    ),
    "state": (
        TypeError,
        r"`state\.h` must be an array, got object",
        calling(never, PAIR._replace(h=object())),
    ),
    "window": (
        TypeError,
        r"`window\['x'\]` must be an array, got 'x'",
        lambda: BPTT.value_and_grad(jnp.ones(2), CARRY, {"x": "x"}),
    ),
    "params": (
        TypeError,
        r"`params\['n'\]` must be floating-point to have a gradient, got int32\[2\]",
        lambda: BPTT.value_and_grad({"n": jnp.ones(2, "i4")}, CARRY, ()),
    ),
    "has_aux": (
        TypeError,
        "`has_aux` must be True or False, got 'yes'",
        lambda: truncated_bptt(never, has_aux="yes"),
    ),
    "window_size": (
        ValueError,
        "windows: `size` must be at least 1, got 0. It is the number of steps of a w",
        lambda: windows(np.ones((2, 4)), 0),
    ),
    "windows_traced": (
        TypeError,
        "outside of jit, grad and vmap, and pass in its results",
        lambda: jax.jit(lambda x: windows(x, 2)[0])(np.ones((2, 4))),
    ),
    "windows_masked": (
        TypeError,
        r"windows: `inputs` must be an array without a mask.* `inputs\.filled\(0\)`",
        lambda: windows(np.ma.ones((2, 4)), 2),
    ),
    "carry": (
        TypeError,
        "`carry` must be what `init` or the previous call returned,",
        lambda: truncated_bptt(never).value_and_grad(1.0, ONE, ONE),
    ),
    "no_pair": (
        TypeError,
        r"`loss` must be a function that returns \(value, new_state\)",
        calling(lambda p, s, w: w.sum()),
    ),
    "three": (
        TypeError,
        r"`loss` must be a function that returns \(value, new_state\)",
        calling(lambda p, s, w: (w.sum(), s, None)),
    ),
    "no_aux": (
        TypeError,
        r"`loss` must be a function that returns \(value, \(new_state,",
        calling(lambda p, s, w: (w.sum(), s), has_aux=True),
    ),
    "no_scalar": (
        TypeError,
        r"with a real scalar `value`, got float64\[2\]",
        calling(lambda p, s, w: (w, s)),
    ),
    "no_real": (
        TypeError,
        r"with a real scalar `value`, got int32\[\]",
        calling(lambda p, s, w: (jnp.int32(0), s)),
    ),
    "state_structure": (
        ValueError,
        r"`new_state` must have the structure LSTMStateTuple\(c=\*, h=\*\), got \*",
        calling(lambda p, s, w: (w.sum(), s.h), PAIR),
    ),
    "state_dtype": (
        ValueError,
        r"`new_state\.h` must be float64\[2\], got float32\[2\]",
        calling(lambda p, s, w: (w.sum(), s._replace(h=s.h.astype("f4"))), PAIR),
    ),
    "window_shape": (
        ValueError,
        r"`window` must be float64\[2\], got float64\[1\]",
        calling(never, window=ONE[:1], reach=2),
    ),
    "window_structure": (
        ValueError,
        r"`window` must have the structure \*, got \(\*, \*\)",
        calling(never, window=(ONE, ONE), reach=2),
    ),
    "size": (
        TypeError,
        r"`size` must be an integer, got None. It is the number of steps",
        lambda: windows(X3, None),
    ),
    "size_zero": (
        ValueError,
        r"`size` must be at least 1, got 0",
        lambda: windows(X3, 0),
    ),
    "traced": (
        TypeError,
        r"`inputs` must be concrete, got traced float64\[2, 6, 3\]",
        lambda: jax.jit(lambda x: windows(x, 2)[0].inputs)(X3),
    ),
    "traced_lengths": (
        TypeError,
        r"`sequence_length` must be concrete, got traced int32\[2\]",
        lambda: jax.jit(lambda n: windows(X3, 2, n)[0].inputs)(jnp.zeros(2, "i4")),
    ),
    "traced_packed": (
        TypeError,
        r"`inputs\.inputs` must be concrete, got traced float64\[2, 3, 2\]",
        lambda: jax.jit(lambda p: windows(p, 2)[0])(PACKED),
    ),
    "no_array": (
        TypeError,
        r"`inputs\['a'\]\[0\]` must be an array, got 1",
        lambda: windows({"a": [1]}, 2),
    ),
    "keys": (
        TypeError,
        r"`inputs` must be an array, got key",
        lambda: windows(KEYS[None], 2),
    ),
    "nothing": (
        ValueError,
        r"must hold at least one array, got \{\}",
        lambda: windows({}, 2),
    ),
    "rank": (
        ValueError,
        r"`inputs` must have rank at least 2, \[batch, time, ...\], got float64\[2\]",
        lambda: windows(ONE, 2),
    ),
    "axes": (
        ValueError,
        r"Time and batch must be the same for all inputs \[batch, time, ...\]: "
        r"`inputs\[0\]` is .*, `inputs\[1\]` is float64\[2, 5, 3\]",
        lambda: windows((X3, X3[:, :5]), 2),
    ),
    "lengths": (
        ValueError,
        r"`sequence_length` must be a vector of length batch_size",
        lambda: windows(X3, 2, [1]),
    ),
    "packed_lengths": (
        ValueError,
        "`sequence_length` and `time_major` must be omitted for a pack",
        lambda: windows(PACKED, 2, [3, 2]),
    ),
    "row_state": (
        ValueError,
        r"`row_state` must be \[2, ...\], one entry for each row, got float64\[1, 4\]",
        lambda: PART.start_from(np.ones((1, 4)), np.ones((1, 4))),
    ),
    "fresh_state": (
        ValueError,
        r"`fresh_state` must be \[2, ...\], .*, got float64\[3, 4\]. One entry for all",
        lambda: PART.start_from(np.ones((2, 4)), np.ones((3, 4))),
    ),
    "fresh_dtype": (
        ValueError,
        r"`fresh_state` must have the dtype .* got float32\[1, 4\]. It must match `row",
        lambda: PART.start_from(np.ones((2, 4)), np.ones((1, 4), "f4")),
    ),
    "fresh_structure": (
        ValueError,
        r"`fresh_state` must have the structure \*, got \(\*,\)",
        lambda: PART.start_from(np.ones((2, 4)), (np.ones((1, 4)),)),
    ),
    "states": (
        ValueError,
        r"`states` must be \[4, ...\], one entry for each part, got float64\[2, 4\]",
        lambda: PART.row_state(np.ones((2, 4))),
    ),
}


@pytest.mark.parametrize("inputs", [np.arange(14).reshape(2, 7), None], ids=str)
def test_windows_are_pickled(inputs):
    whole = windows(
        pack_sequences(np.ones((3, 5)), [5, 2, 3]) if inputs is None else inputs, 3
    )
    for some in (whole, whole[1:], whole[::-1]):
        again = pickle.loads(pickle.dumps(some))
        jax.tree.map(np.testing.assert_array_equal, list(again), list(some))


@pytest.mark.parametrize("name", REFUSALS)
def test_refuses(name):
    kind, message, call = REFUSALS[name]
    with pytest.raises(kind, match=message):
        call()
