"""Laws that hold for any batch, any lengths and any split of the steps."""

import functools

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import drawn

import jaxrnn

BATCH, TIME, DEPTH = 4, 6, 2
CELLS = {
    "lstm": jaxrnn.LSTMCell(3, use_peepholes=True, num_proj=2),
    "gru": jaxrnn.GRUCell(2),
    "stack": jaxrnn.MultiRNNCell([jaxrnn.GRUCell(2), jaxrnn.BasicLSTMCell(2)]),
}
cells = st.sampled_from(sorted(CELLS))
lengths = st.lists(st.integers(-1, TIME + 2), min_size=BATCH, max_size=BATCH)
seeds = st.integers(0, 2**16)
quick = hypothesis.settings(max_examples=25)


def data(seed):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(BATCH, TIME, DEPTH)))


def bound(name):
    step = jax.ShapeDtypeStruct((BATCH, DEPTH), jnp.float64)
    return CELLS[name].bind(drawn(CELLS[name], step))


# All examples share one trace and one compilation per cell.
@functools.partial(jax.jit, static_argnums=0)
def compiled(name, x, n, state):
    return jaxrnn.dynamic_rnn(bound(name), x, n, state, jnp.float64)


@functools.partial(jax.jit, static_argnums=0)
def both_ways(name, x, n):
    cell = bound(name)
    return jaxrnn.bidirectional_dynamic_rnn(cell, cell, x, n, dtype=jnp.float64)


def run(name, x, n, state=None):
    return compiled(name, x, np.asarray(n, np.int32), state)


equal = chex.assert_trees_all_equal


close = functools.partial(chex.assert_trees_all_close, rtol=1e-10, atol=1e-12)


@hypothesis.given(cells, seeds, lengths, st.permutations(range(BATCH)))
@quick
def test_permuting_the_batch_permutes_the_results(name, seed, n, order):
    x, order = data(seed), np.asarray(order)
    want = jax.tree.map(lambda leaf: leaf[order], run(name, x, n))
    close(run(name, x[order], np.asarray(n)[order]), want)


@hypothesis.given(cells, seeds, lengths, st.floats(width=32))
@quick
def test_changing_the_padding_changes_nothing(name, seed, n, value):
    x = data(seed)
    dead = np.arange(TIME) >= np.asarray(n)[:, None]
    equal(run(name, jnp.where(dead[..., None], value, x), n), run(name, x, n))


@pytest.mark.slow
@hypothesis.given(cells, seeds, lengths, st.integers(0, TIME))
@quick
def test_a_sequence_in_two_parts_is_the_whole(name, seed, n, cut):
    x, n = data(seed), np.asarray(n)
    first, state = run(name, x[:, :cut], n)
    second, state = run(name, x[:, cut:], n - cut, state)
    close((jnp.concatenate([first, second], 1), state), run(name, x, n))


@hypothesis.given(cells, seeds, lengths)
@quick
def test_rows_of_length_zero_return_the_initial_state(name, seed, n):
    x = data(seed)
    n = np.where(np.arange(BATCH) == seed % BATCH, 0, n)
    cell = CELLS[name]
    start = jax.tree.map(lambda s: s + 0.5, cell.zero_state(BATCH, jnp.float64))
    outputs, state = run(name, x, n, start)
    row = seed % BATCH
    assert not outputs[row].any()
    equal(*(jax.tree.map(lambda leaf: leaf[row], tree) for tree in (state, start)))


@hypothesis.given(cells, seeds, lengths)
@quick
def test_outputs_end_where_rows_end_and_repeat_as_the_state(name, seed, n):
    x, n = data(seed), np.clip(n, 0, TIME)
    outputs, state = run(name, x, n)
    last = jax.tree.leaves(state)[-1]
    for b in range(BATCH):
        assert not outputs[b, n[b] :].any()
        if n[b]:
            close(outputs[b, n[b] - 1], last[b])


@hypothesis.given(cells, seeds, lengths)
@quick
def test_the_backward_cell_is_the_forward_cell_on_reversed_rows(name, seed, n):
    x, n = data(seed), np.clip(n, 0, TIME)
    (_, got), (_, state) = both_ways(name, x, n)
    backwards = np.array(x)
    for b in range(BATCH):
        backwards[b, : n[b]] = backwards[b, : n[b]][::-1]
    want, want_state = run(name, jnp.asarray(backwards), n)
    for b in range(BATCH):
        close(got[b, : n[b]], want[b, : n[b]][::-1])
        assert not got[b, n[b] :].any()
    close(state, want_state)
