"""Cells whose rows interact: every driver runs them as a loop over all rows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import StepByStep, assert_near, covering

import jaxrnn
from jaxrnn import FunctionCell, memory
from jaxrnn.testing import check_cell, make_setup
from jaxrnn.testing._oracle import unrolled

ROWS, TIME, UNITS = 4, 6, 3
LENGTHS = np.array([6, 2, 0, 4], np.int32)
RNG = np.random.default_rng(5)
X = RNG.normal(size=(ROWS, TIME, UNITS))
STATE = RNG.normal(size=(ROWS, UNITS))
MASK = RNG.random((ROWS, TIME)) < 0.6
MASK[:, 3] = False
RESETS = RNG.random((ROWS, TIME)) < 0.3
close = functools.partial(assert_near, tolerance=1e-12)


def scene(params, inputs, state, key=None):
    """Agents see the mean of all agents."""
    seen = jnp.mean(inputs + state, axis=0, keepdims=True)
    new = jnp.tanh(inputs + 0.5 * state + seen)
    return new + seen, new


CELL = FunctionCell(scene, UNITS, UNITS, rows_interact=True)
BOUND = CELL.bind({})


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


VALID = np.arange(TIME) < LENGTHS[:, None]
WAYS = {
    "whole": ({}, np.ones_like(MASK)),
    "lengths": ({"sequence_length": LENGTHS}, VALID),
    "mask": ({"mask": MASK}, MASK),
    "front_mask": ({"mask": VALID}, VALID),
}


CASES = covering(
    {
        "way": [*WAYS],
        "resets": [False, True],
        "swap_memory": [False, memory.Recompute(2)],
        "time_major": [False, True],
    }
)


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: "-".join(map(str, case.values()))
)
def test_dynamic_rnn_is_the_loop_over_all_rows(case):
    way, has_resets, swap_memory, time_major = case.values()
    options, valid = WAYS[way]
    # Resets past a length are ignored; those at masked steps are not.
    resets = RESETS & (valid | (way != "lengths")) if has_resets else None
    turn = lambda x: np.swapaxes(x, 0, 1) if time_major else x
    given = RESETS if has_resets else None
    of_steps = {"mask": options.get("mask"), "resets": given}
    options = options | {k: turn(v) for k, v in of_steps.items() if v is not None}
    options |= {"swap_memory": swap_memory, "time_major": time_major}
    padded = turn(np.where(valid[..., None], X, np.nan))
    run = functools.partial(jaxrnn.dynamic_rnn, BOUND, padded, initial_state=STATE)
    outputs, state, states = run(return_states=True, **options)
    close((turn(outputs), state, turn(states)), loop(valid, resets))


@pytest.mark.parametrize("wrap", [lambda cell: cell, StepByStep])
def test_static_drivers_and_protocol_cells(wrap):
    cell, steps = wrap(BOUND), list(np.swapaxes(X, 0, 1))
    outputs, state = jaxrnn.static_rnn(cell, steps, STATE, sequence_length=LENGTHS)
    close((np.stack(outputs, 1), state), loop(VALID)[:2])
    outputs, *states = jaxrnn.static_bidirectional_rnn(
        cell, cell, steps, STATE, STATE, sequence_length=LENGTHS
    )
    run = jaxrnn.bidirectional_dynamic_rnn
    want, want_states = run(BOUND, BOUND, X, LENGTHS, STATE, STATE)
    close((np.stack(outputs, 1), states), (np.concatenate(want, -1), want_states))


def test_a_backward_run_with_a_mask_keeps_rows_in_step():
    (_, backward), (_, state) = jaxrnn.bidirectional_dynamic_rnn(
        BOUND, BOUND, X, None, STATE, STATE, mask=MASK
    )
    close((backward[:, ::-1], state), loop(MASK[:, ::-1], xs=X[:, ::-1])[:2])


def test_a_stack_with_a_wrapper_whose_rows_interact_is_scanned():
    class Crowd(jaxrnn.extend.WrapperCell):
        rows_interact = True

        def apply(self, params, inputs, state, key=None):
            crowd = state.mean(0, keepdims=True)
            return self.cell.apply(params, inputs + crowd, state, key)

    cell = jaxrnn.MultiRNNCell(
        [Crowd(jaxrnn.BasicRNNCell(UNITS)), jaxrnn.GRUCell(UNITS)]
    )
    assert cell.rows_interact
    assert jaxrnn.DropoutWrapper(cell, 0.5).rows_interact
    setup = make_setup(cell, X[:, 0], "float64")
    given = setup.params, X, setup.state, LENGTHS
    assert_near(setup.run(*given), unrolled(setup, *given), tolerance=1e-9)


def test_a_symbolic_number_of_steps_with_a_mask():
    (time,) = jax.export.symbolic_shape("time")
    run = lambda x, mask: jaxrnn.dynamic_rnn(BOUND, x, initial_state=STATE, mask=mask)
    x = jax.ShapeDtypeStruct((ROWS, time, UNITS), X.dtype)
    mask = jax.ShapeDtypeStruct((ROWS, time), bool)
    exported = jax.export.export(jax.jit(run))(x, mask)
    close(exported.call(X, MASK), loop(MASK)[:2])


@pytest.mark.slow
def test_the_laws_hold():
    check_cell(CELL, jax.ShapeDtypeStruct((5, UNITS), "float64"), jnp.float64)
