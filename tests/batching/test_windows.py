"""Windows: how long sequences and packed rows are cut."""

import pickle

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, refusals

from jaxrnn import Packed, pack_sequences, windows


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

    shape, dtype, read = (2, 10, 3), np.dtype("float32"), 0

    def __getitem__(self, index):
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


@hypothesis.given(
    st.lists(st.integers(0, 6), min_size=1, max_size=7),
    st.integers(6, 13),
    st.integers(1, 14),
)
def test_windows_of_packs_are_packs(lengths, row_length, size):
    sequences = [100.0 * i + np.arange(n) for i, n in enumerate(lengths, 1)]
    packed = pack_sequences(sequences, row_length=row_length)
    parts = [window.inputs for window in windows(packed, size)]
    assert all(type(part) is Packed for part in parts)
    assert len({part.segment_ids.shape for part in parts}) == 1
    whole = jax.tree.map(lambda *leaves: np.concatenate(leaves, 1), *parts)
    assert_same(jax.tree.map(lambda x: x[:, :row_length], whole), packed)
    assert_same(sum(part.lengths for part in parts), packed.lengths)
    resets = np.concatenate([part.resets for part in parts], 1)
    np.testing.assert_array_equal(resets[:, :row_length], packed.resets)
    assert resets.sum() == np.count_nonzero(lengths)


cut = jax.jit(lambda inputs: windows(inputs, 2)[0])
test_refusals = refusals([
    (TypeError, "^`inputs` must not be traced", lambda: cut(np.ones((2, 4)))),
    (TypeError, "without a mask", lambda: windows(np.ma.ones((2, 4)), 2)),
    (ValueError, "`size`", lambda: windows(np.ones((2, 4)), 0)),
])  # fmt: skip
