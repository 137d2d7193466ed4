"""On TPUs and GPUs, collectives are outside of loops, and gradients are sent once.

The compilers for CPUs, TPUs and GPUs place collectives differently: `tests/meshes`
tests CPUs, and these tests cover the others. `tests/sharded_programs.py` has the sizes.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiler_cases import devices
from compilers import hlo
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P
from sharded_programs import compiled

import jaxrnn

# The layouts of parameters (whole, sharded by rows, sharded by columns), and the axes.
LAYOUTS = [("data", axes) for axes in ("auto", "explicit", "shard_map")]
LAYOUTS += [(how, axes) for how in ("FSDP", "tensor") for axes in ("auto", "explicit")]
FOUR = [("v5e", 4), ("h100", 4)]
SIZES = [("v5e", 1), ("v5e", 16), ("h100", 1), ("h100", 8)]
LSTM = [(*layout, "dynamic_rnn", "LSTM") for layout in LAYOUTS]
OTHERS = {
    ("bidirectional", "LSTM"): ["data explicit", "FSDP auto", "data shard_map"],
    ("mask", "LSTM"): ["data auto", "data explicit", "FSDP auto"],
    ("swap_memory", "LSTM"): ["data shard_map"],
    ("raw_rnn", "LSTM"): ["data shard_map"],
    ("beam_search", "LSTM"): ["data shard_map"],
}
ROWS = LSTM + [(*one.split(), *run) for run in OTHERS for one in OTHERS[run]]
ON_FOUR = [(*size, *row) for size in FOUR for row in ROWS]
ON_SIZES = [(*size, *row) for size in SIZES for row in LSTM[2:5]]
NAMES = "kind", "count", "layout", "axes", "driver", "cell"
F32 = np.dtype("float32")


@pytest.mark.fast("*-4-*-dynamic_rnn-LSTM")
@pytest.mark.parametrize(NAMES, ON_FOUR + ON_SIZES)
def test_no_collective_in_a_loop(kind, count, layout, axes, driver, cell):
    inside, outside = found(kind, count, layout, axes, driver, cell)
    assert inside == []
    assert ("all-gather" in outside) == (count > 1 and layout != "data")
    assert ("all-reduce" in outside) == (count > 1)


@pytest.mark.fast("v5e-*-auto", "h100-*-explicit")
@pytest.mark.parametrize("axes", ["auto", "explicit"])
@pytest.mark.parametrize(("kind", "count"), FOUR)
def test_parts_sum_their_gradients(kind, count, axes):
    inside, outside = found(kind, count, "FSDP", axes, "swap_memory", "LSTM")
    assert set(inside) <= {"all-reduce", "reduce-scatter"}
    assert "all-gather" in outside


def found(kind, count, *row):
    return hlo.collectives(compiled(devices(kind, count), *row))


# Time on several TPU chips.


@pytest.mark.fast("*-4")
@pytest.mark.parametrize("chips", [4, 16])
@pytest.mark.parametrize("name", ["MinGRU", "mLSTM"])
def test_divided_time_exchanges_one_map_of_each_part(name, chips):
    units, heads, key = 256, 2, 128
    cell, numbers = {
        "MinGRU": (jaxrnn.MinGRUCell(units), 2 * units),
        "mLSTM": (jaxrnn.MLSTMCell(units, heads), heads * (key + 1) * key + 2 * heads),
    }[name]

    def loss(params, x):
        outputs, _ = jaxrnn.dynamic_rnn(cell.bind(params), x, dtype=x.dtype)
        return jnp.mean(outputs**2)

    mesh, sharding = on_chips(chips, "time")
    types = jax.eval_shape(cell.init, jax.random.key(0), jnp.zeros((1, 128), F32))
    x = jax.ShapeDtypeStruct((1, 4096, 128), F32)
    given = hlo.on_mesh(types, sharding()), hlo.on_mesh(x, sharding(None, "time"))
    with jax.set_mesh(mesh):
        program = hlo.read(jax.jit(jax.value_and_grad(loss)).lower(*given))
    assert program.in_loops == []
    gathered = sum(one.bytes for one in program.outside if one.kind == "all-gather")
    # Also, whether the map of each row is a constant.
    assert 0 <= gathered - 4 * chips * numbers <= 64
    sums = sum(one.bytes for one in program.outside if one.kind == "all-reduce")
    parameters = sum(x.size for x in jax.tree.leaves(types))
    # The gradients of the parameters and of the maps, the loss and the final state.
    assert sums <= 4 * (parameters + (chips + 1) * numbers) + 64


def on_chips(chips, axis):
    """An explicit mesh of TPU chips, and a function of a spec that returns a sharding.

    Without the compiler for TPUs, the test is skipped.
    """
    grid = np.asarray(devices("v5e", chips))
    mesh = Mesh(grid, (axis,), axis_types=(AxisType.Explicit,))
    return mesh, lambda *spec: NamedSharding(mesh, P(*spec))
