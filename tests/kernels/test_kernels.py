"""Kernels, interpreted and lowered, against XLA's loop."""

import dataclasses
import functools
import re
from collections.abc import Callable
from types import SimpleNamespace

import cases
import helpers
import jax
import jax.numpy as jnp
import kernel_specs as specs
import numpy as np
import pytest
from helpers import differentiated, eqns
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from kernel_specs import BF16, F32

import jaxrnn
from jaxrnn import (
    AffineCell,
    BasicRNNCell,
    CudnnCompatibleGRUCell,
    GRUCell,
    LSTMCell,
    Stage,
)
from jaxrnn._cells.initializers import ParamSpec
from jaxrnn._kernels import machines as _machines, vmem as _vmem
from jaxrnn._kernels.padded_sizes import padded as padded_work, why_not_padded
from jaxrnn._kernels.pallas_mosaic_tpu import PallasMosaicTPU
from jaxrnn._kernels.pallas_triton import PallasTriton
from jaxrnn.testing._oracle import weighted_sum

assert_near = functools.partial(helpers.assert_near, tolerance=2e-5)

# Tiles of 8 rows and blocks of 4 steps, so that small shapes have several of each.
TPU = PallasMosaicTPU(rows=8, block=4, interpret=True)
TRITON = PallasTriton(interpret=True)
# Cells whose loop no kernel runs, and the reason in the message.
DECLINED = {
    "residual_fn": "`residual_fn` is a function of one step",
    "dropout": "DropoutWrapper drops the state at every step",
    "dropout_filter": "DropoutWrapper drops the state at every step",
    "dropout_variational": "DropoutWrapper drops the state at every step",
    "device": "DeviceWrapper has no `apply_sequence`",
    "layer_norm_basic_lstm_dropout": "LayerNormBasicLSTMCell draws a mask at every",
    **dict.fromkeys(
        ("attention_cell", "attention_joined"), "Wrapper has no `apply_sequence`"
    ),
    **dict.fromkeys(
        ("grid", "grid_bidirectional", "grid_joined"), "c of the window below"
    ),
    "ntm": "NTMCell has no `apply_sequence`",
    **dict.fromkeys(
        ("ind_rnn", "indy_gru", "indy_lstm", "lru", "min_gru", "mlstm", "rg_lru"),
        "no product reads the state",
    ),
}


@pytest.fixture(params=[TPU, TRITON], ids=lambda kernel: kernel.name)
def kernel(request):
    """Each kernel, interpreted."""
    # Pallas cannot interpret masked stores where integers have 64 bits.
    with jax.enable_x64(request.param is not TRITON):
        yield request.param


@pytest.mark.parametrize("kernel", [TPU, TRITON], ids=["tpu", "triton"])
def test_no_steps_are_run_by_none(kernel):
    cell, x = jaxrnn.LSTMCell(16), jnp.zeros((2, 0, 16), F32)
    params = cell.init(jax.random.key(0), x[:, 0:1].reshape(0, 16))

    def loss(params, state):
        run = jaxrnn.dynamic_rnn(
            cell.bind(params), x, [0, 0], state, implementation=kernel
        )
        return weighted_sum(run)

    state = jax.tree.map(jnp.ones_like, cell.zero_state(2, F32))
    d_params, d_state = jax.grad(loss, (0, 1))(params, state)
    assert not any(leaf.any() for leaf in jax.tree.leaves(d_params))
    assert all(leaf.all() for leaf in d_state)


def data(cell, batch, time, depth, dtype=F32, seed=0):
    """`(params, x, lengths, state)`, lengths from 0 to all."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape) * 0.7, dtype)
    x = draw(batch, time, depth)
    params = cell.init(jax.random.key(0), x[:, 0])
    params = jax.tree.map(lambda p: draw(*p.shape), params)
    state = jax.tree.map(lambda s: draw(*s.shape), cell.zero_state(batch, dtype))
    lengths = np.resize(np.linspace(0, time, min(batch, 4)).round(), batch)
    lengths = np.where(lengths == time, 10 * time, lengths)  # Clipped to `time`.
    return params, x, jnp.asarray(lengths[::-1], jnp.int32), state


def run(cell, implementation, params, x, lengths, state, key=None, **kwargs):
    return jaxrnn.dynamic_rnn(
        cell.bind(params, key),
        x,
        lengths,
        state,
        implementation=implementation,
        **kwargs,
    )


def everything(cell, implementation, params, x, lengths, state, **kwargs):
    """Outputs, final state, and gradients with respect to parameters, inputs, state."""

    return differentiated(
        lambda params, x, state: run(
            cell, implementation, params, x, lengths, state, **kwargs
        ),
        params,
        x,
        state,
    )


# The other cells are not affine, or consist of those that are here.
SWEPT = cases.CASES.keys() - {"function_nested", "function_integers", "deep"}
SWEPT -= {"multi_shared", "basic_rnn_relu", "gru_sigmoid"}
# Nor are those whose inputs are no vectors.
SWEPT -= {"embedding", "phased", "phased_fixed", "conv", "conv1d", "conv2d", "conv3d"}
SWEPT -= {"attention"}  # A driver that carries a memory asks no kernel.
SWEPT -= {"gru_block", "lstm_block", "weight_norm_lstm"}  # Stages of the core.
# Stages of the kinds that other rows have.
SWEPT -= {"cfn", "glstm_projection", "layer_norm_basic_lstm", "input_projection"}
SWEPT -= {"output_projection", "past_inputs", "min_lstm", "qrnn", "qrnn_ifo", "sru"}


@pytest.mark.fast(
    "lstm_projection", "gru", "device", "dropout", "dropout_filter", "residual_fn"
)
@pytest.mark.parametrize("name", sorted(SWEPT))
def test_every_cell_gives_what_xlas_loop_gives(name):
    case = cases.CASES[name]
    with jax.enable_x64(False):  # As Triton's interpreter requires.
        if name in DECLINED:
            for kernel in (TPU, TRITON):
                with pytest.raises(ValueError, match=DECLINED[name]):
                    everything_of(case, kernel)
            return
        want = everything_of(case, None)
        assert_near(everything_of(case, TPU), want)
        assert_near(everything_of(case, TRITON), want)


def everything_of(case, implementation):
    depth = jax.tree.leaves(case.inputs)[0].shape[-1]
    return everything(
        case.cell, implementation, *data(case.cell, 11, 6, depth), key=case.key
    )


NAMED = (
    "elu",
    "gelu",
    "hard_sigmoid",
    "mish",
    "selu",
    "softmax",
    "softplus",
    "softsign",
)
CELLS = {
    "lstm": lambda n: LSTMCell(n),
    "projected": lambda n: LSTMCell(n, use_peepholes=True, num_proj=n, proj_clip=0.3),
    "gru": GRUCell,
    "gru_cudnn": CudnnCompatibleGRUCell,
}


@pytest.mark.fast("*H4-projected")
@pytest.mark.parametrize(
    ("spec", "name"),
    [*zip(specs.SMALL, CELLS, strict=True), (specs.SMALL[1], "gru_cudnn")],
    ids=str,
)
def test_shapes_that_do_and_do_not_fill_their_tiles(name, spec, kernel):
    cell = CELLS[name](spec.units)
    given = data(cell, spec.batch, spec.time, spec.depth)
    assert_near(everything(cell, kernel, *given), everything(cell, None, *given))


@pytest.mark.fast("pallas_mosaic_tpu")
def test_time_first_and_whole_rows(kernel):
    cell = CELLS["projected"](4)
    params, x, _, state = data(cell, 11, 13, 2)
    time_major = params, jnp.swapaxes(x, 0, 1), None, state
    got = everything(cell, kernel, *time_major, time_major=True)
    assert_near(got, everything(cell, None, *time_major, time_major=True))


@pytest.mark.fast("pallas_mosaic_tpu-lstm")
@pytest.mark.parametrize("name", ["lstm", "gru_cudnn"])
def test_bfloat16_is_nearer_to_float32_than_xla_is(name, kernel):
    cell = CELLS[name](8)
    narrow = data(cell, 11, 13, 4, BF16)
    wide = jax.tree.map(lambda x: x.astype(F32) if x.dtype == BF16 else x, narrow)
    want = everything(cell, None, *wide)

    def error(results):
        """The sum of the relative differences from float32."""
        pairs = zip(jax.tree.leaves(results), jax.tree.leaves(want), strict=True)
        errors = [
            jnp.linalg.norm(g.astype(F32) - w) / jnp.linalg.norm(w) for g, w in pairs
        ]
        return float(sum(errors))

    by_kernel = error(everything(cell, kernel, *narrow))
    assert 0 < by_kernel < error(everything(cell, None, *narrow))


@pytest.mark.fast("pallas_mosaic_tpu")
def test_a_memory_in_float32_beside_bfloat16(kernel):
    cell = LSTMCell(8)
    params, x, lengths, state = data(cell, 5, 6, 4, BF16)
    given = params, x, lengths, state._replace(c=state.c.astype(F32))
    with jax.numpy_dtype_promotion("standard"):  # To sum outputs and state.
        got = everything(cell, kernel, *given, dtype=BF16)
        assert_near(got, everything(cell, None, *given, dtype=BF16), tolerance=0.03)
    (_, state), _ = got
    assert state.c.dtype == F32


@pytest.mark.slow
@pytest.mark.parametrize("name", ["projected", "gru_cudnn"])
def test_nothing_is_read_before_it_is_written(name):
    """With detection of races, and memory that is NaN at first, beyond edges too."""
    checked = pltpu.InterpretParams(detect_races=True, uninitialized_memory="nan")
    kernel = PallasMosaicTPU(rows=8, block=4, interpret=checked)
    cell = CELLS[name](5)
    given = data(cell, 11, 6, 3)
    assert_near(everything(cell, kernel, *given), everything(cell, None, *given))


# Fewer bytes of VMEM than the matrices have: some chunks of each stay, or none.
TINY = {
    "lstm": (LSTMCell(200), 1_100_000, 1),
    "lstm_none_stay": (LSTMCell(200), 1_000_000, 0),
    "projected": (LSTMCell(200, use_peepholes=True, num_proj=220), 1_500_000, 1),
    "gru": (GRUCell(400), 2_500_000, 2),
}


def tiny(name, monkeypatch, interpret):
    """A kernel for too little memory, its cell and the arguments of a run."""
    cell, memory, stay = TINY[name]
    machine = dataclasses.replace(_machines.MACHINES["v5e"], memory=memory)
    monkeypatch.setitem(_machines.MACHINES, "tiny", machine)
    monkeypatch.setattr(_vmem, "CHUNK", 1)  # The least width, 128 columns.
    kernel = PallasMosaicTPU("tiny", 8, 4, interpret=interpret)
    cuts = kernel.tiling(specs.work_of(cell, 11, 3, 2, F32)).cuts
    assert sum(cut.resident for cut in cuts) == stay
    assert all(cut.streamed for cut in cuts)
    params, *given = data(cell, 11, 3, 2)
    return kernel, cell, jax.tree.map(lambda p: 0.3 * p, params), given


@pytest.mark.fast("lstm", "gru")
@pytest.mark.parametrize("name", TINY)
def test_matrices_that_do_not_fit_are_streamed_in_chunks(name, monkeypatch):
    kernel, cell, params, given = tiny(name, monkeypatch, True)
    assert_near(
        everything(cell, kernel, params, *given), everything(cell, None, params, *given)
    )


@pytest.mark.slow
def test_chunks_do_not_race(monkeypatch):
    races = pltpu.InterpretParams(detect_races=True, uninitialized_memory="nan")
    kernel, cell, params, given = tiny("lstm", monkeypatch, races)
    assert_near(
        everything(cell, kernel, params, *given), everything(cell, None, params, *given)
    )


def test_vmap_of_chunks(monkeypatch):
    kernel, cell, params, given = tiny("lstm", monkeypatch, True)

    def twice(kernel):
        scaled = lambda by: jax.tree.map(lambda p: by * p, params)
        one = lambda by: everything(cell, kernel, scaled(by), *given)
        return jax.vmap(one)(jnp.asarray([1, 0.5], F32))

    assert_near(twice(kernel), twice(None))
    for_tpu = lambda: twice(dataclasses.replace(kernel, interpret=False))
    text = jax.jit(for_tpu).trace().lower(lowering_platforms=("tpu",)).as_text()
    assert text.count("tpu_custom_call") == 2


@pytest.mark.fast("pallas_mosaic_tpu")
def test_padding_has_no_effect(kernel):
    cell = CELLS["projected"](5)
    params, x, lengths, state = data(cell, 11, 6, 3)
    dead = np.arange(6) >= np.asarray(lengths)[:, None]
    bad_x = jnp.where(dead[..., None], jnp.nan, x)
    none = (lengths == 0)[:, None]
    bad_state = jax.tree.map(lambda s: jnp.where(none, jnp.inf, s), state)
    clean = everything(cell, kernel, params, x, lengths, state)
    (outputs, _), (c_params, c_x, _) = everything(
        cell, kernel, params, bad_x, lengths, bad_state
    )
    assert_near((outputs, c_params, c_x), (clean[0][0], *clean[1][:2]), tolerance=0)


def unit_length(x):
    """A function that is not differentiable at zeros."""
    return x / jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True))


@pytest.mark.fast("pallas_mosaic_tpu")
def test_an_activation_that_is_not_differentiable_at_zeros(kernel):
    cell = BasicRNNCell(4, activation=unit_length)
    params, x, _, state = data(cell, 5, 6, 3)
    for lengths in (None, jnp.asarray([6, 1, 3, 9, 2], jnp.int32)):
        given = params, x, lengths, state
        assert_near(everything(cell, kernel, *given), everything(cell, None, *given))


def test_vmap_over_lengths_lowers_too():
    cell = GRUCell(3)
    params, x, lengths, _ = data(cell, 4, 6, 2)
    both, twice = jnp.stack([x, 2 * x]), jnp.stack([lengths, lengths // 2])

    def of(implementation):
        one = lambda x, n: jaxrnn.dynamic_rnn(
            cell.bind(params), x, n, dtype=F32, implementation=implementation
        )
        return jax.jit(jax.vmap(one))

    assert_near(of(TPU)(both, twice), of(None)(both, twice))
    text = of("pallas_mosaic_tpu").trace(both, twice).lower(lowering_platforms=("tpu",))
    assert text.as_text().count("tpu_custom_call") == 1


def grad_of_grad(loss, params, x):
    inner = jax.grad(loss)
    return jax.grad(lambda p: weighted_sum(inner(p, x)))(params)


def many(loss, params, x):
    twice = jnp.stack([x, 2 * x])
    wide = jax.tree.map(lambda p: jnp.stack([p, -p]), params)
    return (
        jax.vmap(jax.grad(loss), (None, 0))(params, twice),
        jax.vmap(jax.grad(loss), (0, None))(wide, x),
    )


def forward_mode(loss, params, x):
    return jax.jvp(loss, (params, x), (params, x))


def forward_over_reverse(loss, params, x):
    push = lambda p: jax.jvp(lambda p: jax.grad(loss)(p, x), (p,), (p,))
    return push(params)


def rematerialized(loss, params, x):
    return jax.grad(jax.checkpoint(loss))(params, x)


KINDS = (grad_of_grad, many, forward_mode, forward_over_reverse, rematerialized)


@pytest.mark.fast("many", "forward_mode")
@pytest.mark.parametrize("of", KINDS, ids=lambda of: of.__name__)
def test_derivatives_of_all_kinds(of):
    cell = GRUCell(3)
    params, x, lengths, state = data(cell, 4, 5, 2)

    def made(implementation):
        loss = lambda params, x: weighted_sum(
            run(cell, implementation, params, x, lengths, state)
        )
        return jax.jit(lambda: of(loss, params, x))()

    assert_near(made(TPU), made(None))


@pytest.mark.fast("True")
@pytest.mark.parametrize("strategy", [True, jaxrnn.memory.Recompute(2)], ids=str)
def test_strategies_of_memory_go_with_it(strategy):
    cell = LSTMCell(3)
    given = data(cell, 4, 6, 2)
    got = everything(cell, TPU, *given, swap_memory=strategy)
    assert_near(got, everything(cell, None, *given))


def test_other_drivers_pass_it_on():
    cell = GRUCell(3)
    params, x, lengths, _ = data(cell, 4, 6, 2)
    both = lambda implementation: jaxrnn.bidirectional_dynamic_rnn(
        cell.bind(params),
        cell.bind(params),
        x,
        lengths,
        dtype=F32,
        implementation=implementation,
    )
    assert_near(both(TPU), both(None))


def over_devices(kernel, check, units=3):
    """A loss of rows on four devices, and its gradient."""
    cell = LSTMCell(units)
    params, x, lengths, state = data(cell, 8, 5, 2)
    mesh = jax.make_mesh((4,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    whole, rows = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec("rows")
    specs = whole, rows, rows, rows

    def total(params, x, lengths, state):
        made = run(cell, kernel, params, x, lengths, state)
        return jax.lax.psum(weighted_sum(made), "rows")

    summed = jax.shard_map(
        total, mesh=mesh, in_specs=specs, out_specs=whole, check_vma=check
    )
    loss = lambda params: summed(params, x, lengths, state)
    return jax.jit(jax.value_and_grad(loss)), params


@pytest.mark.slow
def test_over_devices(kernel):
    # The interpreter does not support types that vary over devices.
    step, params = over_devices(kernel, check=False)
    assert_near(step(params), over_devices(None, check=False)[0](params))
    step, params = over_devices(kernel.name, check=True, units=16)
    text = step.trace(params).lower(lowering_platforms=(kernel.platform,)).as_text()
    assert text.count(CALLS[kernel.platform]) == 2


# Without the interpreter: the programs for the compilers.
CALLS = {"tpu": "tpu_custom_call", "cuda": "__gpu$xla.gpu.triton"}


KERNELS = {"tpu": "pallas_mosaic_tpu", "cuda": "pallas_triton"}


def lowered(cell, spec, dtype, platform, kernel=None):
    given = specs.shapes(cell, spec.batch, spec.time, spec.depth, dtype)
    kernel = kernel or KERNELS[platform]
    step = lambda *given: everything(cell, kernel, *given)
    return jax.jit(step).trace(*given).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.fast("B11*-float32", "B64*-lstm-bfloat16")
@pytest.mark.parametrize("dtype", [F32, BF16], ids=str)
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("spec", [specs.LARGE[1], specs.SMALL[1]], ids=str)
def test_lowers_for_a_tpu(name, spec, dtype):
    text = lowered(CELLS[name](spec.units), spec, dtype, "tpu")
    names = re.findall(r'kernel_name = "(\w+)"', text)
    assert sorted(set(names)) == ["recurrence", "recurrence_backward"]
    assert text.count("tpu_custom_call") == len(names) == 2


@pytest.mark.fast("*-float32-16", "lstm-bfloat16-5")
@pytest.mark.parametrize("batch", [16, 5])
@pytest.mark.parametrize("dtype", [F32, BF16], ids=str)
@pytest.mark.parametrize("name", CELLS)
def test_lowers_for_a_gpu(name, dtype, batch):
    text = lowered(CELLS[name](64), specs.Spec(batch, 10, 3, 64), dtype, "cuda")
    names = re.findall(r'name = "(recurrence\w*)"', text)
    assert sorted(names) == ["recurrence", "recurrence_backward"]
    assert text.count(CALLS["cuda"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "activation",
    [lambda x: jnp.tanh(1 / x), lambda x: jnp.sqrt(jnp.abs(x)), jnp.cos],
    ids=["1/x", "sqrt", "cos"],
)
def test_padding_of_units_is_finite_where_units_are(activation):
    cell = LSTMCell(10, activation=activation)
    with jax.enable_x64(False):
        given = data(cell, 5, 4, 3)
        assert why_not_padded(specs.work_of(cell, 5, 4, 3, F32)) is None
        assert_near(everything(cell, TRITON, *given), everything(cell, None, *given))


def mixed_backward(x, mix=jnp.mean):
    """An activation of which only the derivative mixes units."""

    @jax.custom_vjp
    def tanh(x):
        return jnp.tanh(x)

    def back(y, g):
        return ((g - mix(g, -1, keepdims=True)) * (1 - y * y),)

    tanh.defvjp(lambda x: (jnp.tanh(x), jnp.tanh(x)), back)
    return tanh(x)


def by_parity(x):
    """An activation that differs at powers of two only."""
    return x - jnp.tanh(x) if x.shape[-1] % 16 else jnp.tanh(x) - x


def by_halves(x, *cuts):
    """An activation that computes units in two ways."""
    first, second = jnp.split(x, cuts or 2, -1)
    return jnp.concatenate([jnp.tanh(first), second], -1)


UNALIKE = {
    "by_the_size": lambda x: x / np.float32(np.sqrt(x.shape[-1])),
    "branch_on_the_size": lambda x: jnp.tanh(x) if x.shape[-1] < 16 else x,
    "branch_on_powers_of_two": by_parity,
    "halves": by_halves,
    "cut_in_the_middle": lambda x: by_halves(x, x.shape[-1] // 2),
    "mixed_backward": mixed_backward,
    "summed_backward": functools.partial(mixed_backward, mix=jnp.sum),
    "raises": lambda x: {10: x}[x.shape[-1]],
    "flip": lambda x: jnp.flip(x, -1),
    "cumsum": lambda x: jnp.cumsum(x, -1),
}


@pytest.mark.parametrize("name", UNALIKE)
def test_updates_that_differ_between_units_are_not_padded(name):
    work = specs.work_of(BasicRNNCell(10, activation=UNALIKE[name]), 5, 4, 3, F32)
    assert why_not_padded(work)


@pytest.mark.parametrize("norm", [jnp.sum, lambda w: jnp.sum(w[:, None], 0)])
def test_parameters_that_are_summed_are_not_padded(norm):
    work = specs.work_of(Normed(24, scales=1, norm=norm), 5, 4, 3, F32)
    assert why_not_padded(work) == "its updates are not elementwise: `reduce_sum`"


def test_columns_that_are_interleaved_are_not_padded():
    work = specs.work_of(Interleaved(24, scales=1), 5, 4, 3, F32)
    assert why_not_padded(work) == "its updates are not elementwise: `reshape`"


@pytest.mark.fast("projected", "gru")
@pytest.mark.parametrize("name", CELLS)
def test_sizes_are_padded_for_a_gpu(name):
    spec = specs.Spec(3, 10, 5, 50)
    text = lowered(CELLS[name](spec.units), spec, F32, "cuda")
    assert text.count(CALLS["cuda"]) == 2
    work = specs.work_of(CELLS[name](50), 3, 10, 5, F32)
    alike = specs.work_of(CELLS[name](64), 3, 10, 5, F32)
    assert dataclasses.replace(padded_work(work), cell=None) == dataclasses.replace(
        alike, cell=None
    )


@pytest.mark.fast("lstm_joined", "gelu", "softmax")
@pytest.mark.parametrize("name", ["lstm_joined", *NAMED])
def test_what_triton_does_not_decline_is_lowered(name):
    if name == "lstm_joined":
        cell = LSTMCell(16, state_is_tuple=False)
    else:
        cell = GRUCell(16, activation=name)
    spec = specs.Spec(2, 3, 1, 16)
    if name == "gelu":
        with pytest.raises(ValueError, match="Triton has no `erfc`"):
            lowered(cell, spec, F32, "cuda")
    else:
        assert lowered(cell, spec, F32, "cuda").count(CALLS["cuda"]) == 2


def test_the_loop_is_exported_for_all_platforms_without_a_name():
    cell = LSTMCell(3)
    given = data(cell, 4, 5, 2)
    step = jax.jit(lambda *given: run(cell, None, *given))
    made = jax.export.export(step, platforms=("cpu", "cuda", "tpu"))(*given)
    assert_near(made.call(*given), step(*given))


@pytest.mark.fast("v4-*-gru", "v5e-*-projected")
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("spec", specs.LARGE, ids=str)
@pytest.mark.parametrize("chip", ["v4", "v5e"])
def test_the_memory_that_is_counted_is_what_the_kernels_require(chip, spec, name):
    cell = CELLS[name](spec.units)
    given = specs.shapes(cell, spec.batch, spec.time, spec.depth, BF16)
    work = specs.work_of(cell, spec.batch, spec.time, spec.depth, BF16)
    kernel = PallasMosaicTPU(chip)
    tiling = kernel.tiling(work)
    counted = tiling.bytes(work) - tiling.spilled_bytes(work)
    required = max(map(required_bytes, pallas_calls(cell, kernel, given)))
    assert required <= counted <= 1.2 * required + 2**19
    assert tiling.bytes(work) <= _machines.MACHINES[chip].memory


def pallas_calls(cell, kernel, given):
    jaxpr = jax.make_jaxpr(lambda *given: everything(cell, kernel, *given))(*given)
    return [e for e in eqns(jaxpr.jaxpr) if e.primitive.name == "pallas_call"]


def required_bytes(eqn):
    """The bytes of all blocks, in whole tiles; twice for those with two buffers."""
    mapping = eqn.params["grid_mapping"]
    total = 0
    for block in mapping.block_mappings:
        aval = block.transformed_block_aval
        if aval.memory_space in (pl.ANY, pltpu.SMEM):
            continue  # Not in VMEM.
        buffers = 1 if getattr(block.pipeline_mode, "buffer_count", 2) == 1 else 2
        total += buffers * padded(aval.shape, aval.dtype)
    scratch = eqn.params["jaxpr"].invars[-mapping.num_scratch_operands :]
    buffers = (v.aval for v in scratch if v.aval.memory_space is pltpu.VMEM)
    return total + sum(padded(aval.shape, aval.dtype) for aval in buffers)


def padded(shape, dtype):
    *outer, rows, columns = (1, 1, *shape)
    sublanes = 32 // dtype.itemsize
    size = -(-rows // sublanes) * sublanes * -(-columns // 128) * 128
    return int(np.prod(outer)) * size * dtype.itemsize


# Messages.

REFUSED = {
    "unknown": (
        ValueError,
        r"dynamic_rnn: `implementation` must be None or one of xla, pallas_mosaic_tpu, "
        r"pallas_triton, cudnn, native, got 'triton'",
        lambda: small("triton"),
    ),
    "unknown_machine": (
        ValueError,
        r"'pallas_mosaic_tpu:v9' names no machine of tpu: v4, v5e, v5p, v6e\.",
        lambda: small("pallas_mosaic_tpu:v9"),
    ),
    "other_machine": (
        ValueError,
        r"'pallas_triton:v4' names no machine of cuda: h100, h200\.",
        lambda: small("pallas_triton:v4"),
    ),
    "of_another_kind": (TypeError, r"one of xla, .*, got 3", lambda: small(3)),
    "float64": (
        ValueError,
        r"`implementation` 'pallas_mosaic_tpu' cannot run this cell on these sequences"
        r": it computes in float32 and bfloat16, got float64\. Leave it out for XLA's",
        lambda: small("pallas_mosaic_tpu", np.dtype("float64")),
    ),
    "too_large": (
        ValueError,
        r"the smallest tile needs 29\.0 MiB of VMEM; there are 16",
        lambda: jax.eval_shape(
            lambda *given: run(LSTMCell(8192), PallasMosaicTPU("v4"), *given),
            *specs.shapes(LSTMCell(8192), 1, 2, 1),
        ),
    ),
    "too_large_for_a_gpu": (
        ValueError,
        r"the matrices, 256 KiB, and the operands of a step need 296 KiB of shared "
        r"memory; a block of threads has 227",
        lambda: on_a_gpu(LSTMCell(128)),
    ),
    "too_large_when_padded": (
        ValueError,
        r"the matrices, padded to 1024 KiB, and the operands of a step need 1104",
        lambda: on_a_gpu(LSTMCell(150)),
    ),
    "odd_for_a_gpu": (
        ValueError,
        r"its sizes must be powers of two from 16 on, got 48, 96, and cannot be padded"
        r": its updates are not elementwise: `reduce_max`",
        lambda: on_a_gpu(GRUCell(48, activation="softmax")),
    ),
    "parameters_split": (
        ValueError,
        r"got 24, 48, and cannot be padded: its updates, or its `blocks`, fit",
        lambda: on_a_gpu(Halves(24)),
    ),
    "split_otherwise": (
        ValueError,
        r"its updates, or its `blocks`, fit these sizes alone",
        lambda: on_a_gpu(Halves(24, blocks=1, scales=1)),
    ),
    "not_split": (
        ValueError,
        r"its updates, or its `blocks`, fit these sizes alone",
        lambda: on_a_gpu(WrongBlocks(24)),
    ),
    "one_for_all": (
        ValueError,
        r"got 12, 24, and cannot be padded: its updates, or its `blocks`, fit",
        lambda: on_a_gpu(Halves(12, scales=0)),
    ),
    "no_blocks": (
        ValueError,
        r"got 20, 40, and cannot be padded: a stage does not declare the `blocks`",
        lambda: on_a_gpu(NoBlocks(20)),
    ),
    "too_wide_for_a_gpu": (
        ValueError,
        r"its matrices must have sizes up to 1024, got 2048",
        lambda: on_a_gpu(LSTMCell(512, num_proj=16), BF16),
    ),
    "joined_for_a_gpu": (
        ValueError,
        r"its sizes must be powers of two from 16 on, got .*: its updates, or its `bl",
        lambda: on_a_gpu(LSTMCell(16, num_proj=32, state_is_tuple=False)),
    ),
    "arrays_for_a_gpu": (
        ValueError,
        r"its functions hold arrays",
        lambda: on_a_gpu(GRUCell(16, activation=lambda x: x * SCALES)),
    ),
    "arrays_for_a_tpu": (
        ValueError,
        r"'pallas_mosaic_tpu' cannot run .*its functions hold arrays",
        lambda: run(
            GRUCell(16, activation=lambda x: x * SCALES),
            TPU,
            *data(GRUCell(16), 2, 3, 4),
        ),
    ),
    "no_rule_on_a_tpu": (
        ValueError,
        r"Pallas has no `expm1` of such arrays for TPUs",
        lambda: run(GRUCell(4, activation="elu"), TPU, *data(GRUCell(4), 2, 3, 4)),
    ),
    "no_units": (
        ValueError,
        r"a leaf of the state is not \[batch, size\]: float32\[2, 0\]",
        lambda: run(GRUCell(0), TPU, *data(GRUCell(0), 2, 3, 4)),
    ),
    "effects_on_a_gpu": (
        ValueError,
        r"Triton has no `debug_(print|callback)`",
        lambda: on_a_gpu(GRUCell(16, activation=printed)),
    ),
    "no_affine_cell": (
        ValueError,
        "FunctionCell has no `apply_sequence`",
        lambda: run(
            jaxrnn.FunctionCell(lambda params, x, h, key=None: (h, h), 2, 2),
            TPU,
            {},
            jnp.ones((2, 3, 2), F32),
            None,
            jnp.ones((2, 2), F32),
        ),
    ),
    "elsewhere": (
        ValueError,
        r"'pallas_mosaic_tpu' runs on tpu, and this is compiled for cpu\. Leave it out",
        lambda: small("pallas_mosaic_tpu"),
    ),
    "elsewhere_without_jit": (
        ValueError,
        r"'pallas_triton' runs on cuda, and this is compiled for cpu\.",
        lambda: without_jit(lambda: on_a_gpu(GRUCell(16))),
    ),
    "elsewhere_compiled": (
        ValueError,
        r"'pallas_triton' runs on cuda, and this is compiled for tpu",
        lambda: lowered(
            GRUCell(16), specs.Spec(2, 3, 1, 16), F32, "tpu", KERNELS["cuda"]
        ),
    ),
    "no_rows": (
        ValueError,
        "there are no steps, no rows, or no inputs",
        lambda: small(TPU, batch=0),
    ),
}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Halves(AffineCell):
    """A cell that splits its elementwise parameters, or z not as it declares."""

    num_units: int
    blocks: int = 2
    scales: int = 2

    @property
    def stages(self):
        n, init = self.num_units, jax.nn.initializers.zeros
        return (Stage(self.update, n, 2 * n, init, init, blocks=self.blocks),)

    def enter(self, state):
        return state, state

    @property
    def state_size(self):
        return self.num_units

    output_size = state_size

    def elementwise_specs(self):
        size = self.num_units * self.scales
        return {"w": ParamSpec((size or 1,), jax.nn.initializers.ones)}

    def update(self, params, z, state):
        first, second = jnp.split(z, 2, axis=-1)
        w = jnp.split(params["w"], 2)[0] if self.scales > 1 else params["w"]
        state = jax.nn.sigmoid(first) * state + w[None, :] * jnp.tanh(second)
        return state, state


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Normed(Halves):
    """A cell whose parameters are divided by their sum."""

    norm: Callable = jnp.sum

    def update(self, params, z, state):
        w = params["w"]
        return super().update({"w": w / self.norm(w)}, z, state)


class Interleaved(Halves):
    """A cell whose columns are pairs, not two blocks."""

    def update(self, params, z, state):
        pairs = jnp.split(z.reshape(*state.shape, 2), 2, axis=-1)
        z = jnp.concatenate([x.reshape(state.shape) for x in pairs], axis=-1)
        return super().update(params, z, state)


class WrongBlocks(BasicRNNCell):
    """A cell that declares two blocks of half the units, which it does not have."""

    @property
    def stages(self):
        return tuple(dataclasses.replace(s, blocks=2) for s in super().stages)


class NoBlocks(GRUCell):
    """A cell that does not declare its blocks."""

    @property
    def stages(self):
        return tuple(dataclasses.replace(s, blocks=None) for s in super().stages)


SCALES = np.linspace(1, 2, 16, dtype=np.float32)[None]


def printed(x):
    jax.debug.print("{}", x)
    return x


def without_jit(call):
    with jax.disable_jit():
        call()


def on_a_gpu(cell, dtype=F32):
    run(cell, "pallas_triton", *data(cell, 2, 3, 2, dtype))


def small(implementation, dtype=F32, batch=2):
    cell = LSTMCell(3)
    return run(cell, implementation, *data(cell, batch, 3, 2, dtype))


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    error, message, call = REFUSED[name]
    with pytest.raises(error, match=message):
        call()


def test_a_name_may_name_the_machine():
    """A matrix of 16 MiB stays whole on v5e, the default, but not on v4."""
    cell = LSTMCell(1024)
    given = specs.shapes(cell, 4, 2, 3)
    of = lambda name: pallas_calls(cell, name, given)
    scratch = lambda eqn: eqn.params["grid_mapping"].num_scratch_operands
    whole, chunked = map(of, ("pallas_mosaic_tpu", "pallas_mosaic_tpu:v4"))
    assert [*map(scratch, whole)] == [2, 2]
    assert [*map(scratch, chunked)] == [5, 5]


def test_none_falls_back():
    assert small(None, np.dtype("float64"))[0].dtype == np.float64


@pytest.mark.skipif(
    not hasattr(pltpu, "get_tpu_info_for_chip"), reason="older JAX has no such table"
)
@pytest.mark.parametrize(
    "name", [m for m, it in _machines.MACHINES.items() if it.platform == "tpu"]
)
def test_tpus_are_those_of_jax(name):
    """JAX's own table has the same numbers, for one core."""
    chip = next(c for c in pltpu.ChipVersion if str(c) == name)
    info = pltpu.get_tpu_info_for_chip(chip, 1)
    machine = _machines.MACHINES[name]
    assert machine.memory == info.vmem_capacity_bytes
    assert machine.bandwidth == info.mem_bw_bytes_per_second
    assert machine.flops == info.bf16_ops_per_second
    assert machine.least_rows == info.mxu_column_size


@pytest.mark.parametrize(
    ("backend", "platform", "memory"),
    [
        ("tpu", "tpu", 16 * 2**20),
        ("gpu", "cuda", 99 * 2**10),
        ("cpu", "tpu", 128 * 2**20),
        ("gpu", "tpu", 128 * 2**20),
    ],
)
def test_an_unknown_machine_has_the_least_memory(
    backend, platform, memory, monkeypatch
):
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(device_kind="New 7")])
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert _machines.machine_of(platform).memory == memory
