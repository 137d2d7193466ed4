"""Training on several devices, in small: equal on all layouts, also after a kill."""

import dataclasses
import json
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilers.hlo import collectives
from distributed import compare, datasets, kill, pipelined_rnn, train
from helpers import assert_near, assert_same

from jaxrnn import GRUCell, LSTMCell, MultiRNNCell, dynamic_rnn

pytestmark = pytest.mark.slow
SMALL = {"steps": 4, "units": 4, "batch_size": 8, "data": "recall", "save_every": 2}


def test_a_killed_run_ends_as_if_it_had_not_been_killed(fast_to_compile):
    """One of two processes is killed, and one device continues the run."""
    assert 0 < kill.main(1, "2 processes", "1 device", patience=0.1) < 1e-6


def test_two_processes_train_as_one_device_does(fast_to_compile, monkeypatch):
    monkeypatch.delitem(compare.PRECISIONS, "float32")
    found = compare.main("vowels", 4, 8, 8, ("1 device", "2 processes"))
    for difference in found["float64"]["2 processes"]:
        assert 0 < difference < 1e-14


@pytest.fixture(scope="module")
def recall():
    return datasets.load("recall", np.float32)


def losses_of(folder):
    entries = list(map(json.loads, (folder / "losses.jsonl").read_text().splitlines()))
    assert [entry["step"] for entry in entries] == list(range(len(entries)))
    return np.array([entry["loss"] for entry in entries])


def test_every_mesh_has_the_same_losses(users_settings, recall, tmp_path):
    """Also after a run that continues from the last checkpoint."""
    results = []
    for mesh in ("auto", "explicit", "shard_map"):
        (tmp_path / mesh).mkdir()
        config = train.Config(**SMALL, mesh=mesh)
        params = train.fit(config, recall, tmp_path / mesh)
        results.append((losses_of(tmp_path / mesh), params))
    for other in results[1:]:
        assert_near(other, results[0], tolerance=1e-6)
    shutil.rmtree(tmp_path / mesh / "checkpoints" / "4")
    with (tmp_path / mesh / "losses.jsonl").open("a") as file:
        file.write("half a li")
    again = train.fit(config, recall, tmp_path / mesh)
    assert_same((losses_of(tmp_path / mesh), again), results[-1])


def test_windows_are_the_records_and_labels_the_marked_symbols(recall):
    windows = datasets.Windows(4, first_row=0).flat_map(recall.test)
    frames = np.concatenate([window.frames for window in windows], axis=1)
    np.testing.assert_array_equal(frames, recall.test.frames)
    np.testing.assert_array_equal(sum(w.lengths for w in windows), recall.test.lengths)
    resets = np.concatenate([window.resets for window in windows], axis=1)
    np.testing.assert_array_equal(resets.nonzero(), [np.arange(512), np.zeros(512)])
    rows, marked = np.nonzero(frames[..., -1])
    np.testing.assert_array_equal(rows, np.arange(len(frames)))  # One in each row.
    assert np.all(marked < recall.test.lengths)
    assert np.all(frames[rows, marked, recall.test.labels] == 1)


def test_dropout_depends_on_the_number_of_the_row(users_settings):
    x, rows = np.ones((6, 10, 20), np.float32), np.arange(6)
    key = jax.random.key(0)
    dropped = train.drop_by_row(key, rows, 0.25, x)
    some = train.drop_by_row(key, rows[2:4], 0.25, x[2:4])
    np.testing.assert_array_equal(some, dropped[2:4])
    assert np.mean(dropped == 0) == pytest.approx(0.25, abs=0.05)
    assert np.mean(dropped) == pytest.approx(1, abs=0.05)


# A pipeline of stages equals the same stack on one device, and exchanges only chunks.

LSTM, GRU = LSTMCell(4, use_peepholes=True), GRUCell(4)
# Cell, layers, stages, parts of the rows, steps per chunk. A sequence has 11 steps.
RUNS = {
    "part of a chunk": (LSTM, 4, 4, 1, 3),
    "one chunk, two layers each": (GRU, 4, 2, 2, 20),
    "one stage": (LSTM, 2, 1, 4, 1),
}


def on_one_device(cell, layers, params, inputs, lengths, state):
    """The same stack by `MultiRNNCell`, which names its layers `cell_0`, `cell_1`..."""
    layer = lambda tree, i: jax.tree.map(lambda leaf: leaf[i], tree)
    stack = MultiRNNCell([dataclasses.replace(cell) for _ in range(layers)])
    bound = stack.bind({f"cell_{i}": layer(params, i) for i in range(layers)})
    state = tuple(layer(state, i) for i in range(layers))
    outputs, state = dynamic_rnn(bound, inputs, lengths, state, time_major=True)
    return outputs, jax.tree.map(lambda *leaves: jnp.stack(leaves), *state)


def pipeline(cell, stages, parts, chunk, data):
    """The function, and its arguments on a mesh."""
    mesh = jax.make_mesh((stages, parts), ("stage", "data"))
    run = partial(pipelined_rnn.pipelined_rnn, cell, mesh=mesh, chunk=chunk)
    return run, pipelined_rnn.place(mesh, *data)


def compiled(run, arguments):
    gradient = jax.jit(partial(pipelined_rnn.differentiate, run))
    return gradient.lower(*arguments).compile()


@pytest.mark.parametrize("name", RUNS)
def test_a_pipeline_has_the_values_and_gradients_of_the_stack(name):
    cell, layers, stages, parts, chunk = RUNS[name]
    *data, zeros = pipelined_rnn.make_data(cell, layers, time=11, dtype=jnp.float64)
    rng = np.random.default_rng(1)
    data.append(jax.tree.map(lambda s: rng.normal(size=s.shape), zeros))
    run, arguments = pipeline(cell, stages, parts, chunk, data)
    got = pipelined_rnn.differentiate(run, *arguments)
    one = partial(on_one_device, cell, layers)
    expected = pipelined_rnn.differentiate(one, *data)
    assert_near(got, expected, tolerance=1e-10)


def test_collectives():
    """A tick sends one message per pass; gradients are summed once, after the loop."""
    data = pipelined_rnn.make_data(LSTM, 4, time=11, dtype=jnp.float64)
    program = compiled(*pipeline(LSTM, 2, 2, 2, data))
    inside, outside = collectives(program.as_text())
    assert inside == ["collective-permute"] * 2
    assert set(outside) == {"all-reduce"}


def test_memory():
    """A stage saves the arrays of its own layers, and one copy of their parameters."""
    cell = LSTMCell(64)
    data = pipelined_rnn.make_data(cell, 4, time=256, rows=4)
    one = partial(pipelined_rnn.run_layers, cell)
    memory = lambda *call: compiled(*call).memory_analysis().temp_size_in_bytes
    assert memory(*pipeline(cell, 4, 1, 8, data)) < 0.4 * memory(one, data)


def test_pipelined_rnn_differs_by_rounding(users_settings):
    assert all(0 < difference < 1e-6 for difference in pipelined_rnn.main())
