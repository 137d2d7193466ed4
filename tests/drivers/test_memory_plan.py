"""`memory_plan`, compared with the memory of compiled programs."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import MIB, temporary_mib

import jaxrnn
from jaxrnn import FunctionCell, GRUCell, LSTMCell, MinGRUCell, MultiRNNCell
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
    assert keep.strategy == Keep()
    # Saved for each step and row: products and state, 64 * (3 + 1) numbers of 8 bytes.
    assert keep.saved.device == pytest.approx(500 * 4 * 64 * 4 * 8, rel=0.05)
    assert swap.strategy == Offload(Recompute())
    assert swap.saved.host < keep.saved.device / 4
    lines = str(plan).splitlines()
    assert "over 500 steps of 4 rows, float64" in lines[0]
    assert any(line.startswith("Offload() ") for line in lines)


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

strategy     saved  saved on host     peak  peak on host
--------------------------------------------------------
Offload()  3.0 KiB        2.0 KiB  1.0 MiB       5.0 MiB

In addition: inputs 1.0 GiB; outputs 2.0 GiB (doubled if the loss reads them).
Compiled for TPU v5 lite; nothing was run."""


def test_the_table_of_another_device_has_the_peak_on_the_host():
    saved, peak = Bytes(3 * 2**10, 2 * 2**10), Bytes(2**20, 5 * 2**20)
    rows = (PlannedStrategy(Offload(), saved, peak),)
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


def test_what_is_not_a_device():
    message = (
        "^`device` must be a device, got 'v5e'. Pass one of `jax.devices\\(\\)`, or"
    )
    with pytest.raises(TypeError, match=message):
        jaxrnn.memory_plan(GRUCell(2), (1, 2, 3), device="v5e")


NO_SHAPE = "`inputs_shape` must be .* with at least 3 axes,.* got"
SIZE = r"`inputs_shape\[1\]` must be"
TOO_LARGE = ".* must .* at most 1.0 EiB"
REFUSED_SHAPES = [
    (ValueError, rf"{NO_SHAPE} \(1, 2\)", (1, 2)),
    (ValueError, f"{NO_SHAPE} 'abc'", "abc"),
    (ValueError, r"`inputs_shape\['a'\]` must be .*, got \(2, 3\)", {"a": (2, 3)}),
    (ValueError, "`inputs_shape` must hold at least one array", {}),
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
