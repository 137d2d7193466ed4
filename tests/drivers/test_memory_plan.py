"""`memory_plan`, compared with the memory of compiled programs."""

import os
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import MIB, temporary_mib
from jax.experimental import topologies

import jaxrnn
from jaxrnn import FunctionCell, GRUCell, LSTMCell, MinGRUCell, MultiRNNCell
from jaxrnn._drivers.absent_devices import absent_devices
from jaxrnn._drivers.memory_plan import Bytes, PlannedStrategy, peak_bytes
from jaxrnn.memory import Keep, Nested, Offload, Recompute

F64 = np.dtype("float64")

LSTM = LSTMCell(256)
PLANNED = {
    "lstm": LSTM,
    "stack": MultiRNNCell([LSTM, LSTM]),
    "recurrence": MinGRUCell(256),
    "scanned": FunctionCell(LSTM.apply, LSTM.state_size, 256, LSTM.init),
}
STRATEGIES = [Keep(), Recompute(), Nested(), Offload(Keep()), Offload(Recompute(64))]


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANNED)
def test_numbers_are_those_of_compiled_programs(name):
    cell = PLANNED[name]
    plan = jaxrnn.memory_plan(cell, (3000, 8, 256), STRATEGIES, time_major=True)
    for row in plan.rows:
        taken = temporary_mib(row.strategy, 3000, cell=cell)
        planned = sum(row.peak) / MIB  # On a CPU, host memory is device memory.
        assert planned == pytest.approx(taken, rel=0.01, abs=0.1), row.strategy
        # The peak includes the saved memory.
        assert sum(row.saved) < 1.02 * sum(row.peak), row.strategy


def test_a_plan_is_a_table():
    cell = GRUCell(64)
    x = jnp.zeros((4, 500, 3))
    bound = cell.bind(cell.init(jax.random.key(0), x[:, 0]))
    plan = jaxrnn.memory_plan(bound, x, [False, Offload()], dtype=F64)
    keep, swap = plan.rows
    assert (keep.strategy, keep.extra_flops) == (Keep(), 0)
    # Saved for each step and row: products and state, 64 * (3 + 1) numbers of 8 bytes.
    assert keep.saved.device == pytest.approx(500 * 4 * 64 * 4 * 8, rel=0.05)
    assert swap.strategy == Offload(Recompute())
    assert swap.saved.host < keep.saved.device / 4
    # One more forward pass: products of 67 by 192 for each row and step. XLA also
    # counts the element-wise operations.
    products = 2 * 67 * 192 * 4 * 500
    assert products < swap.extra_flops < 1.1 * products
    assert swap.extra_share == pytest.approx(1 / 3)
    lines = str(plan).splitlines()
    assert "over 500 steps of 4 rows, float64" in lines[0]
    assert any(line.startswith("Offload() ") for line in lines)


@pytest.mark.parametrize(("cell", "share"), [(LSTMCell(8), 0), (MinGRUCell(8), 1 / 3)])
def test_offloading_what_is_kept_runs_some_cells_again(cell, share):
    plan = jaxrnn.memory_plan(cell, (2, 200, 8), [Offload(Keep())])
    assert plan.rows[0].extra_share == pytest.approx(share)


def test_inputs_may_be_a_nest():
    """Shapes are float32 arrays; a cell that the driver scans reads integers too."""

    def step(params, x, h, key=None):
        floats, integers = x["b"]
        return h, h + x["a"] * params + floats + integers

    cell = FunctionCell(step, 2, 2, lambda key, inputs, dtype: jnp.ones((), dtype))
    integers = jnp.ones((3, 50, 2), jnp.int16)
    shapes = {"a": tuple(np.array([3, 50, 2])), "b": [[3, 50, 2], integers]}
    struct = jax.ShapeDtypeStruct((3, 50, 2), jnp.float32)
    structs = {"a": struct, "b": [struct, integers]}
    with jax.numpy_dtype_promotion("standard"):
        plan, same = (
            jaxrnn.memory_plan(cell, x, [False, Recompute()]) for x in (shapes, structs)
        )
    assert plan == same
    keep, again = plan.rows
    # For each of three rows, a step has one multiplication and three additions.
    assert again.extra_flops >= 50 * 3 * 2 * 4
    assert again.saved.device < keep.peak.device


@pytest.mark.slow
def test_a_device_that_is_there():
    plan_on = lambda device: jaxrnn.memory_plan(
        GRUCell(8), (2, 60, 3), [False, True], device=device
    )
    plan = plan_on(None)
    assert plan_on(jax.devices()[1]) == plan
    assert plan.device == "cpu"


PLAN_OF_A_TPU = """\
GRUCell over 2 steps of 1 row, on TPU v5 lite

strategy     saved  saved on host     peak  peak on host  extra FLOPs
---------------------------------------------------------------------
Offload()  3.0 KiB        2.0 KiB  1.0 MiB       5.0 MiB         none

In addition: inputs 1.0 GiB; outputs 2.0 GiB (doubled if the loss reads them).
Compiled for TPU v5 lite; nothing was run."""


def test_the_table_of_another_device_has_the_peak_on_the_host():
    saved, peak = Bytes(3 * 2**10, 2 * 2**10), Bytes(2**20, 5 * 2**20)
    rows = (PlannedStrategy(Offload(), saved, peak, 0, 0.0),)
    title = "GRUCell over 2 steps of 1 row, on TPU v5 lite"
    plan = jaxrnn.MemoryPlan(title, rows, 2**30, 2**31, "TPU v5 lite")
    assert str(plan) == PLAN_OF_A_TPU


# The figures of libtpu 0.0.42 for an LSTM with 512 units over 4,096 steps of 64 rows,
# in MiB, and the peak of the device without arguments and results.
FIGURES = {
    "keep": ((520, 8, 5392, 7171, 0), 4864),
    "recompute": ((520, 8, 784, 257, 0), 256),
    "offload": ((520, 8, 3600, 297, 3072), 297),  # The peak includes host memory.
}


@pytest.mark.parametrize("name", FIGURES)
def test_the_peak_of_an_accelerator_is_its_compilers(name):
    (arguments, results, peak, temporary, host), want = FIGURES[name]
    memory = types.SimpleNamespace(
        argument_size_in_bytes=arguments,
        output_size_in_bytes=results,
        peak_memory_in_bytes=peak,
        temp_size_in_bytes=temporary,
        host_temp_size_in_bytes=host,
    )
    assert peak_bytes(memory, "tpu") == Bytes(want, host)
    assert peak_bytes(memory, "cpu") == Bytes(temporary, host)


def plan_for(device):
    return jaxrnn.memory_plan(GRUCell(2), (1, 2, 3), device=device)


NAMES = "'v5e', 'v6e', 'v5p', 'h100'"


def test_an_unknown_device():
    message = (
        f"`device` must be one of {NAMES}, got 'v99'. "
        "For another kind, pass a device from `jax.experimental.topologies`."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        plan_for("v99")
    message = f"`device` must be a device or one of {NAMES}, got [Device, "
    with pytest.raises(TypeError, match=f"^{re.escape(message)}"):
        plan_for(jax.devices())
    with pytest.raises(ValueError, match="`count` must be at most 256, got 257"):
        absent_devices("v5e", 257)


# JAX's error without a compiler, and the package that has it.
NOT_INSTALLED = [
    ("v5e", RuntimeError, "jax[tpu]"),
    ("h100", NotImplementedError, "jax[cuda12-local]"),
]


@pytest.mark.parametrize(("kind", "error", "package"), NOT_INSTALLED)
def test_a_device_whose_compiler_is_not_installed(kind, error, package, monkeypatch):
    message = (
        f"`device` {kind!r} needs a compiler that JAX cannot find. "
        f"Run `pip install '{package}'`."
    )

    def fail(**kwargs):
        raise error

    monkeypatch.setattr(topologies, "get_topology_desc", fail)
    with pytest.raises(ImportError, match=f"^{re.escape(message)}"):
        plan_for(kind)


def test_the_environment_of_libtpu_is_restored(monkeypatch):
    seen = {}

    def describe(**kwargs):
        seen.update(os.environ)
        raise RuntimeError

    monkeypatch.setattr(topologies, "get_topology_desc", describe)
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "0")
    monkeypatch.delenv("ALLOW_MULTIPLE_LIBTPU_LOAD", raising=False)
    before = dict(os.environ)
    with pytest.raises(ImportError, match="needs a compiler"):
        plan_for("v5e")
    assert seen == before | {"ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    assert dict(os.environ) == before


NO_SHAPE = "`inputs_shape` must be .* with at least 3 axes,.* got"
SIZE = r"`inputs_shape\[1\]` must be"
TOO_LARGE = ".* must .* at most 1.0 EiB"
REFUSED_SHAPES = [
    (ValueError, rf"{NO_SHAPE} \(1, 2\)", (1, 2)),
    (ValueError, f"{NO_SHAPE} 'abc'", "abc"),
    (ValueError, r"`inputs_shape\['a'\]` must be .*, got \(2, 3\)", {"a": (2, 3)}),
    (ValueError, "`inputs_shape` must hold a shape or array, got {}", {}),
    (ValueError, f"{SIZE} at least 1, got 0", np.ones((2, 0, 4))),
    (TypeError, f"{SIZE} an integer, got 3.0", (2, 3.0, 4)),
    (TypeError, f"{SIZE} .*, got True", (1, True, 3)),
    (ValueError, f"{SIZE} .*, got 0", (1, 0, 3)),
    (ValueError, rf"{SIZE} .*, got {10**30}", (1, 10**30, 3)),
    (ValueError, TOO_LARGE, (10**8, 10**8, 1)),
    pytest.param(ValueError, TOO_LARGE, (10**9,) * 3, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("kind", "message", "shape"), REFUSED_SHAPES)
def test_refused_shapes(kind, message, shape):
    with pytest.raises(kind, match=message):
        jaxrnn.memory_plan(GRUCell(64), shape)


def test_complex_states():
    step = lambda params, inputs, state, key=None: (params * state, params * state)
    cell = FunctionCell(step, 4, 4)
    plans = [
        jaxrnn.memory_plan(
            cell.bind(np.ones((), dtype)), (2, 8, 4), [False], dtype=dtype
        )
        for dtype in (np.complex64, np.float64)
    ]
    assert plans[0].rows[0].saved == plans[1].rows[0].saved
    assert plans[0].rows[0].saved.device >= 8 * 2 * 4 * 8


def test_refused_cells_and_strategies():
    for cell in (3, types.SimpleNamespace(params={}), GRUCell):
        message = "^`cell` must be an unbound cell, .* got "
        with pytest.raises(TypeError, match=message):
            jaxrnn.memory_plan(cell, (1, 2, 3))
    with pytest.raises(TypeError, match=r"`strategies\[0\]` must be"):
        jaxrnn.memory_plan(GRUCell(2), (1, 2, 3), [4])
