"""A pipeline equals the same stack on one device, and exchanges only chunks."""

import dataclasses
import functools
import operator

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distributed import pipelined_rnn as example

from benchmarks.compilers.hlo import collectives
from jaxrnn import GRUCell, LSTMCell, MultiRNNCell, dynamic_rnn

pytestmark = pytest.mark.slow

LSTM, GRU = LSTMCell(4, use_peepholes=True), GRUCell(4)
# Cell, layers, stages, parts of the rows, steps per chunk. A sequence has 11 steps.
RUNS = {
    "part of a chunk": (LSTM, 4, 4, 1, 3),
    "two layers each": (GRU, 4, 2, 1, 5),
    "rows": (LSTM, 4, 2, 2, 4),
    "one step": (LSTM, 2, 2, 1, 1),
    "one chunk": (GRU, 4, 4, 1, 20),
    "one stage": (LSTM, 2, 1, 4, 4),
}


def on_one_device(cell, layers, params, inputs, lengths, state):
    """The same stack by `MultiRNNCell`, which names its layers `cell_0`, `cell_1`..."""
    each = [operator.itemgetter(i) for i in range(layers)]
    stack = MultiRNNCell([dataclasses.replace(cell) for _ in each])
    params = {f"cell_{i}": jax.tree.map(at, params) for i, at in enumerate(each)}
    state, bound = tuple(jax.tree.map(at, state) for at in each), stack.bind(params)
    outputs, state = dynamic_rnn(bound, inputs, lengths, state, time_major=True)
    return outputs, jax.tree.map(lambda *leaves: jnp.stack(leaves), *state)


def placed(stages, parts, data):
    mesh = jax.make_mesh((stages, parts), ("stage", "data"))
    return mesh, example.place(mesh, *data)


@pytest.mark.parametrize("name", RUNS)
def test_values_and_gradients(name):
    cell, layers, stages, parts, chunk = RUNS[name]
    *data, zeros = example.make_data(cell, layers, time=11, dtype=jnp.float64)
    rng = np.random.default_rng(1)
    data.append(jax.tree.map(lambda s: rng.normal(size=s.shape), zeros))
    mesh, arguments = placed(stages, parts, data)
    run = functools.partial(example.pipelined_rnn, cell, mesh=mesh, chunk=chunk)
    got = example.differentiate(run, *arguments)
    one = functools.partial(on_one_device, cell, layers)
    expected = example.differentiate(one, *data)
    chex.assert_trees_all_close(got, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("parts", [1, 2])
def test_collectives(parts):
    """A tick sends one message per pass; gradients are summed once, after the loop."""
    data = example.make_data(LSTM, 4, time=11, dtype=jnp.float64)
    mesh, arguments = placed(2, parts, data)
    run = functools.partial(example.pipelined_rnn, LSTM, mesh=mesh, chunk=2)
    inside, outside = collectives(compiled(run, arguments).as_text())
    assert inside == ["collective-permute"] * 2
    assert set(outside) == {"all-reduce"}


def compiled(run, arguments):
    gradient = jax.jit(functools.partial(example.differentiate, run))
    return gradient.lower(*arguments).compile()


def test_memory():
    """A stage saves the arrays of its own layers, and one copy of their parameters."""
    cell = LSTMCell(64)
    data = example.make_data(cell, 4, time=256, rows=4)
    mesh, arguments = placed(4, 1, data)
    run = functools.partial(example.pipelined_rnn, cell, mesh=mesh, chunk=8)
    one = functools.partial(example.run_layers, cell)
    memory = lambda *call: compiled(*call).memory_analysis().temp_size_in_bytes
    assert memory(run, arguments) < 0.4 * memory(one, data)


def test_main(users_settings, capsys):
    for difference in example.main():
        assert 0 < difference < 1e-6
    assert "stages: 2, devices in each: 2, differ" in capsys.readouterr().out
