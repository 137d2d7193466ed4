"""Resets: windows give what one call gives, and nothing crosses a reset.

A reset takes effect at its step; at a masked step, nothing else happens. The expected
results are those of the oracle, a Python loop over steps.
"""

import dataclasses
import functools
import importlib.util

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, KINDS
from helpers import assert_near, bound, differentiated, draw, drawn_like

import jaxrnn
from jaxrnn.memory import Recompute
from jaxrnn.testing import _oracle, make_setup
from jaxrnn.testing._oracle import at_steps, close, unrolled_states

# The mask of row 0 is that of next-step autoreset: the step of the reset is masked. In
# row 1, a reset follows the last valid step. In row 2, no step is valid. In row 3,
# resets come before the first valid step, and twice in one gap. In row 4, all is valid.
MASK = np.array(
    [
        [1, 1, 0, 1, 1, 0, 1],
        [1, 1, 1, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0, 1],
        [1, 1, 1, 1, 1, 1, 1],
    ],
    bool,
)
RESETS = np.array(
    [
        [1, 0, 1, 0, 0, 1, 0],
        [0, 0, 1, 0, 0, 1, 0],
        [0, 0, 0, 1, 0, 0, 0],
        [0, 1, 0, 1, 1, 0, 0],
        [0, 0, 0, 1, 0, 0, 0],
    ],
    bool,
)
ROWS, TIME = MASK.shape


def mean_of_rows(params, inputs, state, key=None):
    new = jnp.tanh(inputs + state + jnp.mean(state, axis=0, keepdims=True))
    return new, new


CELLS = {name: CASES[name].cell for name in KINDS.values()} | {
    "short_conv": jaxrnn.ShortConvCell(3),
    "rows_interact": jaxrnn.FunctionCell(mean_of_rows, 3, 3, rows_interact=True),
}


@pytest.fixture(autouse=True, scope="module")
def small_blocks():
    """Divide the steps of linear recurrences, so that resets are near boundaries."""
    with pytest.MonkeyPatch.context() as patch:
        if importlib.util.find_spec("jaxrnn._loops"):  # See `without_loops.py`.
            name = "jaxrnn._loops.linear.chunks.steps_in_chunk"
            patch.setattr(name, lambda *_: 4)
        yield


def setup_of(name):
    inputs = CASES[name].inputs if name in CASES else draw(ROWS, 3)
    inputs = jax.tree.map(lambda x: np.resize(x, (ROWS, *x.shape[1:])), inputs)
    setup = make_setup(CELLS[name], inputs, jnp.float64)

    def with_gaps(x):
        """The steps of a setup, again and again; NaN in gaps, which has no effect."""
        x = jnp.take(x, np.arange(TIME) % x.shape[1], axis=1)
        mask = MASK.reshape(*MASK.shape, *[1] * (x.ndim - 2))
        return jnp.where(mask, x, jnp.nan) if x.dtype == setup.dtype else x

    return dataclasses.replace(setup, xs=jax.tree.map(with_gaps, setup.xs))


def in_windows(has_reset_state, setup, params, xs, state, lengths):
    """`dynamic_rnn`, 3 steps a call, each from the state of the call before."""
    other = reset_state(state) if has_reset_state else None
    parts = []
    for t in range(0, TIME, 3):
        steps = slice(t, t + 3)
        options = {"mask": MASK[:, steps], "resets": RESETS[:, steps]}
        window = setup, params, at_steps(xs, steps), state, lengths
        options |= {"reset_state": other, "return_states": True}
        outputs, state, states = type(setup).run(*window, **options)
        parts.append((outputs, states))
    outputs, states = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *parts)
    return outputs, state, states


def reset_state(state):
    return jax.tree.map(lambda x: jnp.roll(x, 1, axis=0), state)


def in_the_oracle(has_reset_state, setup, params, xs, state, lengths):
    zeros = jax.tree.map(jnp.asarray, setup.cell.zero_state(ROWS, setup.dtype))
    other = reset_state(state) if has_reset_state else zeros
    options = {"mask": MASK, "resets": RESETS, "reset_state": other}
    return unrolled_states(setup, params, xs, state, lengths, **options)


@pytest.mark.fast("True-min_gru")
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("has_reset_state", [False, True])
def test_values_and_gradients(has_reset_state, name):
    setup = setup_of(name)
    got = functools.partial(in_windows, has_reset_state)
    want = functools.partial(in_the_oracle, has_reset_state)
    got, want = (_oracle.differentiated(setup, run, None) for run in (got, want))
    close(got, want, setup.dtype)


F32 = jnp.float32  # Of the native loops.
CELL, X = jaxrnn.GRUCell(4), draw(ROWS, TIME, 3, dtype=F32)


run_gru = functools.partial(jaxrnn.dynamic_rnn, bound(CELL, dtype=F32))
WAYS = {name: {"implementation": name} for name in ("scan", "xla", "native")}
WAYS |= {"parts": {"swap_memory": Recompute(2)}}


@pytest.mark.loops
@pytest.mark.fast("native")
@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_run(way):
    """Single steps give what one call gives."""
    run = lambda x, state, mask, resets: run_gru(
        x, initial_state=state, mask=mask, resets=resets, **WAYS[way]
    )
    first = draw(ROWS, 4, dtype=F32)
    whole, last = run(X, first, MASK, RESETS)
    state, outputs = first, []
    for t in range(TIME):
        at = slice(t, t + 1)
        output, state = run(X[:, at], state, MASK[:, at], RESETS[:, at])
        outputs.append(output)
    assert_near((jnp.concatenate(outputs, 1), state), (whole, last), tolerance=1e-6)
    # Rows 1 and 2 end with a reset that no valid step follows.
    assert [bool(np.any(state)) for state in last] == [True, False, False, True, True]


def test_resets_past_a_length_are_ignored():
    lengths, first = np.array([4, 2, 0, 7, 1]), draw(ROWS, 4, dtype=F32)
    _, last = run_gru(X, lengths, first, resets=RESETS)
    before = RESETS & (np.arange(TIME) < lengths[:, None])
    _, want = run_gru(X, lengths, first, resets=before)
    np.testing.assert_array_equal(last, want)
    np.testing.assert_array_equal(last[2], first[2])


F64 = jnp.dtype("float64")
RESET = {
    "lstm": (jaxrnn.LSTMCell(3, use_peepholes=True, num_proj=2), {}),
    "linear": (jaxrnn.MinGRUCell(2), {"swap_memory": Recompute(2)}),
    "scan": (jaxrnn.BasicRNNCell(2), {"implementation": "scan"}),
}


def states(cell, seed):
    """A random nonzero state of a bound cell, for `ROWS` rows."""
    return drawn_like(cell.zero_state(ROWS, F64), seed, scale=1.0)


def test_zeros_have_the_dtypes_of_the_carried_state():
    cell = bound(jaxrnn.MinGRUCell(2), dtype="float32")
    state, resets = jnp.ones((ROWS, 2), F64), RESETS | True
    run = lambda: jaxrnn.dynamic_rnn(cell, X, None, state, F32, resets=resets)
    step = lambda: cell(X[:, 5], jnp.zeros_like(state))
    (outputs, last), (want, _) = jax.jit(lambda: (run(), step()))()
    assert (outputs.dtype, last.dtype) == (F32, F64)
    np.testing.assert_allclose(outputs[:, 5], want, rtol=1e-5)


@pytest.mark.fast("linear")
@pytest.mark.parametrize("name", RESET)
def test_nothing_crosses_a_reset(name):
    """Neither gradients nor NaN of the initial state, padding or a finished row."""
    cell, options = RESET[name]
    cell, inputs = bound(cell), draw(ROWS, TIME, 3)
    resets = np.broadcast_to(np.arange(TIME) % 3 == 0, (ROWS, TIME))
    lengths = np.array([7, 4, 5, 0, 6], np.int32)
    dead = np.arange(TIME) >= lengths[:, None]

    def after(cell, x, state):
        given = cell, x, lengths, state, F64
        return jaxrnn.dynamic_rnn(*given, resets=resets, **options)[0][:, 3:]

    clean, _ = differentiated(after, cell, inputs, states(cell, 1))
    bad = jax.tree.map(lambda s: np.full_like(s, np.nan), states(cell, 1))
    padded = np.where(dead[..., None], np.nan, inputs)
    got, (of_cell, of_x, of_state) = differentiated(after, cell, padded, bad)
    close(got, clean, F64)
    chex.assert_tree_all_finite((of_cell, of_x))
    assert not any(jnp.any(s) for s in jax.tree.leaves(of_state))
    assert not of_x[:, :3].any()
    assert of_x[:3, 3].any(-1).all()


@pytest.mark.slow
def test_vmap_and_checkpoint():
    cell, inputs = bound(jaxrnn.MinGRUCell(2)), draw(ROWS, TIME, 3)
    run = lambda mask, resets, **options: jaxrnn.dynamic_rnn(
        cell, inputs, mask=mask, resets=resets, dtype=F64, **options
    )
    both = [np.stack([marks, marks[::-1]]) for marks in (MASK, RESETS)]
    again = jax.checkpoint(functools.partial(run, swap_memory=True))
    want = jax.tree.map(lambda *parts: np.stack(parts), *map(jax.jit(run), *both))
    close(jax.jit(jax.vmap(again))(*both), want, F64)
