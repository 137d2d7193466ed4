"""Cells on meshes equal one device, and exchange nothing in a loop over chunks."""

import jax
import mesh
import numpy as np
import pytest
from cases import CASES, KINDS
from helpers import bound, draw, drawn
from mesh import BATCH, DEPTH, F64, state_of

import jaxrnn
from jaxrnn import MultiRNNCell
from jaxrnn.testing import make_setup
from jaxrnn.testing._oracle import close

# Three chunks of steps, of which the last is shorter, so that the others are in a loop.
TIME, CHUNK = 10, {"chunk_size": 4}


def memory(cell, **options):
    return cell(num_heads=2, key_size=3, value_size=2, **CHUNK, **options)


CELLS = {
    "linear_attention_keys": memory(jaxrnn.LinearAttentionMemoryCell, key_decay=True),
    "delta": memory(jaxrnn.DeltaMemoryCell, num_key_heads=1),
    "dplr": memory(jaxrnn.DPLRMemoryCell),
    "rwkv6": memory(jaxrnn.RWKV6MemoryCell),
    "mlstm": jaxrnn.MLSTMCell(4, 2, norm_epsilon=1e-6, **CHUNK),
    "min_gru": jaxrnn.MinGRUCell(4),
    "lru": jaxrnn.LRUCell(DEPTH),
    "stack": MultiRNNCell([jaxrnn.GRUCell(4), jaxrnn.MLSTMCell(4, **CHUNK)]),
}
RESETS = np.random.default_rng(2).random((BATCH, TIME)) < 0.3


def marks(name, cell):
    """Arguments of `dynamic_rnn`."""
    return {
        "plain": {},
        "lengths": {"sequence_length": np.array([TIME, 0, 3, 5], np.int32)},
        "resets": {"resets": RESETS, "reset_state": state_of(cell, 4)},
        "mask": {"mask": np.random.default_rng(1).random((BATCH, TIME)) < 0.6},
    }[name]


def prepared(cell, time=TIME, **arrays):
    """A run of `cell`, and its arrays."""
    sizes = getattr(cell, "input_sizes", None)
    if sizes is None:
        params, inputs = bound(cell).params, draw(BATCH, time, DEPTH)
    else:
        inputs = [draw(BATCH, time, *x, seed=i) / 2 for i, x in enumerate(sizes)]
        inputs = type(sizes)(*inputs)
        params = drawn(cell, jax.tree.map(lambda x: x[:, 0], inputs))
        if "g" in sizes._fields:
            inputs = inputs._replace(g=-np.abs(inputs.g))

    def run(params, inputs, **arrays):
        return jaxrnn.dynamic_rnn(cell.bind(params), inputs, dtype=F64, **arrays)

    return run, {"params": params, "inputs": inputs, **arrays}


# Each mark on an explicit mesh, and in turn on an automatic one.
MARKS = ["plain", "lengths", "resets", "mask"]
ON_MESHES = [(name, mark, "explicit") for name in CELLS for mark in MARKS]
ON_MESHES += [(name, MARKS[i % 4], "auto") for i, name in enumerate(CELLS)]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mark", "kind"), ON_MESHES)
def test_equals_one_device_without_exchanges_in_loops(name, mark, kind):
    run, arrays = prepared(CELLS[name], **marks(mark, CELLS[name]))
    got, in_loops = mesh.on_mesh_with_collectives(run, arrays, kind)
    close(got, mesh.on_one_device(run, arrays), F64)
    # On an automatic mesh, the compiler may sum gradients at each chunk.
    assert in_loops == [] or (kind == "auto" and {*in_loops} == {"all-reduce"})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["explicit", "auto"])
@pytest.mark.parametrize("name", KINDS.values())
def test_every_kind_of_cells_equals_one_device(kind, name):
    case = CASES[name]
    setup = make_setup(case.cell, case.inputs, F64, case.key, case.state)
    names = "params", "xs", "state", "lengths"
    arrays = {name: getattr(setup, name) for name in names}
    mesh.check(setup.run, arrays, kind, "arrays")


def test_several_chunks_of_a_linear_recurrence():
    """So many units that a chunk has 32 steps."""
    run, arrays = prepared(jaxrnn.MinGRUCell(4096), time=70)
    _, in_loops = mesh.on_mesh_with_collectives(run, arrays, "explicit")
    assert in_loops == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["delta", "mlstm"])
def test_steps_that_are_not_finite(name):
    """The device of such a row runs its steps one after another."""
    run, arrays = prepared(CELLS[name])
    for x in jax.tree.leaves(arrays["inputs"]):
        x[3, 5] = np.nan
    got = mesh.on_mesh(run, arrays, "explicit", "arrays")
    want = mesh.on_one_device(run, arrays)
    for g, w in zip(*map(jax.tree.leaves, (got, want)), strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-12, atol=1e-12)
