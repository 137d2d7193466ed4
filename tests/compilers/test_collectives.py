"""On TPUs and GPUs, collectives are outside of loops, and gradients are sent once.

The compilers for CPUs, TPUs and GPUs place collectives differently: `tests/meshes`
tests CPUs, and these tests cover the others. `benchmarks/collectives.py` has the sizes.
"""

import collections

import jax
import jax.numpy as jnp
import pytest
from compiler_cases import devices
from helpers import usual_promotion

import jaxrnn
from benchmarks.collectives import DRIVERS, compiled
from benchmarks.compilers import hlo

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
    divided_time = pytest.importorskip("benchmarks.compilers.divided_time")
    devices("v5e")
    units, heads, key = 256, 2, 128
    cell, numbers = {
        "MinGRU": (jaxrnn.MinGRUCell(units), 2 * units),
        "mLSTM": (jaxrnn.MLSTMCell(units, heads), heads * (key + 1) * key + 2 * heads),
    }[name]
    with usual_promotion():  # Optax relies on JAX's defaults.
        program = divided_time.compiled(cell, chips, steps=4096, depth=128)
    assert program.in_loops == []
    gathered = sum(one.bytes for one in program.outside if one.kind == "all-gather")
    # Also, whether the map of each row is a constant.
    assert 0 <= gathered - 4 * chips * numbers <= 64
    sums = sum(one.bytes for one in program.outside if one.kind == "all-reduce")
    types = jax.eval_shape(cell.init, jax.random.key(0), jnp.zeros((1, 128)))
    parameters = sum(x.size for x in jax.tree.leaves(types))
    # The gradients of the parameters and of the maps, the loss and the final state.
    assert sums <= 4 * (parameters + (chips + 1) * numbers) + 64


# A training step on many TPU chips.


@pytest.fixture
def scaling():
    """The examples need more packages than other tests here."""
    return pytest.importorskip("benchmarks.compilers.scaling")


KERNELS = 2 * (128 + 256) * 4 * 256  # Both cells.
PARAMETERS = KERNELS + 2 * 4 * 256 + 2 * 256 * 64 + 64
SCALARS = 64  # More than the bytes of the longest length, loss, count and norms.


@pytest.mark.fast("*-4")
@pytest.mark.parametrize("chips", [4, 16])
@pytest.mark.parametrize("layout", ["data parallel", "FSDP"])
def test_a_step_exchanges_gradients_once(scaling, layout, chips):
    devices("v5e")  # Without their compiler, the test is skipped.
    sizes = scaling.Sizes(rows=8, steps=32, features=128, units=256, classes=64)
    with usual_promotion():  # The examples rely on JAX's defaults.
        program = scaling.compiled(chips, layout, sizes)
    assert program.in_loops == []
    sums = collections.Counter()
    for one in program.outside:
        sums[one.kind] += one.bytes
    # Each gradient is summed whole and in float32, even if its parameter is sharded.
    assert 0 < sums.pop("all-reduce") - 4 * PARAMETERS <= SCALARS
    # A TPU's products read bfloat16, so kernels are gathered in bfloat16.
    assert sums == ({"all-gather": 2 * KERNELS} if layout == "FSDP" else {})
