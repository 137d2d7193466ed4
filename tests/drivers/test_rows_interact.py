"""Cells whose rows interact: every driver runs them as a loop over all rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxrnn
from jaxrnn import FunctionCell, memory
from jaxrnn.testing import check_cell

ROWS, TIME, UNITS = 4, 6, 3
LENGTHS = np.array([6, 2, 0, 4], np.int32)
RNG = np.random.default_rng(5)
X = RNG.normal(size=(ROWS, TIME, UNITS))
STATE = RNG.normal(size=(ROWS, UNITS))
MASK = RNG.random((ROWS, TIME)) < 0.6
MASK[:, 3] = False
RESETS = RNG.random((ROWS, TIME)) < 0.3


def scene(params, inputs, state, key=None):
    """Agents see the mean of all agents."""
    seen = jnp.mean(inputs + state, axis=0, keepdims=True)
    new = jnp.tanh(inputs + 0.5 * state + seen)
    return new + seen, new


CELL = FunctionCell(scene, UNITS, UNITS, rows_interact=True)
BOUND = CELL.bind({})


def numpy_scene(inputs, state):
    seen = (inputs + state).mean(0, keepdims=True)
    new = np.tanh(inputs + 0.5 * state + seen)
    return new + seen, new


def loop(valid, resets=None, state=STATE, xs=X):
    """Outputs, final state and all states, step by step in NumPy."""
    outputs, states = np.zeros_like(xs), np.zeros_like(xs)
    waiting = np.zeros(len(xs), bool)  # Rows whose reset waits for a valid step.
    for t in range(xs.shape[1]):
        alive = valid[:, t, None]
        if resets is not None:
            waiting |= resets[:, t]
            state = np.where((waiting & valid[:, t])[:, None], 0, state)
            waiting &= ~valid[:, t]
        output, new = numpy_scene(np.where(alive, xs[:, t], 0), state)
        outputs[:, t] = np.where(alive, output, 0)
        state = states[:, t] = np.where(alive, new, state)
    return outputs, state, states


VALID = np.arange(TIME) < LENGTHS[:, None]
WAYS = {
    "whole": ({}, np.ones_like(MASK)),
    "lengths": ({"sequence_length": LENGTHS}, VALID),
    "mask": ({"mask": MASK}, MASK),
    "front_mask": ({"mask": VALID}, VALID),
}


@pytest.fixture(autouse=True)
def _x64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("swap_memory", [False, memory.Recompute(2)], ids=["", "part"])
@pytest.mark.parametrize("resets", [None, RESETS], ids=["", "resets"])
@pytest.mark.parametrize("way", WAYS)
def test_dynamic_rnn_is_the_loop_over_all_rows(way, resets, swap_memory):
    options, valid = WAYS[way]
    options = options | {"resets": resets, "swap_memory": swap_memory}
    padded = np.where(valid[..., None], X, np.nan)
    want = loop(valid, resets)
    for time_major in (False, True):
        turn = (lambda x: np.swapaxes(x, 0, 1)) if time_major else np.asarray
        turned = {k: turn(v) if k == "mask" else v for k, v in options.items()}
        if resets is not None:
            turned["resets"] = turn(resets)
        outputs, state, states = jaxrnn.dynamic_rnn(
            BOUND,
            turn(padded),
            initial_state=STATE,
            time_major=time_major,
            return_states=True,
            **turned,
        )
        got = turn(outputs), state, turn(states)
        jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, 1e-12), got, want)


@pytest.mark.parametrize("way", ["lengths", "mask"])
def test_gradients_are_those_of_differences(way):
    """A finished row's kept state acts on other rows; padding acts on nothing."""
    options, valid = WAYS[way]

    def loss(x, state):
        outputs, last = jaxrnn.dynamic_rnn(BOUND, x, initial_state=state, **options)
        return jnp.sum(outputs * W) + jnp.sum(last * STATE)

    W = RNG.normal(size=X.shape)
    padded = np.where(valid[..., None], X, np.nan)
    of_x, of_state = jax.grad(loss, (0, 1))(padded, STATE)
    assert (of_x[~valid] == 0).all()
    assert np.abs(of_state[2]).min() > 0  # Row 2 has no step in `LENGTHS`.
    for b, d in np.ndindex(STATE.shape):
        ends = []
        for sign in (1, -1):
            moved = STATE.copy()
            moved[b, d] += sign * 1e-5
            outputs, last, _ = loop(valid, state=moved)
            ends.append((outputs * W).sum() + (last * STATE).sum())
        slope = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(of_state[b, d], slope, rtol=1e-6, atol=1e-8)


def test_static_drivers_and_protocol_cells():
    class Plain:
        state_size = output_size = UNITS
        rows_interact = True
        zero_state = staticmethod(BOUND.zero_state)

        def __call__(self, inputs, state):
            return scene({}, inputs, state)

    want, want_state, _ = loop(VALID)
    steps = list(np.swapaxes(X, 0, 1))
    for cell in (BOUND, Plain()):
        outputs, state = jaxrnn.static_rnn(cell, steps, STATE, sequence_length=LENGTHS)
        np.testing.assert_allclose(np.stack(outputs, 1), want, 1e-12)
        np.testing.assert_allclose(state, want_state, 1e-12)
        both, fw, bw = jaxrnn.static_bidirectional_rnn(
            cell, cell, steps, STATE, STATE, sequence_length=LENGTHS
        )
        dynamic = jaxrnn.bidirectional_dynamic_rnn(
            BOUND, BOUND, X, LENGTHS, STATE, STATE
        )
        np.testing.assert_allclose(np.stack(both, 1), np.concatenate(dynamic[0], -1))
        jax.tree.map(np.testing.assert_allclose, (fw, bw), dynamic[1])


def test_a_backward_run_with_a_mask_keeps_rows_in_step():
    (_, backward), (_, state) = jaxrnn.bidirectional_dynamic_rnn(
        BOUND, BOUND, X, None, STATE, STATE, mask=MASK
    )
    want, want_state, _ = loop(MASK[:, ::-1], xs=X[:, ::-1])
    np.testing.assert_allclose(backward, want[:, ::-1], 1e-12)
    np.testing.assert_allclose(state, want_state, 1e-12)


def test_an_affine_cell_whose_rows_interact_is_scanned():
    class Crowd(jaxrnn.BasicRNNCell):
        rows_interact = True

        def apply(self, params, inputs, state, key=None):
            crowd = state.mean(0, keepdims=True)
            return super().apply(params, inputs + crowd, state, key)

    cell = jaxrnn.MultiRNNCell([Crowd(UNITS), jaxrnn.GRUCell(UNITS)])
    assert cell.rows_interact
    assert jaxrnn.DropoutWrapper(cell, 0.5).rows_interact
    bound = cell.bind(cell.init(jax.random.key(0), X[:, 0]))
    state = (STATE, STATE)
    outputs, last = jaxrnn.dynamic_rnn(bound, X, LENGTHS, state)
    for t in range(TIME):
        alive = VALID[:, t, None]
        output, new = bound(np.where(alive, X[:, t], 0), state)
        state = tuple(np.where(alive, *pair) for pair in zip(new, state, strict=True))
        np.testing.assert_allclose(outputs[:, t], np.where(alive, output, 0), 1e-9)
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, 1e-9), last, state)


@pytest.mark.parametrize("library", [jaxrnn.linen, jaxrnn.nnx], ids=["linen", "nnx"])
def test_modules(library):
    def run(kind, *cells):
        if library is jaxrnn.nnx:
            return kind(*cells, UNITS, rngs=nnx.Rngs(0))(X, LENGTHS)
        return kind(*cells).init_with_output(jax.random.key(0), X, LENGTHS)[0]

    zeros = np.zeros_like(STATE)
    want, _, _ = loop(VALID, state=zeros)
    np.testing.assert_allclose(run(library.RNN, CELL), want, 1e-6)
    both = run(library.StackBidirectional, [CELL], [CELL])
    (fw, bw), _ = jaxrnn.bidirectional_dynamic_rnn(
        BOUND, BOUND, X, LENGTHS, dtype=X.dtype
    )
    np.testing.assert_allclose(fw, want, 1e-12)
    np.testing.assert_allclose(both, np.concatenate([fw, bw], -1), 1e-6)


def test_a_symbolic_number_of_steps_with_a_mask():
    (time,) = jax.export.symbolic_shape("time")
    run = lambda x, mask: jaxrnn.dynamic_rnn(BOUND, x, initial_state=STATE, mask=mask)
    types = [
        jax.ShapeDtypeStruct((ROWS, time, UNITS), X.dtype),
        jax.ShapeDtypeStruct((ROWS, time), bool),
    ]
    exported = jax.export.export(jax.jit(run))(*types)
    outputs, state = exported.call(X, MASK)
    want, want_state, _ = loop(MASK)
    np.testing.assert_allclose(outputs, want, 1e-12)
    np.testing.assert_allclose(state, want_state, 1e-12)


def test_packed_rows_are_refused():
    packed = jaxrnn.pack_sequences(X, LENGTHS)
    with pytest.raises(ValueError, match="`cell` must keep rows apart"):
        jaxrnn.packed_rnn(BOUND, packed, dtype=jnp.float64)


@pytest.mark.slow
def test_the_laws_hold():
    check_cell(CELL, jax.ShapeDtypeStruct((5, UNITS), "float64"), jnp.float64)
