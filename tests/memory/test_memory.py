"""Memory strategies: what they save and where, and that results are the same."""

import dataclasses
import functools
import re

import chex
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import MIB, bound, drawn, plan_of, step_loss, temporary_mib
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, NamedSharding

import jaxrnn
from jaxrnn import DropoutWrapper, FunctionCell, GRUCell, LSTMCell
from jaxrnn._drivers.memory_plan import Bytes, PlannedStrategy
from jaxrnn._run.memory import as_strategy
from jaxrnn.memory import CheckpointPlan, Keep, Offload, Recompute, Strategy
from jaxrnn.testing._oracle import close, weighted_sum

F64 = np.dtype("float64")
strategy_of = functools.partial(as_strategy, "swap_memory")


@dataclasses.dataclass(frozen=True)
class Uneven(Strategy):
    """A user's strategy, whose parts do not divide 11 steps."""

    on_host: bool = True

    def plan(self, time):
        return CheckpointPlan(7, on_host=self.on_host)


class Sixty(Strategy):
    """Parts of runs that are longer than one."""

    def plan(self, time):
        return CheckpointPlan(60 if time > 60 else None)


def count_rows(params, inputs, state, key=None):
    """A state of integers and floats, one leaf of which has no rows."""
    count, (seen, total) = state
    total = jnp.tanh(total + inputs * params["w"])
    return total * seen, (count + 1, (seen + 1.0, total))


CELLS = {
    "lstm": LSTMCell(4, num_proj=3, use_peepholes=True),
    "noisy": DropoutWrapper(LSTMCell(4), 0.7, 0.7, 0.7),
    "function": FunctionCell(
        count_rows,
        (jaxrnn.TensorShape([]), (jaxrnn.TensorShape([]), 3)),
        3,
        lambda key, inputs, dtype: {"w": jnp.full((), 0.7, dtype)},
    ),
}


def make(name, rows=4, time=11):
    cell = CELLS[name]
    x = jnp.asarray(np.random.default_rng(1).normal(size=(rows, time, 3)))
    state = cell.zero_state(rows, F64)
    if name == "function":
        state = jnp.zeros((), jnp.int32), (jnp.ones((), F64), state[1][1])
    return cell, drawn(cell, x[:, 0]), x, state


def run(cell, params, x, state, lengths, strategy):
    bound = cell.bind(params, jax.random.key(7))
    return jaxrnn.dynamic_rnn(bound, x, lengths, state, F64, swap_memory=strategy)


EACH = [("function", strategy) for strategy in (True, Uneven(), Recompute(100))]
EACH += [("lstm", Offload(Keep(), 5)), ("noisy", Uneven())]


@pytest.mark.fast("function-Uneven(on_host=True)")
@pytest.mark.parametrize(("name", "strategy"), EACH, ids=str)
def test_results_are_those_of_keep(name, strategy):
    cell, params, x, state = make(name)
    lengths = np.array([12, 0, 7, 3])
    dead = np.arange(11)[None, :, None] >= lengths[:, None, None]
    given = params, jnp.where(dead, jnp.nan, x), state, jnp.asarray(lengths)
    both = lambda s: jax.jit(lambda *a: run(cell, *a, s))(*given)
    # The steps are the same, but XLA may fuse a product with a sum or not.
    chex.assert_trees_all_close(both(strategy), both(False), rtol=1e-13, atol=1e-16)


def over_devices(f):
    """The sum of `f` over four devices, each with rows of its own."""
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    local = lambda p, x: jax.lax.psum(f(p, x), "data")
    specs = {"in_specs": (jax.P(), jax.P("data")), "out_specs": jax.P()}
    total = jax.shard_map(local, mesh=mesh, **specs)
    return lambda p, x: total(p, jnp.concatenate([x + i for i in range(4)]))


# Second derivatives are compiled only for an affine cell and for a scanned one.
MODES = helpers.MODES | {"shard_map": lambda loss: helpers.gradient(over_devices(loss))}


@pytest.mark.fast("forward-function-*")
@pytest.mark.parametrize(
    ("name", "strategy"),
    [("lstm", Offload(Keep(), 2)), ("function", Recompute(2))],
    ids=str,
)
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_differentiation(name, strategy, mode, request):
    if mode == "backward of backward" and isinstance(strategy, Offload):
        refusal = "JAX transposes no move between memories whose cotangent is on a host"
        request.applymarker(pytest.mark.xfail(reason=refusal))
    cell, params, x, state = make(name, 2, 8)
    lengths = jnp.asarray([8, 2])
    one = lambda s: lambda p, x: weighted_sum(run(cell, p, x, state, lengths, s))
    compiled = (lambda f: f) if mode == "backward" else jax.jit
    got, want = (compiled(MODES[mode](one(s)))(params, x) for s in (strategy, False))
    close(got, want, F64)


@pytest.mark.slow
def test_a_part_saves_no_parameters_and_no_inputs():
    """With the parameters each part would save 2 MiB more."""
    less, more = (temporary_mib(Offload(Keep(), 64), time) for time in (640, 6400))
    a_step = 8 * 256 * 6 * 4 / MIB  # Six numbers for each unit.
    assert more - less == pytest.approx((6400 - 640) * a_step, rel=0.01)


def dynamic_loss(strategy, params, x):
    cell = LSTMCell(8, dtype=jnp.float32).bind(params)
    options = {"time_major": True, "swap_memory": strategy}
    lengths = jnp.full(8, 90)
    return weighted_sum(jaxrnn.dynamic_rnn(cell, x, lengths, dtype=x.dtype, **options))


def raw_loss(strategy, params, x, ends=None, cell=LSTMCell):
    cell = cell(x.shape[-1], dtype=x.dtype).bind(params)
    ends = jnp.full((x.shape[1],), len(x)) if ends is None else ends
    zeros = cell.zero_state(x.shape[1], x.dtype)
    return weighted_sum(helpers.in_raw_rnn(cell, x, zeros, ends, swap_memory=strategy))


PLACED = [(dynamic_loss, Offload(), "cuda"), (raw_loss, Offload(Keep(), 10), "tpu")]


@pytest.mark.fast("dynamic_*")
@pytest.mark.parametrize(("loss", "strategy", "platform"), PLACED)
def test_lowered_for_an_accelerator_states_go_to_the_host_and_back(
    loss, strategy, platform
):
    _, *types = step_loss(strategy, 100, 8)
    gradient = jax.jit(jax.grad(functools.partial(loss, strategy)))
    text = gradient.trace(*types).lower(lowering_platforms=(platform,)).as_text()
    moves = [line for line in text.splitlines() if "annotate_device_placement" in line]
    assert any('"pinned_host"' in line for line in moves)
    assert any('"device"' in line for line in moves)
    # No copy is larger than a part.
    steps = [int(n) for n in re.findall(r"tensor<(\d+)x8x\d+xf32>", "\n".join(moves))]
    assert all(n <= 10 for n in steps) or loss is raw_loss


def test_on_a_cpu_true_is_recompute():
    loss, *types = step_loss(Offload(), 100, 8)
    traced = jax.jit(jax.grad(loss)).trace(*types)
    # Nothing is moved, as a CPU has one memory.
    text = traced.lower(lowering_platforms=("cpu",)).as_text()
    assert "annotate_device_placement" not in text
    assert strategy_of(True) == strategy_of(True, platform="cpu") == Recompute()
    for platform in ("tpu", "gpu"):
        assert strategy_of(True, platform=platform) == Offload(Recompute())
    assert strategy_of(False) == Keep()


@pytest.mark.skipif(
    "platform" not in AbstractDevice.__dataclass_fields__,
    reason="the meshes of this JAX do not tell it",
)
def test_a_mesh_tells_the_platform():
    """Of devices that need not be there, by their arrays or in context."""
    tpu = AbstractDevice(device_kind="TPU v5 lite", num_cores=1, platform="tpu")
    for kind in AxisType.Auto, AxisType.Explicit:
        mesh = AbstractMesh((1,), ("data",), (kind,), abstract_device=tpu)
        with jax.sharding.use_abstract_mesh(mesh):
            assert strategy_of(True) == Offload()
            assert strategy_of(True, platform="cpu") == Recompute()
        whole = NamedSharding(mesh, jax.P())
        loss, *types = step_loss(True, 100, 8, 2)
        put = lambda x, s=whole: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)
        traced = jax.jit(jax.grad(loss)).trace(*jax.tree.map(put, types))
        assert "<host>" in str(traced.jaxpr)


RAW = [(Offload(Keep()), "params"), (Uneven(), "ends")]


@pytest.mark.fast("Uneven*")
@pytest.mark.parametrize(("strategy", "mapped"), RAW, ids=str)
def test_raw_rnn_gives_what_it_gives_without(strategy, mapped):
    x = jnp.swapaxes(make("lstm")[2], 0, 1)
    params = drawn(jaxrnn.BasicRNNCell(3), x[0])
    ends = jnp.asarray([[9, 0, 7, 3], [2, 2, 1, 2]], jnp.int32)
    axes = (None, None, 0)
    if mapped == "params":  # Entries on the host are then read at one index for all.
        params = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), params)
        ends, axes = ends[0], (0, None, None)
    loss = functools.partial(raw_loss, cell=jaxrnn.BasicRNNCell)
    gradient = jax.grad(loss, (1, 2))
    mapped = jax.jit(jax.vmap(gradient, (None, *axes)), static_argnums=0)
    close(mapped(strategy, params, x, ends), mapped(False, params, x, ends), F64)


def test_a_divisor_is_taken_if_one_is_near_the_square_root():
    assert Recompute().plan(1000) == CheckpointPlan(25)
    assert Recompute().plan(9973) == CheckpointPlan(100)  # A prime.


# `memory_plan`, compared with the memory of compiled programs

LSTM = LSTMCell(256)
PLANNED = {
    "lstm": (LSTM, None),
    "scan": (LSTM, "scan"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANNED)
def test_numbers_are_those_of_compiled_programs(name):
    cell, implementation = PLANNED[name]
    strategies = Keep(), Recompute(), Offload(Recompute(64))
    options = {"implementation": implementation}
    plan = plan_of(cell, (3000, 8, 256), strategies, **options)
    for row in plan.rows:
        taken = temporary_mib(row.strategy, 3000, cell=cell, **options)
        planned = sum(row.peak) / MIB  # On a CPU, host memory is device memory.
        assert planned == pytest.approx(taken, rel=0.01, abs=0.1), row.strategy
        # The peak includes the saved memory.
        assert sum(row.saved) < 1.02 * sum(row.peak), row.strategy


def test_a_plan_is_a_table():
    x = jnp.zeros((4, 500, 3))
    device = jax.devices()[1]
    plan = functools.partial(jaxrnn.memory_plan, bound(GRUCell(64)), x, dtype=F64)
    plan = plan(strategies=[False, Offload()], device=device)
    keep, swap = plan.rows
    assert plan.device == "cpu"
    assert keep.strategy == Keep()
    # Saved for each step and row: products and state, 64 * (3 + 1) numbers of 8 bytes.
    assert keep.saved.device == pytest.approx(500 * 4 * 64 * 4 * 8, rel=0.05)
    assert swap.strategy == Offload(Recompute())
    assert swap.saved.host < keep.saved.device / 4
    assert "over 500 steps of 4 rows\n" in repr(plan)
    assert "\nOffload() " in repr(plan)


@pytest.mark.slow
def test_a_plan_is_of_the_run_that_the_arguments_describe():
    """Here, inputs are a nest of types, rows have lengths, and the state is given."""

    def step(params, x, state, key=None):
        count, h = state
        return h, (count + 1, jnp.sin(h) + x["a"] * params["w"] + x["b"])

    cell = FunctionCell(step, (jaxrnn.TensorShape([]), 2), 2)
    cell = cell.bind({"w": jnp.ones((), jnp.float32)})
    types = lambda time: jax.ShapeDtypeStruct((3, time, 2), jnp.float32)
    state = jnp.zeros((), jnp.int32), jax.ShapeDtypeStruct((3, 2), jnp.float32)

    def plan(time, lengths):
        inputs = {"a": types(time), "b": types(time)}
        options = {"dtype": jnp.float32, "strategies": [False]}
        plan = jaxrnn.memory_plan(cell, inputs, lengths, state, **options)
        explained = jaxrnn.explain(cell, inputs, lengths, state, dtype=jnp.float32)
        (row,) = plan.rows
        assert (plan.title, row.saved) == (explained.title, explained.saved)
        assert plan.inputs == 2 * plan.outputs == 2 * 3 * time * 2 * 4
        return row

    # Each step saves the sine's derivative and its inputs `a`.
    more = plan(80, None).saved.device - plan(40, None).saved.device
    assert more == 40 * 2 * 3 * 2 * 4
    # With lengths, it also saves which rows go on.
    assert plan(40, [40, 2, 0]).saved.device > plan(40, None).saved.device


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
    assert repr(plan) == PLAN_OF_A_TPU


plan = functools.partial(jaxrnn.memory_plan, bound(GRUCell(64)), np.ones((1, 2, 3)))
REFUSALS = [
    (ValueError, "`part`", lambda: Recompute(0)),
    (ValueError, "`part`", lambda: Offload(Sixty(), 3)),
    (TypeError, "`swap_memory`", lambda: strategy_of(Recompute)),
    (ValueError, "`inputs`", lambda: plan_of(GRUCell(64), (10**8, 10**8, 1), [False])),
    (TypeError, "`device`", lambda: plan(device="v5e")),
    (TypeError, "swap_memory", lambda: plan(swap_memory=True)),
    (TypeError, "`strategies[0]`", lambda: plan(strategies=[4])),
]
test_refusal = helpers.refusals(REFUSALS, prepare=re.escape)
