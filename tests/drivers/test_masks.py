"""Masks with gaps and the states of all steps; cells whose rows interact.

`test_windows_of_steps.py` has the resets.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import StepByStep, bound, eqns

import jaxrnn
from jaxrnn._base.trees import ReadOnly
from jaxrnn.memory import Recompute
from jaxrnn.testing import make_setup
from jaxrnn.testing._oracle import unrolled_states

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


@pytest.mark.slow
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


# Rows interact: every driver runs a loop over all rows.

STATE = np.random.default_rng(5).normal(size=(BATCH, DEPTH))


def scene(params, inputs, state, key=None):
    """Agents see the mean of all agents."""
    seen = jnp.mean(inputs + state, axis=0, keepdims=True)
    new = jnp.tanh(inputs + 0.5 * state + seen)
    return new + seen, new


CROWD = jaxrnn.FunctionCell(scene, DEPTH, DEPTH, rows_interact=True).bind({})


def loop(valid, resets=None, state=STATE, xs=X):
    """Outputs, final state and all states, step by step in NumPy."""
    outputs, states = np.zeros_like(xs), np.zeros_like(xs)
    for t in range(xs.shape[1]):
        alive = valid[:, t, None]
        if resets is not None:
            state = np.where(resets[:, t, None], 0, state)
        inputs = np.where(alive, xs[:, t], 0)
        seen = (inputs + state).mean(0, keepdims=True)
        new = np.tanh(inputs + 0.5 * state + seen)
        outputs[:, t] = np.where(alive, new + seen, 0)
        state = states[:, t] = np.where(alive, new, state)
    return outputs, state, states


WAYS = {
    "whole": ({}, np.ones_like(MASK)),
    "lengths": ({"sequence_length": LENGTHS}, NO_GAPS),
    "mask": ({"mask": MASK}, MASK),
    "front_mask": ({"mask": NO_GAPS}, NO_GAPS),
}
INTERACTING = [
    ("whole", False, False, False),
    ("lengths", True, False, True),
    ("mask", True, Recompute(2), True),
    ("front_mask", False, Recompute(2), False),
]


@pytest.mark.fast("mask-*")
@pytest.mark.parametrize(
    ("way", "resets", "swap_memory", "time_major"), INTERACTING, ids=str
)
def test_rows_that_interact(way, resets, swap_memory, time_major):
    options, valid = WAYS[way]
    turn = lambda x: np.swapaxes(x, 0, 1) if time_major else x
    of_steps = {"mask": options.get("mask"), "resets": RESETS if resets else None}
    options = options | {k: turn(v) for k, v in of_steps.items() if v is not None}
    options |= {"swap_memory": swap_memory, "time_major": time_major}
    padded = turn(np.where(valid[..., None], X, np.nan))
    run = functools.partial(jaxrnn.dynamic_rnn, CROWD, padded, initial_state=STATE)
    outputs, state, states = run(return_states=True, **options)
    # Resets past a length are ignored; those at masked steps are not.
    counted = RESETS & (valid | (way != "lengths")) if resets else None
    close((turn(outputs), state, turn(states)), loop(valid, counted))


@pytest.mark.parametrize("wrap", [lambda cell: cell, StepByStep])
def test_rows_that_interact_over_a_list_of_steps(wrap):
    steps = list(np.swapaxes(X, 0, 1))
    run = functools.partial(jaxrnn.static_rnn, wrap(CROWD), steps, STATE)
    outputs, state = run(sequence_length=LENGTHS)
    close((np.stack(outputs, 1), state), loop(NO_GAPS)[:2])


def test_a_backward_run_with_a_mask_keeps_rows_in_step():
    (_, backward), (_, state) = jaxrnn.bidirectional_dynamic_rnn(
        CROWD, CROWD, X, None, STATE, STATE, mask=MASK
    )
    close((backward[:, ::-1], state), loop(MASK[:, ::-1], xs=X[:, ::-1])[:2])
