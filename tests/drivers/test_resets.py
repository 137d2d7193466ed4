"""Resets within a run, against a Python loop over `cell.apply`."""

import functools
import itertools

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound, differentiated
from hypothesis.extra.numpy import arrays
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import jaxrnn
from jaxrnn import memory
from jaxrnn._loops import linear_recurrence as linear

BATCH, TIME, DEPTH = 4, 6, 3
X = np.random.default_rng(0).normal(size=(BATCH, TIME, DEPTH))
# Resets at the first step, the last, several or all steps, even past row 3's end.
RESETS = np.zeros((BATCH, TIME), bool)
RESETS[0, 0] = RESETS[1, -1] = RESETS[2, 2:4] = RESETS[3] = True
LENGTHS = np.array([6, 6, 5, 3], np.int32)


def step_of_sums(params, inputs, state, key=None):
    state = jnp.tanh(params["w"] @ state[..., None])[..., 0] + inputs
    return state, state


def init_sums(key, inputs, dtype):
    return {"w": jnp.zeros((DEPTH, DEPTH), dtype)}


CELLS = {
    "lstm": jaxrnn.LSTMCell(3, use_peepholes=True, num_proj=2),
    "gru": jaxrnn.GRUCell(2),
    "stack": jaxrnn.MultiRNNCell([jaxrnn.GRUCell(2), jaxrnn.BasicLSTMCell(2)]),
    "linear": jaxrnn.MinGRUCell(2),
    "function": jaxrnn.FunctionCell(step_of_sums, DEPTH, DEPTH, init_sums),
}
close = functools.partial(chex.assert_trees_all_close, rtol=1e-9, atol=1e-12)


def states(cell, seed):
    """A random nonzero state."""
    draw = np.random.default_rng(seed).normal
    return jax.tree.map(lambda s: draw(size=s.shape), cell.zero_state(BATCH, "float64"))


def loop(cell, x, lengths, state, resets, reset_state):
    """Run the rows one by one, so that no step is masked."""
    rows = []
    for b in range(BATCH):
        row = lambda tree, b=b: jax.tree.map(lambda x: x[b : b + 1], tree)
        s, outputs = row(state), []
        for t in range(int(np.clip(lengths[b], 0, TIME))):
            s = row(reset_state) if resets[b, t] else s
            output, s = cell(x[b : b + 1, t], s)
            outputs.append(output[0])
        outputs += [jnp.zeros(cell.output_size)] * (TIME - len(outputs))
        rows.append((jnp.stack(outputs), jax.tree.map(lambda s: s[0], s)))
    return jax.tree.map(lambda *parts: jnp.stack(parts), *rows)


@hypothesis.given(
    st.sampled_from(["lstm", "linear"]),
    arrays(bool, (BATCH, TIME)),
    arrays(np.int32, BATCH, elements=st.integers(-1, TIME + 2)),
)
@hypothesis.settings(max_examples=10)
def test_any_resets_and_lengths(name, resets, lengths):
    cell = bound(CELLS[name])
    state, other = states(cell, 1), states(cell, 2)
    options = {"resets": resets, "reset_state": other}
    got = jaxrnn.dynamic_rnn(cell, X, lengths, state, **options)
    close(got, loop(cell, X, lengths, state, resets, other))


STRATEGIES = {
    "recompute": memory.Recompute(4),
    "nested": memory.Nested(2),
    "offload": memory.Offload(memory.Recompute(2)),
}


@pytest.mark.fast("gru-recompute")
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", ["gru", "linear", "function"])
def test_memory_strategies(name, strategy):
    cell = bound(CELLS[name])

    def run(swap_memory):
        def of_arrays(cell, x, state, other):
            options = {"reset_state": other, "swap_memory": swap_memory}
            args = cell, x, LENGTHS, state
            return jaxrnn.dynamic_rnn(*args, resets=RESETS, **options)

        given = cell, X, states(cell, 1), states(cell, 2)
        return differentiated(of_arrays, *given)

    close(run(STRATEGIES[strategy]), run(False))


LINEAR = {
    "mingru": jaxrnn.MinGRUCell(2),
    "minlstm": jaxrnn.MinLSTMCell(2),
    "qrnn": jaxrnn.QRNNCell(2),
    "rg_lru": jaxrnn.RGLRUCell(3),
    "lru": jaxrnn.LRUCell(3),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LINEAR)
def test_resets_around_the_boundaries_of_blocks(name, monkeypatch):
    """Resets near the boundaries of 256-step blocks, compared with separate runs."""
    monkeypatch.setattr(linear, "steps_in_block", lambda state, platform: 256)
    starts = [0, 255, 256, 257, 512, 1023, 1025, 1792, 2047]
    lengths = np.diff([*starts, 2048])
    cell, rng = bound(LINEAR[name]), np.random.default_rng(0)
    episodes = [rng.normal(size=(length, DEPTH)) for length in lengths]
    # Each episode is a row, so only the longest one has more than one block.
    rows = np.zeros((len(starts), 767, DEPTH))
    for row, episode in zip(rows, episodes, strict=True):
        row[: len(episode)] = episode

    def joined(cell, x):
        resets = np.isin(np.arange(2048), starts)[None]
        return jaxrnn.dynamic_rnn(cell, x, dtype="float64", resets=resets)[0][0]

    def apart(cell, x):
        outputs = jaxrnn.dynamic_rnn(cell, x, lengths, dtype="float64")[0]
        return jnp.concatenate([y[:n] for y, n in zip(outputs, lengths, strict=True)])

    got, (of_cell, of_x) = differentiated(joined, cell, np.concatenate(episodes)[None])
    want, (want_of_cell, of_rows) = differentiated(apart, cell, rows)
    of_rows = [x[:n] for x, n in zip(of_rows, lengths, strict=True)]
    want = want, want_of_cell, jnp.concatenate(of_rows)
    close((got, of_cell, of_x[0]), want, atol=1e-10)


def test_a_carried_state_is_not_what_rows_are_reset_to():
    """A rollout in parts, with the state carried over, equals the whole rollout."""
    cell = bound(CELLS["stack"])
    run = functools.partial(jaxrnn.dynamic_rnn, cell, dtype="float64")
    want = run(X, resets=RESETS)
    first, state = run(X[:, :4], resets=RESETS[:, :4])
    second, state = run(X[:, 4:], initial_state=state, resets=RESETS[:, 4:])
    close((jnp.concatenate([first, second], 1), state), want)
    zeros = cell.zero_state(BATCH, "float64")
    close(want, loop(cell, X, [TIME] * BATCH, zeros, RESETS, zeros))


def test_zeros_have_the_dtypes_of_the_carried_state():
    cell = bound(jaxrnn.MinGRUCell(2), dtype="float32")
    state, x = jnp.ones((BATCH, 2), jnp.float64), X.astype(np.float32)
    run = functools.partial(jaxrnn.dynamic_rnn, cell, x, dtype="float32")
    outputs, last = run(initial_state=state, resets=jnp.ones((BATCH, TIME), bool))
    assert (outputs.dtype, last.dtype) == (jnp.float32, jnp.float64)
    for t in range(TIME):
        want, _ = cell(x[:, t], jnp.zeros_like(state))
        np.testing.assert_allclose(outputs[:, t], want, rtol=1e-5)


@pytest.mark.fast("linear", "function")
@pytest.mark.parametrize("name", CELLS)
def test_nothing_crosses_a_reset(name):
    """Neither gradients nor NaN of the initial state, padding or a finished row."""
    cell = bound(CELLS[name])
    resets = np.zeros((BATCH, TIME), bool)
    resets[:, 0] = resets[:, 3] = True
    lengths = np.array([6, 4, 5, 0], np.int32)
    dead = np.arange(TIME) >= lengths[:, None]

    def after(cell, x, state):
        options = {"resets": resets, "dtype": "float64"}
        outputs, _ = jaxrnn.dynamic_rnn(cell, x, lengths, state, **options)
        return outputs[:, 3:]

    clean, _ = differentiated(after, cell, X, states(cell, 1))
    bad = jax.tree.map(lambda s: np.full_like(s, np.nan), states(cell, 1))
    padded = np.where(dead[..., None], np.nan, X)
    got, (of_cell, of_x, of_state) = differentiated(after, cell, padded, bad)
    close(got, clean)
    chex.assert_tree_all_finite((of_cell, of_x))
    assert not any(jnp.any(s) for s in jax.tree.leaves(of_state))
    assert not of_x[:, :3].any()
    assert of_x[:3, 3].any(-1).all()
    # A reset also restarts a row that computed NaN.
    padded[0, 1] = np.nan
    got, (_, of_x, _) = differentiated(after, cell, padded, bad)
    close(got, clean)
    chex.assert_tree_all_finite(of_x[:, 3:])


@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_no_steps(name, time_major):
    """The state does not change, so no gradient reaches `reset_state`."""
    cell, shape = bound(CELLS[name]), (0, BATCH) if time_major else (BATCH, 0)

    def run(state, other):
        x, options = jnp.zeros((*shape, DEPTH)), {"time_major": time_major}
        args = cell, x, [0] * BATCH, state, None, None, False
        options |= {"resets": np.zeros(shape, bool), "reset_state": other}
        return jaxrnn.dynamic_rnn(*args, **options)

    given = states(cell, 1), states(cell, 2)
    (outputs, state), (of_state, of_other) = differentiated(run, *given)
    assert outputs.shape == (*shape, cell.output_size)
    chex.assert_trees_all_equal(state, given[0])
    assert all(np.all(leaf != 0) for leaf in jax.tree.leaves(of_state))
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(of_other))


def test_no_steps_of_two_directions():
    cell = bound(CELLS["lstm"])
    args, resets = (
        (cell, cell, jnp.zeros((BATCH, 0, DEPTH))),
        np.zeros((BATCH, 0), bool),
    )
    run = jaxrnn.bidirectional_dynamic_rnn
    (fw, bw), pair = run(*args, dtype="float64", resets=resets)
    assert fw.shape == bw.shape == (BATCH, 0, 2)
    zeros = cell.zero_state(BATCH, "float64")
    chex.assert_trees_all_equal(pair, (zeros, zeros))


@pytest.mark.slow
def test_both_directions_read_segments_apart():
    cells = bound(CELLS["gru"], seed=1), bound(CELLS["lstm"], seed=2)
    ends = states(cells[0], 1), states(cells[1], 2)
    (fw, bw), last = jaxrnn.bidirectional_dynamic_rnn(
        *cells, X, LENGTHS, *ends, dtype="float64", resets=RESETS
    )
    for b, n in enumerate(LENGTHS):
        starts = [0, *(t for t in range(1, n) if RESETS[b, t]), n]
        for start, stop in itertools.pairwise(starts):
            x, row = X[b : b + 1, start:stop], lambda s, b=b: s[b : b + 1]
            zeros = [cell.zero_state(1, "float64") for cell in cells]
            is_first, is_last = start == 0 and not RESETS[b, 0], stop == n
            begin = [
                jax.tree.map(row, ends[0]) if is_first else zeros[0],
                jax.tree.map(row, ends[1]) if is_last else zeros[1],
            ]
            want, of_segment = jaxrnn.bidirectional_dynamic_rnn(
                *cells, x, None, *begin, dtype="float64"
            )
            got = fw[b : b + 1, start:stop], bw[b : b + 1, start:stop]
            close(got, want)
            if is_last:
                close(jax.tree.map(row, last[0]), of_segment[0])
            if start == 0:
                close(jax.tree.map(row, last[1]), of_segment[1])


def test_a_stack_reads_segments_apart():
    """In both layers, the second of two segments runs as if it were separate."""
    cells = [bound(CELLS["gru"], seed=1), bound(CELLS["gru"], depth=4, seed=2)]
    run = functools.partial(jaxrnn.stack_bidirectional_dynamic_rnn, cells, cells[::1])
    x, resets = np.swapaxes(X, 0, 1), np.zeros((TIME, BATCH), bool)
    resets[2] = True
    options = {"dtype": "float64", "time_major": True}
    outputs, _, _ = run(x, resets=resets, **options)
    want = [run(part, **options)[0] for part in (x[:2], x[2:])]
    close(outputs, jnp.concatenate(want))


@pytest.mark.fast("linear")
@pytest.mark.parametrize("name", ["lstm", "linear"])
def test_vmap_and_checkpoint(name):
    cell, resets = bound(CELLS[name]), np.stack([RESETS, RESETS[::-1]])
    run = lambda r, x: jaxrnn.dynamic_rnn(cell, x, LENGTHS, dtype="float64", resets=r)
    got = jax.jit(jax.vmap(jax.checkpoint(run), (0, None)))(resets, X)
    want = [run(r, X) for r in resets]
    close(got, jax.tree.map(lambda *parts: jnp.stack(parts), *want))


@pytest.mark.fast("lstm-AxisType.Explicit")
@pytest.mark.parametrize("kind", AxisType)
@pytest.mark.parametrize("name", ["lstm", "linear", "function"])
def test_rows_on_several_devices(name, kind):
    """Rows on a mesh, and in `shard_map` for the kind "Manual"."""
    cell = bound(CELLS[name])

    def run(cell, x, state, other, lengths, resets):
        options = {"resets": resets, "reset_state": other}
        return jaxrnn.dynamic_rnn(cell, x, lengths, state, **options)

    rows = X, states(cell, 1), states(cell, 2)
    want = differentiated(lambda *args: run(*args, LENGTHS, RESETS), cell, *rows)
    is_manual = kind is AxisType.Manual
    mesh = jax.make_mesh((2,), ("rows",), (AxisType.Auto if is_manual else kind,))
    put = functools.partial(jax.device_put, device=NamedSharding(mesh, P("rows")))
    ours = put(LENGTHS), put(RESETS)
    fn = run
    if is_manual:
        specs = (P(), *[P("rows")] * 5)
        fn = jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=P("rows"))
    with jax.set_mesh(mesh):
        whole = lambda *args: jax.tree.map(
            lambda y: jax.sharding.reshard(y, P()) if not is_manual else y,
            fn(*args, *ours),
        )
        close(differentiated(whole, cell, *put(rows)), want)


REFUSED = {
    "numbers": (TypeError, "be booleans, got int64", {"resets": RESETS.astype(int)}),
    "transposed": (
        ValueError,
        r"be \[batch, time\] like the inputs, \[4, 6\], got bool\[6, 4\]",
        {"resets": RESETS.T},
    ),
    "no_resets": (ValueError, "`resets` must be given", {"reset_state": 0.0}),
    "structure": (
        ValueError,
        "`reset_state` must have the structure",
        {"resets": RESETS, "reset_state": (0.0, 0.0)},
    ),
    "rows": (
        ValueError,
        r"`reset_state` must have the shape of the initial state, \(4, 2\), got",
        {"resets": RESETS, "reset_state": np.zeros(2)},
    ),
    "rows_of_the_initial_state": (
        ValueError,
        r"`the cell's zero state` must have the shape of the initial state, \(3, 2\)",
        {"resets": RESETS, "initial_state": np.zeros((3, 2))},
    ),
    "dtype": (
        TypeError,
        "`reset_state` must have the dtype of the initial state, float64",
        {"resets": RESETS, "reset_state": np.zeros((4, 2), np.float32)},
    ),
}


def test_a_reset_state_of_an_lstm_is_a_named_tuple():
    """The order of a plain pair (h, c), as in PyTorch, would swap the two arrays."""
    options = {"resets": RESETS, "reset_state": (np.zeros((4, 2)),) * 2}
    with pytest.raises(TypeError, match="`reset_state` must have"):
        jaxrnn.dynamic_rnn(bound(jaxrnn.LSTMCell(2)), X, dtype="float64", **options)


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    error, message, options = REFUSED[name]
    with pytest.raises(error, match=f"^dynamic_rnn: .*{message}"):
        jaxrnn.dynamic_rnn(bound(CELLS["gru"]), X, dtype="float64", **options)
