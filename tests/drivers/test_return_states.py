"""The states of all steps, against a Python loop."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound, differentiated

import jaxrnn

BATCH, TIME, DEPTH = 4, 6, 3
X = np.random.default_rng(0).normal(size=(BATCH, TIME, DEPTH))
LENGTHS = np.array([6, 0, 3, 1], np.int32)
CELL = jaxrnn.MultiRNNCell([jaxrnn.LSTMCell(4, num_proj=2), jaxrnn.MinGRUCell(3)])
# NaN past the lengths, where rows keep their states.
PADDED = np.where((np.arange(TIME) < LENGTHS[:, None])[..., None], X, np.nan)


def close(got, want, tolerance=1e-9):
    chex.assert_trees_all_close(got, want, rtol=tolerance, atol=tolerance)


def loop(cell, x, lengths, state):
    """The states after all steps, `[batch, time, ...]`."""
    states = []
    for t in range(x.shape[1]):
        alive = jnp.asarray(t < lengths)[:, None]
        _, new = cell(jnp.where(alive, x[:, t], 0), state)
        state = jax.tree.map(lambda n, s: jnp.where(alive, n, s), new, state)  # noqa: B023
        states.append(state)
    return jax.tree.map(lambda *s: jnp.stack(s, 1), *states)


def initial():
    shapes = jax.eval_shape(lambda: CELL.zero_state(BATCH, jnp.float64))
    draw = np.random.default_rng(1).normal
    return jax.tree.map(lambda s: draw(size=s.shape), shapes)


@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("swap_memory", [False, True])
def test_dynamic_rnn(time_major, swap_memory):
    swap = (lambda x: jnp.swapaxes(x, 0, 1)) if time_major else jnp.asarray
    options = {"time_major": time_major, "swap_memory": swap_memory}

    def run(params, x, state):
        cell, x = CELL.bind(params), swap(x)
        return jaxrnn.dynamic_rnn(cell, x, LENGTHS, state, **options)

    def with_states(params, x, state):
        cell, x = CELL.bind(params), swap(x)
        options["return_states"] = True
        return jaxrnn.dynamic_rnn(cell, x, LENGTHS, state, **options)[2]

    args = bound(CELL).params, PADDED, initial()
    want = lambda params, *args: loop(CELL.bind(params), args[0], LENGTHS, args[1])
    got = lambda *args: jax.tree.map(swap, with_states(*args))
    without = run(*args)
    close(differentiated(got, *args), differentiated(want, *args))
    with_them = jaxrnn.dynamic_rnn(
        bound(CELL), swap(PADDED), LENGTHS, args[2], **options
    )
    close(with_them[:2], without)


def test_a_state_restarts_the_run():
    """As in replay of stored states, a run can start from any state."""
    cell = bound(CELL)
    outputs, last, states = jaxrnn.dynamic_rnn(
        cell, X, dtype=jnp.float64, return_states=True
    )
    at = jax.tree.map(lambda s: s[:, 3], states)
    rest, state = jaxrnn.dynamic_rnn(cell, X[:, 4:], initial_state=at)
    close((rest, state), (outputs[:, 4:], last))


def test_two_directions():
    cells = bound(CELL), bound(CELL, seed=1)
    args = *cells, PADDED, LENGTHS
    options = {"dtype": jnp.float64, "return_states": True}
    _, last, (fw, bw) = jaxrnn.bidirectional_dynamic_rnn(*args, **options)
    zeros = CELL.zero_state(BATCH, jnp.float64)
    close(fw, loop(cells[0], PADDED, LENGTHS, zeros))
    for b, n in enumerate(LENGTHS):
        row = lambda tree, b=b: jax.tree.map(lambda s: s[b], tree)
        if n:
            flipped = X[b : b + 1, :n][:, ::-1]
            want = loop(cells[1], flipped, np.array([n]), CELL.zero_state(1, "float64"))
            close(row(jax.tree.map(lambda s, n=n: s[:, :n][:, ::-1], bw)), row_0(want))
        keeps = lambda s, end, n=n: (s[n:], np.broadcast_to(end, s[n:].shape))
        for got, end in zip(
            *map(jax.tree.leaves, (row(bw), row(last[1]))), strict=True
        ):
            close(*keeps(got, end))


def row_0(tree):
    return jax.tree.map(lambda s: s[0], tree)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("is_bound", [True, False])
def test_lists_of_steps(is_bound, lengths):
    """In a loop, and unrolled for a cell that is not a pytree."""
    cell = bound(CELL)
    given = cell if is_bound else ByProtocol(cell)
    args = list(np.swapaxes(X, 0, 1)), None, jnp.float64, lengths
    outputs, last, states = jaxrnn.static_rnn(given, *args, return_states=True)
    close((outputs, last), tuple(jaxrnn.static_rnn(cell, *args)))
    n = np.full(BATCH, TIME) if lengths is None else lengths
    want = loop(cell, X, n, CELL.zero_state(BATCH, jnp.float64))
    assert isinstance(states, list)
    close(jax.tree.map(lambda *s: jnp.stack(s, 1), *states), want)
    close(states[-1], last)


class ByProtocol:
    def __init__(self, cell):
        self.cell = cell
        self.state_size, self.output_size = cell.state_size, cell.output_size
        self.zero_state = cell.zero_state

    def __call__(self, inputs, state):
        return self.cell(inputs, state)


def test_packed_sequences():
    cell = bound(CELL)
    packed = jaxrnn.pack_sequences(X, LENGTHS)
    outputs, last, states = jaxrnn.packed_rnn(
        cell, packed, dtype=jnp.float64, return_states=True
    )
    close((outputs, last), jaxrnn.packed_rnn(cell, packed, dtype=jnp.float64))
    want = loop(cell, X, LENGTHS, CELL.zero_state(BATCH, jnp.float64))
    alive = (np.arange(TIME) < LENGTHS[:, None])[..., None]
    only = lambda tree: jax.tree.map(lambda s: jnp.where(alive, s, 0), tree)
    close(only(packed.unpack(states)), only(want))


def test_of_each_member_of_an_ensemble():
    cell = bound(CELL)
    run = lambda x: jaxrnn.dynamic_rnn(cell, x, dtype=jnp.float64, return_states=True)
    close(jax.vmap(run)(X[:, None]), jax.tree.map(lambda x: x[:, None], run(X)))


def test_types():
    """The states have the dtypes of the loop's carry."""
    cell = bound(jaxrnn.LSTMCell(4), dtype="bfloat16")
    x = jnp.asarray(X, jnp.bfloat16)
    state = jax.tree.map(jnp.asarray, cell.zero_state(BATCH, jnp.bfloat16))
    _, _, states = jaxrnn.dynamic_rnn(
        cell, x, initial_state=state._replace(c=state.c), return_states=True
    )
    assert (states.c.dtype, states.c.shape) == (jnp.bfloat16, (BATCH, TIME, 4))


def test_no_steps():
    cell = bound(CELL)
    options = {"dtype": jnp.float64, "return_states": True}
    _, _, states = jaxrnn.dynamic_rnn(cell, X[:, :0], **options)
    assert states[0].h.shape == (BATCH, 0, 2)


def counts(params, inputs, state, key=None):
    return inputs, state + 1


@pytest.mark.parametrize("is_compiled", [False, True])
def test_a_state_without_rows_is_refused(is_compiled):
    cell = jaxrnn.FunctionCell(counts, (), DEPTH, lambda *args: {}).bind({})
    run = lambda x: jaxrnn.dynamic_rnn(
        cell, x, initial_state=jnp.int32(0), dtype=jnp.float64, return_states=True
    )
    with pytest.raises(
        ValueError, match=r"`return_states`, each leaf .* got .* `state`"
    ):
        (jax.jit(run) if is_compiled else run)(X)


@pytest.mark.parametrize("value", [1, "yes", None])
def test_a_flag_is_a_bool(value):
    cell = bound(CELL)
    packed = jaxrnn.pack_sequences(X, LENGTHS)
    calls = {
        "dynamic_rnn": (cell, X),
        "packed_rnn": (cell, packed),
        "static_rnn": (cell, list(np.swapaxes(X, 0, 1))),
        "bidirectional_dynamic_rnn": (cell, cell, X),
    }
    for name, args in calls.items():
        with pytest.raises(TypeError, match="`return_states` must be True or False"):
            getattr(jaxrnn, name)(*args, dtype=jnp.float64, return_states=value)
