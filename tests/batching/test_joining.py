"""Several packs as one; and arrays of several, or of a part of one, are refused."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, bound
from jax.sharding import AxisType, PartitionSpec as P

import jaxrnn
from jaxrnn import concat_packed, pack_sequences, packed_rnn, stack_packed
from jaxrnn.testing._oracle import close

DTYPE = np.dtype("float64")
RNG = np.random.default_rng(0)
LENGTHS = [[3, 0, 6, 1], [0, 5, 2, 4], [0, 0, 0, 0]]
CELL = bound(jaxrnn.LSTMCell(3), depth=2)


def sequences(lengths):
    return [{"x": RNG.normal(size=(n, 2)), "label": n} for n in lengths]


def pack(records, **options):
    return pack_sequences(records, **({"rows": 3, "row_length": 8} | options))


def run(packed):
    x = dataclasses.replace(packed, inputs=packed.inputs["x"])
    outputs, state = packed_rnn(CELL, x, dtype=DTYPE)
    return packed.unpack(outputs), state


@pytest.mark.parametrize("time_major", [False, True])
def test_concatenated_packs_hold_the_sequences_of_all(time_major):
    records = [sequences(some) for some in [*LENGTHS, [2]]]
    packs = [pack(some, time_major=time_major) for some in records[:3]]
    packs.append(pack(records[3], rows=None, time_major=time_major))
    joined = concat_packed(iter(packs))
    together = [record for some in records for record in some]
    assert repr(joined).startswith("PackedSequences(13 sequences in 10 rows of 8 steps")
    assert joined.row[-1] == 9
    if time_major:
        by_time = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), run(joined)[0])
    else:
        by_time = run(joined)[0]
    for i, record in enumerate(together):
        x, n = np.zeros((1, 8, 2)), len(record["x"])
        x[0, :n] = record["x"]
        want = jaxrnn.dynamic_rnn(CELL, x, [n], dtype=DTYPE)
        got = by_time[i], jax.tree.map(lambda leaf, i=i: leaf[i], run(joined)[1])
        close(got, jax.tree.map(lambda leaf: leaf[0], want), DTYPE)
    labels = joined.at_ends(joined.inputs["label"])
    some = np.flatnonzero(joined.sequence_length)
    np.testing.assert_array_equal(labels[some], joined.sequence_length[some])


def test_what_is_concatenated_is_a_pack():
    packs = [pack(sequences(some)) for some in LENGTHS]
    joined = concat_packed(packs)
    assert_same(concat_packed([joined]), joined)
    assert_same(concat_packed([concat_packed(packs[:2]), packs[2]]), joined)
    assert all(type(x) is np.ndarray for x in jax.tree.leaves(joined))
    for name in ("lengths", "starts", "row", "offset", "sequence_length"):
        assert getattr(joined, name).dtype == np.int32


def test_the_longest_time_is_unpacked_to():
    padded = pack_sequences(np.ones((2, 5)), [5, 2], rows=2, row_length=8)
    listed = pack_sequences([np.ones(7), np.ones(1)], rows=2, row_length=8)
    assert (padded.time, listed.time) == (5, 8)
    for join in concat_packed, stack_packed:
        assert join([padded, listed]).time == 8


@pytest.mark.slow
def test_stacked_packs_are_run_by_vmap_and_by_scan():
    packs = [pack(sequences(some)) for some in LENGTHS]
    stack = stack_packed(iter(packs))
    want = [run(packed) for packed in packs]
    mapped = jax.vmap(run)(stack)
    _, scanned = jax.lax.scan(lambda carry, packed: (carry, run(packed)), None, stack)
    for got in mapped, scanned:
        for i, one in enumerate(want):
            close(jax.tree.map(lambda leaf, i=i: leaf[i], got), one, DTYPE)
    assert_same(jax.tree.map(lambda leaf: leaf[1], stack), packs[1])


PACKS = [pack(sequences(some)) for some in LENGTHS]
of_all = lambda join: jax.tree.map(lambda *leaves: join(leaves), *PACKS)
CONCATENATED, STACKED = of_all(np.concatenate), of_all(np.stack)
CUT = jax.tree.map(lambda leaf: leaf[:2], PACKS[0])
FEWER_ROWS = dataclasses.replace(PACKS[0], lengths=CUT.lengths, starts=CUT.starts)
USES = {
    "packed_rnn": run,
    "PackedSequences.unpack": lambda packed: packed.unpack(packed.starts),
    "PackedSequences.at_ends": lambda packed: packed.at_ends(packed.starts),
    "windows": lambda packed: jaxrnn.windows(packed, 2),
    "concat_packed": lambda packed: concat_packed([packed]),
    "stack_packed": lambda packed: stack_packed([packed]),
}


@pytest.mark.parametrize("use", USES)
def test_only_whole_packs_are_used(use):
    whole = "must be a whole pack of 3 rows with 4 sequences, got PackedSequences"
    for packed, message in (
        (CONCATENATED, rf"{whole}\(12 sequences in 9 rows .* Join packs"),
        (CUT, rf"{whole}\(2 sequences in 2 rows .* use `stack_packed`"),
        (FEWER_ROWS, rf"{whole}\(4 sequences in 2 rows"),
        (
            STACKED,
            r"must be one pack, got a stack, with `starts` int32\[3, 3, 8\]. Map",
        ),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            USES[use](packed)
        assert str(caught.value).startswith(use.partition(".")[0])


def test_a_pack_that_is_divided_over_devices_is_refused():
    packed = pack(sequences(LENGTHS[0]), rows=4)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    divided = jax.shard_map(run, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
    with pytest.raises(ValueError, match=r"4 rows with 4 .*1 sequences in 1 rows"):
        jax.jit(divided)(packed)


@pytest.mark.slow
def test_sizes_that_are_symbolic_are_not_checked():
    unchecked = functools.partial(dataclasses.replace, rows=None, sequences=None)
    r, t, s = jax.export.symbolic_shape("r, t, s")
    sizes = {"inputs": (r, t), "starts": (r, t), "lengths": (r,)}
    sizes |= {name: (s,) for name in ("row", "offset", "sequence_length")}
    packed = pack(sequences(LENGTHS[0]))
    arrays = jax.tree.map(
        lambda axes, x: jax.ShapeDtypeStruct((*axes, *x.shape[len(axes) :]), x.dtype),
        {**sizes, "inputs": {"x": (r, t), "label": (r, t)}},
        {name: getattr(packed, name) for name in sizes},
        is_leaf=lambda x: isinstance(x, tuple),
    )
    program = jax.export.export(jax.jit(lambda packed: run(packed)[1]))(
        unchecked(dataclasses.replace(packed, **arrays))
    )
    for packed in PACKS[1], concat_packed(PACKS):
        close(program.call(unchecked(packed)), run(packed)[1], DTYPE)


OTHER = sequences([2])
REFUSALS = {
    "no_packs": (ValueError, "must hold at least one pack, got none", []),
    "a_pack": (TypeError, "must be a list of packs, got PackedSequences", PACKS[0]),
    "a_number": (TypeError, "must be a list of packs, got 3", 3),
    "arrays": (
        TypeError,
        r"`packs\[0\]` must be made by `pack_sequences` or",
        [np.ones(3)],
    ),
    "row_length": (
        ValueError,
        r"`packs\[1\].row_length` must be 8, got 7. It must match",
        [PACKS[0], pack(OTHER, row_length=7)],
    ),
    "time_major": (
        ValueError,
        r"`packs\[1\].time_major` must be False, got True. It must match",
        [PACKS[0], pack(OTHER, time_major=True)],
    ),
    "structure": (
        ValueError,
        r"`packs\[1\].inputs` must have the structure \{'label': \*, 'x':",
        [PACKS[0], pack([OTHER[0]["x"]])],
    ),
    "dtype": (
        ValueError,
        r"`packs\[1\].inputs\['x'\]` must have the dtype .* got float32",
        [PACKS[0], pack([{"x": np.ones((2, 2), np.float32), "label": 1}])],
    ),
    "step": (
        ValueError,
        r"`packs\[1\].inputs\['x'\]` must have the dtype and step shape of "
        r"float64\[3, 8, 2\], got float64\[3, 8, 4\]",
        [PACKS[0], pack([{"x": np.ones((2, 4)), "label": 1}])],
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.parametrize("join", [concat_packed, stack_packed])
def test_what_is_refused_and_how(join, name):
    error, message, packs = REFUSALS[name]
    with pytest.raises(error, match=message) as caught:
        join(packs)
    assert str(caught.value).startswith(f"{join.__name__}: ")


def test_packs_of_other_sizes_are_not_stacked():
    message = r"`packs\[1\]` must have as many rows and sequences as"
    with pytest.raises(ValueError, match=message):
        stack_packed([PACKS[0], pack(OTHER)])


@pytest.mark.parametrize("join", [concat_packed, stack_packed])
def test_traced_packs_are_refused(join):
    with pytest.raises(TypeError, match=r"`packs\[0\].* Call this function out"):
        jax.jit(lambda packed: join([packed]))(PACKS[0])
