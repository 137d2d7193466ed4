"""On TPUs and GPUs, collectives are outside of loops, and gradients are sent once.

The compilers for CPUs, TPUs and GPUs place collectives differently: `tests/meshes`
tests CPUs, and these tests cover the others. `tests/sharded_programs.py` has the sizes.
"""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiler_cases import devices
from compilers import hlo
from helpers import usual_promotion
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P
from sharded_programs import DRIVERS, compiled

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
    ("dynamic_rnn", "LSTM, GRU"): ["data auto", "FSDP explicit", "tensor auto"],
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


@pytest.mark.slow
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("kind", ["v5e", "h100"])
def test_drivers_on_one_device(kind, driver):
    assert found(kind, 1, "data", "auto", driver, "LSTM") == ([], [])


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


# The step of `examples/distributed/train.py` on many TPU chips.

ROWS, STEPS, FEATURES, CELL_UNITS, CLASSES = 8, 32, 128, 256, 64
KERNELS = 2 * (FEATURES + CELL_UNITS) * 4 * CELL_UNITS  # Both cells.
PARAMETERS = KERNELS + 2 * 4 * CELL_UNITS + 2 * CELL_UNITS * CLASSES + CLASSES
SCALARS = 64  # More than the bytes of the longest length, loss, count and norms.


@pytest.mark.fast("*-4")
@pytest.mark.parametrize("chips", [4, 16])
@pytest.mark.parametrize("layout", ["data parallel", "FSDP"])
def test_a_step_exchanges_gradients_once(layout, chips):
    train = pytest.importorskip("distributed.train")  # It needs more packages.
    mesh, sharding = on_chips(chips, "data")
    with usual_promotion():  # The examples rely on JAX's defaults.
        config, state, batch = types_of_training(train, chips * ROWS)

        def of_state(path, leaf):
            names = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
            is_kernel = {"fw", "bw"} & {*names} and leaf.ndim == 2
            is_sharded = names[0] == "carry" or (layout == "FSDP" and is_kernel)
            return sharding("data") if is_sharded else sharding()

        state = hlo.on_mesh(state, jax.tree_util.tree_map_with_path(of_state, state))
        batch = hlo.on_mesh(batch, sharding("data"))
        step = jax.jit(functools.partial(train.update, config), donate_argnums=0)
        with jax.set_mesh(mesh):
            program = hlo.read(step.lower(state, batch))
    assert program.in_loops == []
    sums = collections.Counter()
    for one in program.outside:
        sums[one.kind] += one.bytes
    # Each gradient is summed whole and in float32, even if its parameter is sharded.
    assert 0 < sums.pop("all-reduce") - 4 * PARAMETERS <= SCALARS
    # A TPU's products read bfloat16, so kernels are gathered in bfloat16.
    assert sums == ({"all-gather": 2 * KERNELS} if layout == "FSDP" else {})


def types_of_training(train, rows):
    """`(config, state, batch)` of a step on this many rows; the last two hold types."""
    datasets = train.datasets
    frames = jax.ShapeDtypeStruct((rows, STEPS, FEATURES), F32)
    resets = jax.ShapeDtypeStruct((rows, STEPS), np.bool_)
    numbers = [jax.ShapeDtypeStruct((rows,), np.int32)] * 3
    batch = datasets.Batch(frames, resets, *numbers)
    records = datasets.Records(frames, batch.lengths, batch.labels)
    dataset = datasets.Dataset(records, records, STEPS, CLASSES)
    config = train.Config(units=CELL_UNITS, batch_size=rows, mesh="explicit")
    init = lambda: train.init(config, dataset, jax.random.key(0))
    return config, jax.eval_shape(init), batch
