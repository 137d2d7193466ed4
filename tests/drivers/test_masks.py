"""Masks with gaps, and the states of all steps, beyond the laws of both."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound, eqns

import jaxrnn
from jaxrnn._base.trees import ReadOnly
from jaxrnn.testing import make_setup
from jaxrnn.testing._oracle import StepByStep, unrolled_states

BATCH, TIME, DEPTH = 5, 7, 3
X = np.random.default_rng(0).normal(size=(BATCH, TIME, DEPTH))
MASK = np.random.default_rng(1).random((BATCH, TIME)) < 0.6
MASK[0], MASK[1] = False, True
LENGTHS = np.array([0, 7, 3, 1, 2], np.int32)
NO_GAPS = np.arange(TIME) < LENGTHS[:, None]
RESETS = np.random.default_rng(3).random((BATCH, TIME)) < 0.5
CELL = jaxrnn.LSTMCell(4, use_peepholes=True, num_proj=2)
STATES = {"dtype": "float64", "return_states": True}
close = functools.partial(chex.assert_trees_all_close, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("time_major", [False, True])
def test_a_reset_at_a_masked_step_takes_effect_at_the_next_valid_step(time_major):
    """With a traced mask, whose values do not select the program."""
    setup = make_setup(CELL, X[:, 0], "float64")
    turn = lambda x: jnp.swapaxes(x, 0, 1) if time_major else x

    @jax.jit
    def run(x, mask, resets):
        options = {"mask": mask, "resets": resets, "time_major": time_major}
        cell = setup.bind()
        return jaxrnn.dynamic_rnn(cell, x, None, setup.state, **options, **STATES)

    padded = np.where(MASK[..., None], X, np.nan)
    outputs, state, states = run(*map(turn, (padded, MASK, RESETS)))
    moved = np.zeros_like(RESETS)
    for b in range(BATCH):
        pending = False
        for t in range(TIME):
            pending |= RESETS[b, t]
            if MASK[b, t]:
                moved[b, t], pending = pending, False
    zeros = CELL.zero_state(BATCH, jnp.float64)
    args = setup, setup.params, X, setup.state, None, MASK, moved, zeros
    got = turn(outputs), state, jax.tree.map(turn, states)
    close(got, unrolled_states(*args))


def test_a_known_mask_without_gaps_is_lengths():
    cell = bound(CELL)
    run = lambda **given: jaxrnn.dynamic_rnn(cell, X, dtype="float64", **given)
    program = lambda **given: str(jax.make_jaxpr(lambda: run(**given))())
    of_lengths = program(sequence_length=LENGTHS)
    assert program(mask=NO_GAPS) == of_lengths != program(mask=MASK)
    want = run(sequence_length=LENGTHS)
    chex.assert_trees_all_equal(run(mask=jnp.asarray(NO_GAPS)), want)
    traced = jax.jit(lambda mask: run(mask=mask))(NO_GAPS)
    close(traced, want)


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
    # Read backward, a segment begins at its last step, and the first from the state.
    counted = RESETS & flip(flip(mask).cumsum(1) > 0)
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
        close(of_lengths, got[:2])


def test_backward_states_past_the_lengths():
    """Each state is a sum of 1 to 5 in reverse, plus the initial state."""
    add = lambda params, inputs, state, key=None: (inputs, inputs + state)
    cell = jaxrnn.FunctionCell(add, 1, 1).bind({})
    x = np.broadcast_to(np.arange(1.0, 6)[:, None], (2, 5, 1))
    states = {f"initial_state_{way}": np.full((2, 1), 100.0) for way in ("fw", "bw")}
    run = functools.partial(jaxrnn.bidirectional_dynamic_rnn, return_states=True)
    *_, (_, states) = run(cell, cell, x, [3, 0], **states)
    assert (states[..., 0] - 100).tolist() == [[6, 5, 3, 6, 6], [0] * 5]


def test_vmap_and_little_memory():
    run = lambda mask, **options: jaxrnn.dynamic_rnn(
        bound(CELL), X, mask=mask, **options, **STATES
    )
    masks = np.stack([MASK, MASK[::-1]])
    got = jax.vmap(lambda mask: run(mask, swap_memory=True))(masks)
    want = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(run, masks))
    close(got, want)


@pytest.mark.parametrize("shape", [(0, TIME), (BATCH, 0)])
def test_no_rows_or_no_steps(shape):
    x, mask = np.zeros((*shape, DEPTH)), np.zeros(shape, bool)
    run = jax.jit(lambda mask: jaxrnn.dynamic_rnn(bound(CELL), x, mask=mask, **STATES))
    outputs, state, states = run(mask)
    assert (outputs.shape, states.c.shape) == ((*shape, 2), (*shape, 4))
    assert not state.c.any()


def test_the_loops_are_those_of_lengths():
    """The loop with a mask has no more selects than the loop with lengths."""

    def loops(**given):
        run = functools.partial(jaxrnn.dynamic_rnn, bound(CELL), X, dtype="float64")
        program = jax.make_jaxpr(lambda given: run(**given))(given)
        scans = [e for e in eqns(program) if e.primitive.name == "scan"]
        return [str(e.params["jaxpr"]) for e in scans]

    assert loops(mask=MASK) == loops(sequence_length=jnp.full(BATCH, 3))


def test_keys_in_the_state():
    """Masked steps keep the keys in a state, like its numbers."""
    fold = jax.vmap(lambda key: jax.random.fold_in(key, 1))
    step = lambda params, inputs, keys, key=None: (inputs, fold(keys))
    cell = jaxrnn.FunctionCell(step, (), DEPTH).bind({})
    after = [jax.random.split(jax.random.key(0), BATCH)]
    for _ in range(TIME):
        after.append(fold(after[-1]))
    run = jaxrnn.dynamic_rnn
    _, last, keys = run(cell, X, mask=MASK, initial_state=after[0], **STATES)
    table = jax.random.key_data(jnp.stack(after))
    want = table[np.cumsum(MASK, axis=1), np.arange(BATCH)[:, None]]
    np.testing.assert_array_equal(jax.random.key_data(keys), want)
    np.testing.assert_array_equal(jax.random.key_data(last), want[:, -1])


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
    run = jaxrnn.dynamic_rnn
    _, (total, memory) = run(cell, X, mask=MASK, initial_state=state, dtype="float64")
    np.testing.assert_allclose(total[:, 0], 2 * np.where(MASK, X[..., 0], 0).sum(1))
    assert memory.value == 2


# The states of all steps


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("wrap", [lambda cell: cell, StepByStep], ids=["loop", "steps"])
def test_states_of_lists_of_steps(wrap, lengths):
    setup, steps = make_setup(CELL, X[:, 0], jnp.float64), list(np.swapaxes(X, 0, 1))
    options = {"sequence_length": lengths, "return_states": True}
    run = jaxrnn.static_rnn
    outputs, last, states = run(wrap(setup.bind()), steps, setup.state, **options)
    assert isinstance(states, list)
    stacked = lambda steps: jax.tree.map(lambda *s: jnp.stack(s, 1), *steps)
    want = unrolled_states(setup, setup.params, X, setup.state, lengths)
    close((stacked(outputs), last, stacked(states)), want)


def test_states_of_packed_sequences():
    cell, packed = bound(CELL), jaxrnn.pack_sequences(X, LENGTHS)
    outputs, last, states = jaxrnn.packed_rnn(cell, packed, **STATES)
    want = jaxrnn.dynamic_rnn(cell, X, LENGTHS, **STATES)
    only = lambda tree: jax.tree.map(
        lambda s: jnp.where(NO_GAPS[..., None], s, 0), tree
    )
    got = packed.unpack(outputs), last, only(packed.unpack(states))
    close(got, (*want[:2], only(want[2])))


def test_states_have_the_dtype_of_the_state():
    cell, x = bound(CELL, dtype="bfloat16"), X.astype(jnp.bfloat16)
    _, _, states = jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype, return_states=True)
    assert (states.c.dtype, states.c.shape) == (jnp.bfloat16, (BATCH, TIME, 4))
