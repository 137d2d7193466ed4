"""Masks with gaps, resets, and the states of all steps, beyond the laws of them."""

import functools
import importlib.util

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound, differentiated, drawn_like, eqns
from hypothesis.extra.numpy import arrays

import jaxrnn
from jaxrnn._base.trees import ReadOnly
from jaxrnn.memory import Offload, Recompute
from jaxrnn.testing import make_setup
from jaxrnn.testing._oracle import unrolled, unrolled_states

BATCH, TIME, DEPTH = 5, 7, 3
X = np.random.default_rng(0).normal(size=(BATCH, TIME, DEPTH))
MASK = np.random.default_rng(1).random((BATCH, TIME)) < 0.6
MASK[0], MASK[1] = False, True
MASK[4, 0] = False  # A row whose first step is masked.
LENGTHS = np.array([0, 7, 3, 1, 2], np.int32)
NO_GAPS = np.arange(TIME) < LENGTHS[:, None]
RESETS = np.random.default_rng(4).random((BATCH, TIME)) < 0.5
CELL = jaxrnn.LSTMCell(4, use_peepholes=True, num_proj=2)
F64 = "float64"
STATES = {"dtype": F64, "return_states": True}
close = functools.partial(chex.assert_trees_all_close, rtol=1e-9, atol=1e-9)


def test_a_reset_takes_effect_at_a_masked_step():
    """With a traced mask, whose values do not select the program."""
    setup = make_setup(CELL, X[:, 0], "float64")
    turn = lambda x: jnp.swapaxes(x, 0, 1)

    @jax.jit
    def run(x, **given):
        options = {"time_major": True, **given, **STATES}
        return jaxrnn.dynamic_rnn(setup.bind(), x, None, setup.state, **options)

    padded = np.where(MASK[..., None], X, np.nan)
    outputs, *last = run(turn(padded), mask=turn(MASK), resets=turn(RESETS))
    zeros = CELL.zero_state(BATCH, jnp.float64)
    args = setup, setup.params, X, setup.state, None, MASK, RESETS, zeros
    close((turn(outputs), last[0], jax.tree.map(turn, last[1])), unrolled_states(*args))


def test_a_known_mask_without_gaps_is_lengths():
    cell = bound(CELL)
    run = lambda **given: jaxrnn.dynamic_rnn(cell, X, dtype="float64", **given)
    # The number of operands shows that the mask is not an argument of a program.
    program = lambda **given: [
        (str(e.primitive), len(e.invars))
        for e in eqns(jax.make_jaxpr(lambda: run(**given))())
    ]
    of_lengths = program(sequence_length=LENGTHS)
    assert program(mask=NO_GAPS) == of_lengths != program(mask=MASK)
    want = run(sequence_length=LENGTHS)
    chex.assert_trees_all_equal(run(mask=jnp.asarray(NO_GAPS)), want)
    close(jax.jit(lambda mask: run(mask=mask))(NO_GAPS), want)


def test_every_leaf_of_a_state_has_rows_if_there_is_a_mask():
    count = lambda params, x, n, key=None: (x, n + 1)
    cell = jaxrnn.FunctionCell(count, jaxrnn.TensorShape([]), DEPTH).bind({})
    run = functools.partial(jaxrnn.dynamic_rnn, cell, X, initial_state=np.float64(0))
    assert int(run(sequence_length=LENGTHS)[1]) == LENGTHS.max()
    for given in ({"mask": NO_GAPS}, {"mask": MASK}, {"return_states": True}):
        with pytest.raises(ValueError, match=r"`state` must be an array \[batch, "):
            run(**given)


@pytest.mark.fast("False-gaps")
@pytest.mark.parametrize("mask", [MASK, NO_GAPS], ids=["gaps", "no gaps"])
@pytest.mark.parametrize("traced", [False, True])
def test_both_directions(mask, traced):
    """The backward direction equals a forward run over reversed rows."""
    fw, bw = bound(CELL), bound(CELL, seed=1)
    first = jax.tree.map(np.ones_like, fw.zero_state(BATCH, "float64"))
    options = {"mask": mask, "resets": RESETS}
    both = lambda options: jaxrnn.bidirectional_dynamic_rnn(
        fw, bw, X, None, first, first, **options, **STATES
    )
    got = (jax.jit(both) if traced else both)(options)
    flip = lambda x: x[:, ::-1]
    # Read backward, a part begins at its last step, and the first from the state. Only
    # resets between valid steps count.
    counted = RESETS & flip(flip(mask).cumsum(1) > 0) & (mask.cumsum(1) - mask > 0)
    ends = np.pad(counted[:, 1:], ((0, 0), (0, 1)))
    flipped = {"mask": flip(mask), "resets": flip(ends)}
    run = functools.partial(jaxrnn.dynamic_rnn, initial_state=first, **STATES)
    output, state, states = run(bw, flip(X), **flipped)
    backward = flip(output), state, jax.tree.map(flip, states)
    forward = run(fw, X, **options)
    close(got, tuple(zip(forward, backward, strict=True)))
    if mask is NO_GAPS:
        of_lengths = jaxrnn.bidirectional_dynamic_rnn(
            fw, bw, X, LENGTHS, first, first, "float64", resets=RESETS
        )
        options["resets"] = RESETS & NO_GAPS  # Others are ignored beside lengths.
        close(of_lengths, both(options)[:2])


def test_backward_states_past_the_lengths():
    """Each state is a sum of 1 to 5 in reverse, plus the initial state."""
    add = lambda params, inputs, state, key=None: (inputs, inputs + state)
    cell = jaxrnn.FunctionCell(add, 1, 1).bind({})
    x = np.broadcast_to(np.arange(1.0, 6)[:, None], (2, 5, 1))
    states = {f"initial_state_{way}": np.full((2, 1), 100.0) for way in ("fw", "bw")}
    run = functools.partial(jaxrnn.bidirectional_dynamic_rnn, return_states=True)
    *_, (_, states) = run(cell, cell, x, [3, 0], **states)
    assert (states[..., 0] - 100).tolist() == [[6, 5, 3, 6, 6], [0] * 5]


def test_the_loops_are_those_of_lengths():
    """The loop with a mask has no more selects than the loop with lengths."""

    def loops(**given):
        run = functools.partial(jaxrnn.dynamic_rnn, bound(CELL), X, dtype="float64")
        program = jax.make_jaxpr(lambda given: run(**given))(given)
        scans = [e for e in eqns(program) if e.primitive.name == "scan"]
        return [str(e.params["jaxpr"]) for e in scans]

    assert loops(mask=MASK) == loops(sequence_length=jnp.full(BATCH, 3))


FOLD = jax.vmap(lambda key: jax.random.fold_in(key, 1))
KEYED = jaxrnn.FunctionCell(lambda p, x, keys, key=None: (x, FOLD(keys)), (), DEPTH)
KEYED = KEYED.bind({})
KEYS, OTHER_KEYS = (jax.random.split(jax.random.key(n), BATCH) for n in range(2))


def folded(keys):
    """The keys after 0 to all steps."""
    after = [keys]
    for _ in range(TIME):
        after.append(FOLD(after[-1]))
    return jnp.stack(after)


def test_keys_in_the_state():
    """Masked steps keep the keys in a state, like its numbers."""
    run = functools.partial(jaxrnn.dynamic_rnn, KEYED, X, mask=MASK)
    _, last, keys = run(initial_state=KEYS, **STATES)
    want = folded(KEYS)[np.cumsum(MASK, axis=1), np.arange(BATCH)[:, None]]
    assert (keys == want).all()
    assert (last == want[:, -1]).all()


def in_a_stream(resets):
    stream = jaxrnn.export.Streamer(KEYED, BATCH, initial_state=KEYS)
    for t in range(TIME):
        stream(X[:, t], resets=resets[:, t], reset_state=OTHER_KEYS)
    return stream.state


def in_a_driver(resets):
    given = {"resets": resets, "reset_state": OTHER_KEYS, "initial_state": KEYS}
    return jaxrnn.dynamic_rnn(KEYED, X, dtype=F64, **given)[1]


@pytest.mark.parametrize("run", [in_a_stream, in_a_driver])
def test_keys_after_resets(run):
    """A row that is reset draws from its new key."""
    old, new = folded(KEYS), folded(OTHER_KEYS)
    ends = [np.flatnonzero(row) for row in MASK]
    want = [new[TIME - t[-1], b] if len(t) else old[-1, b] for b, t in enumerate(ends)]
    assert (run(MASK) == jnp.stack(want)).all()


def test_a_list_of_traced_rows():
    run = lambda mask: jaxrnn.dynamic_rnn(bound(CELL), X, mask=mask, dtype="float64")
    got = jax.jit(lambda rows: run(list(rows)))(list(MASK))
    close(got, run(MASK))


def test_read_only_parts_need_no_rows():
    def step(params, inputs, state, key=None):
        total, memory = state
        total += inputs[:, :1] * memory.value
        return total, (total, memory)

    cell = jaxrnn.FunctionCell(step, (1, 1), 1).bind({})
    state = np.zeros((BATCH, 1)), ReadOnly(jnp.float64(2))
    _, (total, memory) = jaxrnn.dynamic_rnn(cell, X, None, state, F64, mask=MASK)
    np.testing.assert_allclose(total[:, 0], 2 * np.where(MASK, X[..., 0], 0).sum(1))
    assert memory.value == 2


# Resets

CELLS = {
    "lstm": jaxrnn.LSTMCell(3, use_peepholes=True, num_proj=2),
    "gru": jaxrnn.GRUCell(2),
    "linear": jaxrnn.MinGRUCell(2),
    "scan": jaxrnn.BasicRNNCell(2),
}
NAMED = {"scan": "scan"}  # The implementation of a case; by default the cell's loop.


@pytest.fixture(autouse=True, scope="module")
def small_blocks():
    """Divide the steps of linear recurrences, so that resets are near boundaries."""
    with pytest.MonkeyPatch.context() as patch:
        if importlib.util.find_spec("jaxrnn._loops"):  # See `without_loops.py`.
            name = "jaxrnn._loops.linear.chunks.steps_in_chunk"
            patch.setattr(name, lambda *_: 4)
        yield


def states(cell, seed):
    """A random nonzero state."""
    return drawn_like(cell.zero_state(BATCH, "float64"), seed, scale=1.0)


@functools.partial(jax.jit, static_argnums=0)
def both(name, lengths, resets):
    """`dynamic_rnn` and the loop of the oracle."""
    setup = make_setup(CELLS[name], X[:, 0], jnp.float64)
    other = jax.tree.map(lambda s: s[::-1], setup.state)
    given = setup.params, X, setup.state, lengths
    options = {"resets": resets, "reset_state": other}
    return setup.run(*given, **options), unrolled(setup, *given, **options)


@pytest.mark.slow
@hypothesis.given(
    st.sampled_from(["lstm", "linear"]),
    arrays(bool, (BATCH, TIME)),
    arrays(np.int32, BATCH, elements=st.integers(-1, TIME + 2)),
)
@hypothesis.settings(max_examples=25)
def test_any_resets_and_lengths(name, resets, lengths):
    close(*both(name, lengths, resets))


@pytest.mark.fast("scan-*")
@pytest.mark.parametrize(
    ("name", "strategy"),
    [("gru", Recompute(4)), ("linear", Recompute(2)), ("scan", Offload())],
)
def test_memory_strategies(name, strategy):
    cell = bound(CELLS[name])

    def run(swap_memory):
        options = {"resets": RESETS, "swap_memory": swap_memory}
        options["implementation"] = NAMED.get(name)
        of_arrays = lambda cell, x, state, other: jaxrnn.dynamic_rnn(
            cell, x, LENGTHS, state, reset_state=other, **options
        )
        return differentiated(of_arrays, cell, X, states(cell, 1), states(cell, 2))

    close(run(strategy), run(False))


@pytest.mark.slow
def test_a_carried_state_is_not_what_rows_are_reset_to():
    """A rollout in parts, with the state carried over, equals the whole rollout."""
    run = functools.partial(jaxrnn.dynamic_rnn, bound(CELLS["gru"]), dtype="float64")
    want = run(X, resets=RESETS)
    first, state = run(X[:, :4], resets=RESETS[:, :4])
    second, state = run(X[:, 4:], initial_state=state, resets=RESETS[:, 4:])
    close((jnp.concatenate([first, second], 1), state), want)


def test_zeros_have_the_dtypes_of_the_carried_state():
    cell = bound(jaxrnn.MinGRUCell(2), dtype="float32")
    state, x = jnp.ones((BATCH, 2), jnp.float64), X.astype(np.float32)
    options = {"initial_state": state, "resets": RESETS | True}
    outputs, last = jaxrnn.dynamic_rnn(cell, x, dtype="float32", **options)
    assert (outputs.dtype, last.dtype) == (jnp.float32, jnp.float64)
    want, _ = cell(x[:, 5], jnp.zeros_like(state))
    np.testing.assert_allclose(outputs[:, 5], want, rtol=1e-5)


@pytest.mark.fast("linear")
@pytest.mark.parametrize("name", CELLS)
def test_nothing_crosses_a_reset(name):
    """Neither gradients nor NaN of the initial state, padding or a finished row."""
    cell = bound(CELLS[name])
    resets = np.broadcast_to(np.arange(TIME) % 3 == 0, (BATCH, TIME))
    lengths = np.array([7, 4, 5, 0, 6], np.int32)
    dead = np.arange(TIME) >= lengths[:, None]

    def after(cell, x, state):
        options = {"resets": resets, "implementation": NAMED.get(name)}
        outputs, _ = jaxrnn.dynamic_rnn(cell, x, lengths, state, F64, **options)
        return outputs[:, 3:]

    clean = after(cell, X, states(cell, 1))
    bad = jax.tree.map(lambda s: np.full_like(s, np.nan), states(cell, 1))
    padded = np.where(dead[..., None], np.nan, X)
    got, (of_cell, of_x, of_state) = differentiated(after, cell, padded, bad)
    close(got, clean)
    chex.assert_tree_all_finite((of_cell, of_x))
    assert not any(jnp.any(s) for s in jax.tree.leaves(of_state))
    assert not of_x[:, :3].any()
    assert of_x[:3, 3].any(-1).all()


@pytest.mark.fast("linear-*")
@pytest.mark.parametrize(("name", "given"), [("lstm", "mask"), ("linear", "resets")])
def test_vmap_and_checkpoint(name, given):
    cell, rows = bound(CELLS[name]), {"mask": MASK, "resets": RESETS}[given]
    run = lambda rows, **options: jaxrnn.dynamic_rnn(
        cell, X, **{given: rows}, **options, **STATES
    )
    both = np.stack([rows, rows[::-1]])
    again = jax.checkpoint(functools.partial(run, swap_memory=True))
    want = jax.tree.map(lambda *parts: jnp.stack(parts), *map(run, both))
    close(jax.jit(jax.vmap(again))(both), want)


# The states of all steps


@pytest.mark.fast("xla-lengths1", "scan-lengths1")
@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("implementation", ["xla", "scan"])
def test_states_of_lists_of_steps(implementation, lengths):
    setup, steps = make_setup(CELL, X[:, 0], jnp.float64), list(np.swapaxes(X, 0, 1))
    options = {"sequence_length": lengths, "return_states": True}
    options["implementation"] = implementation
    run = jaxrnn.static_rnn
    outputs, last, states = run(setup.bind(), steps, setup.state, **options)
    assert isinstance(states, list)
    stacked = lambda steps: jax.tree.map(lambda *s: jnp.stack(s, 1), *steps)
    want = unrolled_states(setup, setup.params, X, setup.state, lengths)
    close((stacked(outputs), last, stacked(states)), want)


def test_states_have_the_dtype_of_the_state():
    cell, x = bound(CELL, dtype="bfloat16"), X.astype(jnp.bfloat16)
    _, _, states = jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype, return_states=True)
    assert (states.c.dtype, states.c.shape) == (jnp.bfloat16, (BATCH, TIME, 4))
