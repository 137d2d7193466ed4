"""Memory strategies: what they save and where, and that results are the same."""

import dataclasses
import functools
import math
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import MIB, drawn, step_loss, temporary_mib
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, NamedSharding

import jaxrnn
from jaxrnn import DropoutWrapper, FunctionCell, GRUCell, LSTMCell, MultiRNNCell, memory
from jaxrnn.memory import CheckpointPlan, Keep, Nested, Offload, Recompute, Strategy
from jaxrnn.testing._oracle import close, weighted_sum

F64 = np.dtype("float64")


@dataclasses.dataclass(frozen=True)
class Uneven(Strategy):
    """A user's strategy: segments within segments whose sizes do not divide."""

    on_host: bool = True

    def plan(self, time):
        # 11 leaves a remainder of 4, and both 7 and 4 leave one of 1.
        return CheckpointPlan((7, 3), on_host=self.on_host)


class Sixty(Strategy):
    """Segments of runs that are longer than one."""

    def plan(self, time):
        return CheckpointPlan((60,) if time > 60 else ())


STRATEGIES = [
    True,
    Offload(),
    Recompute(1),
    Recompute(4),
    Recompute(100),
    Nested(2),
    Offload(Keep(), 5),
    Offload(Nested(3)),
    Uneven(),
]


def count_rows(params, inputs, state, key=None):
    """A state of integers and floats, one leaf of which has no rows."""
    count, (seen, total) = state
    total = jnp.tanh(total + inputs * params["w"])
    return total * seen, (count + 1, (seen + 1.0, total))


CELLS = {
    "lstm": LSTMCell(4, num_proj=3, use_peepholes=True),
    "stack": MultiRNNCell([LSTMCell(4), GRUCell(3)]),
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
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(rows, time, 3)))
    params = drawn(cell, x[:, 0])
    state = cell.zero_state(rows, F64)
    if name == "function":
        state = jnp.zeros((), jnp.int32), (jnp.ones((), F64), state[1][1])
    return cell, params, x, state


def run(cell, params, x, state, lengths, strategy, **kwargs):
    bound = cell.bind(params, jax.random.key(7))
    return jaxrnn.dynamic_rnn(
        bound, x, lengths, state, dtype=F64, swap_memory=strategy, **kwargs
    )


def loss(params, x, cell, state, lengths, strategy):
    return weighted_sum(run(cell, params, x, state, lengths, strategy))


EACH = [("function", s) for s in STRATEGIES] + [
    (name, s) for name in ("lstm", "stack", "noisy") for s in (Recompute(4), Uneven())
]


@pytest.mark.fast("function-Offload(Nested(3))", "function-Uneven(on_host=True)")
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
MODES = {
    "eager": lambda f: jax.grad(f),
    "vmap": lambda f: (
        lambda p, x: jax.vmap(jax.grad(f, 1), (None, 0))(p, jnp.stack([x, x + 1]))
    ),
    "checkpoint": lambda f: jax.grad(jax.checkpoint(f)),
    "shard_map": lambda f: jax.grad(over_devices(f), (0, 1)),
    "forward": lambda f: lambda p, x: jax.jvp(f, (p, x), (p, jnp.cos(x))),
    "forward of backward": lambda f: (
        lambda p, x: jax.jvp(jax.grad(f), (p, x), (p, jnp.cos(x)))
    ),
    "backward of backward": lambda f: jax.grad(
        lambda p, x: weighted_sum(jax.grad(f, (0, 1))(p, x))
    ),
}


@pytest.mark.fast("lstm-forward of backward-Offload(Keep(), 2)")
@pytest.mark.parametrize("strategy", [Offload(Keep(), 2), Nested(2)], ids=str)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["lstm", "function"])
def test_every_mode_of_differentiation(name, mode, strategy, request):
    if mode == "backward of backward" and isinstance(strategy, Offload):
        refusal = "JAX transposes no move between memories whose cotangent is on a host"
        request.applymarker(pytest.mark.xfail(reason=refusal))
    cell, params, x, state = make(name, 2, 8)
    lengths = jnp.asarray([8, 2])
    one = lambda s: lambda p, x: loss(p, x, cell, state, lengths, s)
    compiled = (lambda f: f) if mode == "eager" else jax.jit
    got, want = (compiled(MODES[mode](one(s)))(params, x) for s in (strategy, False))
    close(got, want, F64)


def test_segments_of_the_square_root_take_a_twentieth():
    assert temporary_mib(Recompute(), 10_000) <= temporary_mib(False, 10_000) / 20


def test_segments_of_one_size_take_the_states_between_them():
    # Two leaves of 256 numbers for each of 8 rows, 4 bytes each, 16 KiB a segment.
    less, more = (temporary_mib(Recompute(64), time) for time in (6400, 64_000))
    assert more - less == pytest.approx((1000 - 100) * 16 / 1024, rel=0.2)


def test_a_segment_saves_no_parameters_and_no_inputs():
    """With the parameters each segment would save 2 MiB more."""
    less, more = (temporary_mib(Offload(Keep(), 64), time) for time in (640, 6400))
    a_step = 8 * 256 * 6 * 4 / MIB  # Six numbers for each unit.
    assert more - less == pytest.approx((6400 - 640) * a_step, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [Recompute(64), Nested()], ids=str)
def test_inputs_are_not_copied_if_segments_do_not_divide_time(strategy):
    inputs = 8 * 256 * 10_007 * 4 / MIB
    assert temporary_mib(strategy, 10_007) < inputs / 2


def test_inputs_are_not_copied_to_be_transposed():
    inputs = 8 * 256 * 10_000 * 4 / MIB
    assert temporary_mib(True, 10_000, time_major=False) < inputs / 2


PLACES = {
    "dynamic": lambda *args: loss_with(jaxrnn.dynamic_rnn, *args),
    "bidirectional": lambda *args: loss_with(both_ways, *args),
    "raw": lambda *args: raw_loss(*args),
}


def loss_with(driver, strategy, params, x):
    cell = LSTMCell(8, dtype=jnp.float32).bind(params)
    options = {"time_major": True, "swap_memory": strategy}
    return weighted_sum(driver(cell, x, jnp.full(8, 90), dtype=x.dtype, **options))


def both_ways(cell, *args, **kwargs):
    return jaxrnn.bidirectional_dynamic_rnn(cell, cell, *args, **kwargs)


def raw_loss(strategy, params, x, ends=None):
    cell = LSTMCell(x.shape[-1], dtype=x.dtype).bind(params)
    ends = jnp.full((x.shape[1],), len(x)) if ends is None else ends

    def feed(time, output, state, loop_state):
        state = cell.zero_state(x.shape[1], x.dtype) if output is None else state
        inputs = x[jnp.minimum(time, len(x) - 1)]
        return time >= ends, inputs, state, output, None

    options = {"max_time": len(x), "swap_memory": strategy}
    emit_ta, state, _ = jaxrnn.raw_rnn(cell, feed, **options)
    return weighted_sum((emit_ta.stack(), state))


@pytest.mark.fast("bidirectional-Offload()-tpu", "raw-Offload(Keep(), 10)-cuda")
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("strategy", [Offload(), Offload(Keep(), 10)], ids=str)
@pytest.mark.parametrize("place", PLACES)
def test_lowered_for_an_accelerator_states_go_to_the_host_and_back(
    place, strategy, platform
):
    _, *types = step_loss(strategy, 100, 8)
    gradient = jax.jit(jax.grad(functools.partial(PLACES[place], strategy)))
    text = gradient.trace(*types).lower(lowering_platforms=(platform,)).as_text()
    moves = [line for line in text.splitlines() if "annotate_device_placement" in line]
    assert any('"pinned_host"' in line for line in moves)
    assert any('"device"' in line for line in moves)
    # No copy is larger than a segment.
    steps = [int(n) for n in re.findall(r"tensor<(\d+)x8x\d+xf32>", "\n".join(moves))]
    assert all(n <= 10 for n in steps) or place == "raw"


def test_on_a_cpu_true_is_recompute():
    loss, *types = step_loss(Offload(), 100, 8)
    traced = jax.jit(jax.grad(loss)).trace(*types)
    # Nothing is moved, as a CPU has one memory.
    text = traced.lower(lowering_platforms=("cpu",)).as_text()
    assert "annotate_device_placement" not in text
    assert memory.resolve(True, "cpu") == Recompute()
    for platform in ("tpu", "gpu"):
        assert memory.resolve(True, platform) == Offload(Recompute())
    assert memory.resolve(True) == Recompute()
    assert memory.resolve(False) == Keep()


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
            assert memory.resolve(True) == Offload()
            assert memory.resolve(True, "cpu") == Recompute()
        whole = NamedSharding(mesh, jax.P())
        loss, *types = step_loss(True, 100, 8, 2)
        put = lambda x, s=whole: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)
        traced = jax.jit(jax.grad(loss)).trace(*jax.tree.map(put, types))
        assert "<host>" in str(traced.jaxpr)


RAW = [Offload(), Recompute(4), Offload(Keep()), Uneven()]


@pytest.mark.fast("Offload(Keep())-params")
@pytest.mark.parametrize("mapped", ["ends", "params"])
@pytest.mark.parametrize("strategy", RAW, ids=str)
def test_raw_rnn_gives_what_it_gives_without(strategy, mapped):
    _, params, x, _ = make("lstm", 4, 11)
    params = drawn(LSTMCell(3), x[:, 0])
    x = jnp.swapaxes(x, 0, 1)
    ends = jnp.asarray([[9, 0, 7, 3], [2, 2, 1, 2]], jnp.int32)
    axes = (None, None, 0)
    if mapped == "params":  # Entries on the host are then read at one index for all.
        params = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), params)
        ends, axes = ends[0], (0, None, None)
    gradient = jax.grad(raw_loss, (1, 2))
    mapped = jax.jit(jax.vmap(gradient, (None, *axes)), static_argnums=0)
    close(mapped(strategy, params, x, ends), mapped(False, params, x, ends), F64)


@pytest.mark.slow
def test_raw_rnn_keeps_the_states_between_segments():
    def mib(strategy):
        _, *types = step_loss(strategy, 4096, 64)
        loss = lambda p, x: raw_loss(strategy, p, x)
        compiled = jax.jit(jax.grad(loss)).lower(*types).compile()
        return compiled.memory_analysis().temp_size_in_bytes / MIB

    # Two leaves of 64 numbers for each of 8 rows, 4 bytes each: 4 KiB a segment.
    states = lambda size: 4096 / size * 8 * 64 * 2 * 4 / MIB
    saved = mib(Recompute(4)) - mib(Recompute(64))
    assert saved == pytest.approx(states(4) - states(64), rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [Recompute(2), Offload(Keep(), 4)], ids=str)
def test_packed_rows_restart_in_any_segment(strategy):
    cell, params, x, _ = make("noisy", 5, 9)
    packed = jaxrnn.pack_sequences(np.asarray(x), [9, 2, 0, 5, 3])

    def loss(params, strategy):
        bound = cell.bind(params, jax.random.key(1))
        out = jaxrnn.packed_rnn(bound, packed, dtype=F64, swap_memory=strategy)
        return weighted_sum(out)

    close(jax.grad(loss)(params, strategy), jax.grad(loss)(params, False), F64)


@pytest.mark.slow  # It looks through all objects of the process.
@pytest.mark.parametrize("strategy", [Nested(2), Offload(Keep(), 3)], ids=str)
def test_no_program_holds_on_to_a_tracer(strategy):
    cell, params, x, state = make("lstm", time=4)
    gradient = jax.grad(lambda p, x: loss(p, x, cell, state, None, strategy))
    with jax.checking_leaks():
        jax.jit(gradient)(params, x)


def test_with_a_symbolic_number_of_steps_everything_is_saved():
    cell, params, x, _ = make("lstm")
    (time,) = jax.export.symbolic_shape("time")
    shape = jax.ShapeDtypeStruct((4, time, 3), F64)
    forward = jax.jit(lambda x: run(cell, params, x, None, None, True))
    exported = jax.export.export(forward)(shape)
    close(exported.call(x), run(cell, params, x, None, None, False), F64)


@pytest.mark.parametrize("time", [1, 2, 3, 10, 97, 100, 1000, 9973, 10_000])
def test_plans_cover_all_steps_in_segments_within_segments(time):
    root = Recompute().plan(time).segments[0]
    assert abs(root - math.sqrt(time)) <= max(1, 0.26 * math.sqrt(time))
    for branches in (2, 3, 8):
        *outer, inner = Nested(branches).plan(time).segments
        powers = range(len(outer), 0, -1)
        assert [size // inner for size in outer] == [branches**p for p in powers]
        # The outermost segments cover all steps, and not many more.
        covered = branches * max(outer, default=inner)
        assert time <= covered < time + branches ** (len(outer) + 1)


@pytest.mark.parametrize(
    ("strategy", "time", "segments"),
    [
        # The innermost segments are as short as they can be.
        (Nested(2), 64, (32, 16, 8, 4, 2)),
        (Nested(2), 1000, (512, 256, 128, 64, 32, 16, 8, 4, 2)),
        (Nested(8), 100, (13,)),  # 8 segments of 12 steps would lack 4.
        (Nested(8), 1000, (128, 16)),  # 64 segments of 15 steps would lack 40.
        # A divisor is taken if one is near the square root.
        (Recompute(), 10_000, (100,)),
        (Recompute(), 1000, (25,)),
        (Recompute(), 9973, (100,)),  # A prime.
    ],
    ids=str,
)
def test_the_segments_of_plans(strategy, time, segments):
    assert strategy.plan(time) == CheckpointPlan(segments)


REFUSALS = {
    "chunk": (ValueError, "`segment` must be at least 1, got 0", lambda: Recompute(0)),
    "chunk_kind": (TypeError, "`segment` must be an integer, got 1.5", lambda: Recompute(1.5)),
    "branches": (ValueError, "`branches` must be at least 2, got 1", lambda: Nested(1)),
    "of": (TypeError, "`of` must be a strategy, got 3", lambda: Offload(3)),
    "segments": (TypeError, "`segments` must be a tuple, such as .*, got 64", lambda: CheckpointPlan(64)),
    "chunks_above": (ValueError, "`segment` must be None for Sixty", lambda: Offload(Sixty(), 3)),
    "chunks_twice": (ValueError, "`segment` must be None for Recompute", lambda: Offload(Recompute(), 3)),
    "class": (TypeError, "got the class Recompute", lambda: memory.resolve(Recompute)),
    "kind": (TypeError, "`swap_memory` must be True, False or a strategy", lambda: memory.resolve("host")),
    "platform": (ValueError, "`platform` must be None or one of cpu, gpu, .* got 'banana'", lambda: memory.resolve(True, "banana")),
    "traced": (TypeError, "`swap_memory` must be", lambda: jax.jit(memory.resolve)(True)),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "message", "call"), REFUSALS.values(), ids=REFUSALS)
def test_refusal(kind, message, call):
    with pytest.raises(kind, match=message):
        call()
