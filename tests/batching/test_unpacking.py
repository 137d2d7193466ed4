"""How `PackedSequences` are read: by JAX, under jit, vmap and scan, and in a repr.

`test_packing.py` tests where sequences are stored, for any lengths. Here the lengths
are mostly `N`, because JAX compiles a program for each shape.
"""

import collections
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, bound
from jax.experimental import checkify

import jaxrnn
from jaxrnn import concat_packed, pack_sequences, stack_packed
from jaxrnn.testing._oracle import close

TIME = 6
N = [4, 0, 2, 6, 1, 3]
X = np.random.default_rng(0).normal(size=(len(N), TIME, 2)).astype(np.float32)
LIST = [x[:n] for x, n in zip(X, N, strict=True)]
PACKS = [
    pack_sequences(X, lengths, rows=4, row_length=8)
    for lengths in (N, N[::-1], [0] * len(N))
]


def zeroed(x, lengths=N):
    out = np.array(x)
    for i, n in enumerate(lengths):
        out[i, n:] = 0
    return out


def swapped(tree):
    return jax.tree.map(lambda x: np.swapaxes(x, 0, 1), tree)


Pair = collections.namedtuple("Pair", "features ids")


def test_nests_keep_their_dtypes():
    ids = np.arange(len(N) * TIME, dtype=np.int8).reshape(-1, TIME)
    small = jnp.asarray(X[:, :, None], jnp.bfloat16)
    nest = {"a": Pair(X, ids), "b": [ids % 2 == 0, small]}
    packed = pack_sequences(nest, N)
    unpacked = jax.jit(packed.unpack)(packed.inputs)
    assert_same(unpacked, jax.tree.map(zeroed, nest))
    records = [jax.tree.map(lambda x, i=i: x[i, : N[i]], nest) for i in range(len(N))]
    assert_same(pack_sequences(records), packed)


@pytest.mark.fast("False-True", "True-False")
@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_nan_where_nothing_lies_reaches_neither_values_nor_gradients(
    time_major, compiled
):
    packed = pack_sequences(LIST, rows=5, row_length=8, time_major=time_major)
    outputs = np.full((5, 8), np.nan)
    weight = 1 + np.arange(len(N) * 8.0).reshape(len(N), 8)
    values, slopes = np.zeros((len(N), 8)), np.zeros((5, 8))
    for i, n in enumerate(N):
        steps = packed.row[i], slice(packed.offset[i], packed.offset[i] + n)
        outputs[steps] = values[i, :n] = 100 * i + np.arange(n)
        slopes[steps] = weight[i, :n]
    ends = [100 * i + n - 1 if n else outputs[0, 0] for i, n in enumerate(N)]
    if time_major:
        outputs, values, weight, slopes = swapped((outputs, values, weight, slopes))

    def run(outputs, packed):
        unpacked = packed.unpack(outputs)
        return (unpacked * weight).sum(), (unpacked, packed.at_ends(outputs))

    run = jax.value_and_grad(run, has_aux=True)
    (_, got), slope = (jax.jit(run) if compiled else run)(outputs, packed)
    np.testing.assert_array_equal(got[0], values)
    np.testing.assert_array_equal(got[1], ends)
    np.testing.assert_array_equal(slope, slopes)


def test_random_keys_are_read_and_not_masked():
    packed = pack_sequences(X, N)
    keys = jax.random.split(jax.random.key(0), packed.starts.shape)
    unpacked = packed.unpack(keys)
    assert unpacked.shape == (len(N), TIME)
    want = jax.random.key_data(keys[packed.row[0], packed.offset[0] + 1])
    assert_same(jax.random.key_data(unpacked[0, 1]), want)


@pytest.mark.fast("True")
@pytest.mark.parametrize("time_major", [False, True])
def test_every_index_is_in_bounds(time_major):
    given = swapped(X) if time_major else X
    packed = pack_sequences(given, N, row_length=8, time_major=time_major)
    read = lambda outputs: (packed.unpack(outputs), packed.at_ends(outputs))
    checked = checkify.checkify(read, errors=checkify.index_checks)
    error, _ = checked(jnp.asarray(packed.inputs[..., 0]))
    error.throw()


def test_batches_of_fixed_shape_share_a_compilation():
    traces = []

    @jax.jit
    def run(packed):
        traces.append(repr(packed))
        return packed.unpack(packed.inputs)

    for lengths in (N, [6] * 6, [0] * 6, [1, 2, 0, 0, 0, 0]):
        packed = pack_sequences(X, lengths, rows=6, row_length=7)
        np.testing.assert_array_equal(run(packed), zeroed(X, lengths))
    assert traces == ["PackedSequences(6 sequences in 6 rows of 7 steps)"]


@pytest.mark.fast("shape0-lengths0", "shape2-lengths2")
@pytest.mark.parametrize(
    ("shape", "lengths"),
    [
        ((0, 5, 2), []),
        ((3, 0, 2), [0, 4, 1]),
        ((3, 5, 0), [1, 2, 3]),
        ((3, 5), [0, 0, 0]),
    ],
)
def test_empty_axes(shape, lengths):
    x = np.ones(shape, np.float32)
    packed = pack_sequences(x, lengths)
    assert min(packed.inputs.shape[:2]) >= 1
    read = jax.jit(lambda x: (packed.unpack(x), packed.at_ends(x)))
    unpacked, ends = read(packed.inputs)
    np.testing.assert_array_equal(unpacked, zeroed(x, lengths))
    assert ends.shape == (*shape[:1], *shape[2:])


def test_repr():
    packed = pack_sequences(X, N, rows=4)
    assert repr(packed) == "PackedSequences(6 sequences in 4 rows of 6 steps, 67% full)"
    turned = pack_sequences(swapped(X), N, rows=4, time_major=True)
    assert repr(jax.device_put(turned)) == repr(packed)
    for change in (lambda x: None, lambda x: x.shape):
        assert repr(jax.tree.map(change, packed)).startswith("PackedSequences(")
    stack = repr(jax.tree.map(lambda x: x[None], packed))
    assert stack == "PackedSequences(starts=int32[1, 4, 6])"


def test_no_sequences_give_no_results():
    packed = pack_sequences(X[:0], [])
    cell = bound(jaxrnn.GRUCell(3), depth=2, dtype="float32")
    for state in (None, cell.zero_state(0, jnp.float32)):
        run = lambda state: jaxrnn.packed_rnn(cell, packed, state, jnp.float32)
        outputs, final = jax.jit(run)(state)
        assert packed.unpack(outputs).shape == (0, TIME, 3)
        assert final.shape == (0, 3)


def test_stacked_packs_are_read_by_vmap_and_by_scan():
    stack = stack_packed(iter(PACKS))
    read = lambda p: (p.unpack(p.inputs), p.at_ends(p.inputs))
    want = jax.tree.map(lambda *leaves: np.stack(leaves), *map(jax.jit(read), PACKS))
    assert_same(jax.jit(jax.vmap(read))(stack), want)
    scan = lambda stack: jax.lax.scan(lambda _, p: (None, read(p)), None, stack)[1]
    assert_same(jax.jit(scan)(stack), want)
    first = PACKS[0]
    twice = np.stack([first.inputs, 2 * first.inputs])
    of_outputs = jax.jit(jax.vmap(first.unpack))(twice)
    assert_same(of_outputs, np.stack([want[0][0], 2 * want[0][0]]))


@pytest.mark.slow
def test_sizes_that_are_symbolic_are_not_checked():
    cell = bound(jaxrnn.LSTMCell(3), depth=2, dtype="float32")
    run = jax.jit(lambda packed: jaxrnn.packed_rnn(cell, packed, dtype=jnp.float32)[1])
    unchecked = lambda p: dataclasses.replace(p, rows=None, sequences=None)
    rows = {"inputs": "r, t, 2", "starts": "r, t", "lengths": "r"}
    of_sequences = dict.fromkeys(("row", "offset", "sequence_length"), "s")
    first = unchecked(PACKS[0])
    shapes = dataclasses.replace(first, **rows, **of_sequences)
    program = jax.export.export(run)(jax.export.symbolic_args_specs(first, shapes))
    for packed in PACKS[1], concat_packed(PACKS):
        got = program.call(unchecked(packed))
        close(got, run(packed), np.dtype("float32"))
