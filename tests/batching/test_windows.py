"""Windows: how `windows` cuts long sequences and packed rows along time."""

import pickle

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, bound

import jaxrnn
from jaxrnn import pack_sequences, packed_rnn, windows
from jaxrnn.testing._oracle import close


@hypothesis.given(
    st.integers(0, 9),
    st.integers(1, 10),
    st.none() | st.just([4, -3, 20]),
    st.booleans(),
)
def test_windows_give_the_whole_back(time, size, lengths, time_major):
    x = np.arange(1, 3 * time * 2 + 1, dtype=np.float32).reshape(3, time, 2)
    ids = x[..., 0].astype(jnp.bfloat16)
    turn = lambda x: np.swapaxes(x, 0, 1) if time_major else x
    inputs = {"x": turn(x), "ids": jax.device_put(turn(ids))}
    made = list(windows(inputs, size, lengths, time_major=time_major))
    assert [w.start for w in made] == list(range(0, time, size))
    for name, whole in {"x": x, "ids": ids}.items():
        assert all(type(w.inputs[name]) is np.ndarray for w in made)
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
    buffer = np.zeros((2, 10))
    made = iter(windows(buffer, 5))
    first = next(made)
    buffer[:] = 1
    assert not first.inputs.any()  # What was read has been copied,
    assert next(made).inputs.all()  # and what was not is.


def test_an_error_of_the_data_does_not_end_the_windows():
    source = Remote()
    source.lost = True
    with pytest.raises(IndexError, match="lost"):
        list(windows(source, 4))


@pytest.mark.parametrize(
    "inputs",
    [np.arange(10).reshape(2, 5), pack_sequences([np.ones(n) for n in (5, 2, 4)])],
    ids=["padded", "packed"],
)
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


@pytest.mark.fast("False")
@pytest.mark.parametrize("time_major", [False, True])
def test_packed_windows_are_the_whole(time_major):
    """Outputs and final states, from an initial state for each sequence."""
    x = np.random.default_rng(0).normal(size=(6, 7, 2))
    fresh, turned = jnp.asarray(x[:, 0]), np.swapaxes(x, 0, 1) if time_major else x
    lengths = [3, 0, 7, 1, 5, 2]
    packed = pack_sequences(turned, lengths, row_length=10, time_major=time_major)
    cell = bound(jaxrnn.GRUCell(2), depth=2)
    want = jax.jit(lambda: packed_rnn(cell, packed, fresh))()

    @jax.jit
    def step(row_state, ended, window):
        new = fresh[window.part_of[window.rows :]]
        start = window.start_from(row_state, new)
        outputs, states = packed_rnn(cell, window.packed, start)
        ended = ended.at[window.ends].set(states, wrap_negative_indices=False)
        return outputs, window.row_state(states), ended

    row_state, ended, outputs = jnp.full((len(packed.lengths), 2), jnp.inf), fresh, []
    for window in windows(packed, 4):
        output, row_state, ended = step(row_state, ended, window)
        outputs.append(output)
    axis = 0 if time_major else 1
    whole = np.concatenate(outputs, axis).take(np.arange(10), axis)
    close((whole, ended), want, np.dtype("float64"))


def test_one_fresh_state_serves_all_sequences():
    window = windows(pack_sequences(np.ones((4, 3)), [3, 1, 2, 1]), 2)[0]
    old, new = np.ones((window.rows, 2)), np.array([[2.0, 3.0]])
    start = window.start_from({"h": old}, {"h": new})["h"]
    np.testing.assert_array_equal(start, [*old, *[[2, 3]] * window.new])
