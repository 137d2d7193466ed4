"""Whole ONNX files in onnxruntime, against the driver of the same layers."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_near, assert_same, bound, refusals, skip_before_opset_27

import jaxrnn
from jaxrnn import BasicRNNCell, GRUCell, LSTMCell, MultiRNNCell
from jaxrnn.contrib import CoupledInputForgetGateLSTMCell
from jaxrnn.convert import from_onnx
from jaxrnn.export import to_onnx

onnx = pytest.importorskip("onnx")
reference = pytest.importorskip("onnx.reference")
onnxruntime = pytest.importorskip("onnxruntime")

BATCH, TIME, DEPTH = 4, 6, 3


def own(cell, depth=DEPTH, seed=0):
    return bound(cell, depth, "float32", seed)


def both(*cells):
    """The cells of two directions, each layer over both outputs of that below."""
    depths = [DEPTH, *(2 * cell.num_units for cell in cells)]
    pairs = list(zip(cells, depths[:-1], strict=True))
    return tuple([own(cell, depth, seed) for cell, depth in pairs] for seed in (1, 2))


PEEPING = LSTMCell(4, use_peepholes=True)
COUPLED = CoupledInputForgetGateLSTMCell(4, True, num_unit_shards=2, forget_bias=0.5)
LAYERS = {
    "rnn": own(BasicRNNCell(4, "relu")),
    "lstm": own(LSTMCell(4, forget_bias=0.5)),
    "gru": own(GRUCell(4)),
    "gru_after": own(jaxrnn.CudnnCompatibleGRUCell(4)),
    "stack": own(MultiRNNCell([PEEPING, GRUCell(5), BasicRNNCell(2)])),
    "nested": own(
        MultiRNNCell([MultiRNNCell([GRUCell(4), jnp.tanh]), jax.nn.relu, PEEPING])
    ),
    "both_layers": both(PEEPING, GRUCell(5), LSTMCell(2)),
    "one_coupled": ([own(COUPLED)], [own(LSTMCell(4))]),
}


X = np.random.default_rng(3).normal(size=(BATCH, TIME, DEPTH)).astype(np.float32)


def padded(batch=BATCH, time=TIME):
    """`(inputs, lengths)`: NaN past the lengths, of which one is 0."""
    x = np.resize(X, (batch, time, DEPTH))
    lengths = np.array([time, 0, 2, time - 1][:batch], np.int32)
    x[np.arange(time) >= lengths[:, None]] = np.nan
    return x, lengths


def states_of(cell):
    """Initial states, as `[cells_fw, cells_bw]` or of one cell."""
    draw = np.random.default_rng(4).normal
    zeros = lambda each: each.zero_state(BATCH, jnp.float32)
    is_pair = isinstance(cell, tuple)
    states = [list(map(zeros, side)) for side in cell] if is_pair else zeros(cell)
    return jax.tree.map(lambda z: draw(size=z.shape).astype(z.dtype), states)


@functools.partial(jax.jit, static_argnames="time_major")
def driver(cell, x, lengths=None, states=None, time_major=False):
    """`outputs` and all states, flat."""
    options = {"dtype": x.dtype, "time_major": time_major}
    if not isinstance(cell, tuple):
        return jax.tree.leaves(jaxrnn.dynamic_rnn(cell, x, lengths, states, **options))
    states = states or (None, None)
    run = jaxrnn.stack_bidirectional_dynamic_rnn
    return jax.tree.leaves(run(*cell, x, *states, sequence_length=lengths, **options))


def session(file):
    onnx.checker.check_model(file, full_check=True)
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def run(made, x, lengths, **states):
    return made.run(None, {"inputs": x, "sequence_length": lengths, **states})


close = functools.partial(assert_near, tolerance=5e-6)


@pytest.mark.fast("one_coupled")
@pytest.mark.parametrize("name", LAYERS)
def test_as_the_driver(name):
    """Rows of length 0 keep the states, also after no steps; padding is NaN."""
    cell, states, (x, lengths) = LAYERS[name], states_of(LAYERS[name]), padded()
    given = padded(2, 9)
    close(run(session(to_onnx(cell)), *given), driver(cell, *given))
    made = session(to_onnx(cell, initial_state=True))
    finals = [value.name for value in made.get_outputs()[1:]]
    names = [value.name for value in made.get_inputs()[2:]]
    assert names == [f"initial_{name}" for name in finals]  # In the driver's order.
    feeds = dict(zip(names, jax.tree.leaves(states), strict=True))
    close(run(made, x, lengths, **feeds), driver(cell, x, lengths, states))
    none = run(made, x[:, :0], 0 * lengths, **feeds)
    close(none[1:], jax.tree.leaves(states))


@pytest.mark.fast("gru")
@pytest.mark.parametrize("name", ["gru", "both_layers"])
def test_time_major(name):
    """Lengths are clamped to the number of steps."""
    x, lengths = np.swapaxes(X, 0, 1), np.array([9, -3, 2, 5], np.int32)
    got = run(session(to_onnx(LAYERS[name], time_major=True)), x, lengths)
    close(got, driver(LAYERS[name], x, lengths.clip(0, TIME), time_major=True))


def test_dense():
    x, lengths = padded()
    draw = np.random.default_rng(5).normal
    kernel, b = draw(size=(4, 7)).astype("f"), draw(size=7).astype("f")
    outputs, *states = driver(LAYERS["lstm"], x, lengths)
    for bias, added in ((b, b), (None, 0)):
        file = to_onnx(LAYERS["lstm"], dense=(jnp.asarray(kernel), bias))
        got = run(session(file), x, lengths)
        close(got, [np.asarray(outputs) @ kernel + added, *states])


def test_names_and_versions():
    """The checker of `session` compares the declared shapes."""
    parts = ("0_c", "0_h", "1_h", "2_c", "2_h")
    states = [f"state_{way}_{part}" for way in ("fw", "bw") for part in parts]
    rows = [(7, 14, ["outputs", *states], {}, LAYERS["both_layers"])]
    rows.append((13, 27, ["outputs", "state"], {"lengths": False}, MEMORY.bind({})))
    for *versions, names, options, cell in rows:
        model = onnx.load_from_string(to_onnx(cell, **options))
        assert [value.name for value in model.graph.output] == names
        assert [model.ir_version, model.opset_import[0].version] == versions


def test_other_dtypes_are_those_of_the_file():
    """onnxruntime has LSTMs in float32 alone; ONNX's own evaluator has all."""
    cell, x = bound(LSTMCell(4)), X.astype(np.float64)
    file = to_onnx(cell, lengths=False, initial_state=True)
    onnx.checker.check_model(file, full_check=True)
    evaluator = reference.ReferenceEvaluator(onnx.load_from_string(file))
    c, h = np.random.default_rng(6).normal(size=(2, BATCH, 4))
    feeds = {"inputs": x, "initial_state_0_c": c, "initial_state_0_h": h}
    want = driver(cell, x, states=jaxrnn.LSTMStateTuple(c, h))
    assert_near(evaluator.run(None, feeds), want, tolerance=1e-12)


WITH_STATE = {
    "linear": jaxrnn.LinearAttentionMemoryCell(2, 4, 3, scale=1.0),
    "gated": jaxrnn.LinearAttentionMemoryCell(2, 4, 3),
    "gated_keys": jaxrnn.LinearAttentionMemoryCell(4, 4, 3, 2, key_decay=True),
    "delta": jaxrnn.DeltaMemoryCell(2, 4, 3),
    "gated_delta": jaxrnn.DeltaMemoryCell(2, 4, 3, scale=-0.25),
    "grouped": jaxrnn.DeltaMemoryCell(6, 4, 3, num_key_heads=2),
    "grouped_keys": jaxrnn.DeltaMemoryCell(6, 4, 3, num_key_heads=2, key_decay=True),
    "conv": jaxrnn.ShortConvCell(3),
    "conv_of_two": jaxrnn.ShortConvCell(3, 2, use_bias=False),
}
STEPS = 10


def drawn_with_state(name):
    """`(bound cell, inputs, state)`; "linear" and "delta" have no decay."""
    cell, draw = WITH_STATE[name], np.random.default_rng(7).normal
    is_conv = isinstance(cell, jaxrnn.ShortConvCell)
    sizes = {"inputs": (cell.num_units,)} if is_conv else cell.input_sizes._asdict()
    x = {k: draw(size=(2, STEPS, *n)).astype("f") for k, n in sizes.items()}
    if not is_conv:
        x["k"] /= np.linalg.norm(x["k"], axis=-1, keepdims=True)
        x["g"] = np.where(name in ("linear", "delta"), np.float32(0), -abs(x["g"]))
    if "beta" in x:
        x["beta"] = 1 / (1 + np.exp(-x["beta"]))
    if name == "gated":
        x["g"][:, 3] = [[-np.inf, -90], [-500, 0]]
    given = x["inputs"] if is_conv else type(cell.input_sizes)(**x)
    made = own(cell) if is_conv else cell.bind({})
    state = draw(size=cell.zero_state(2, jnp.float32).shape).astype("f")
    return made, given, state


def run_part(made, x, start=0, stop=STEPS, time_major=False, **state):
    """`(outputs, state)` of some steps, batch-major."""
    order = lambda a: np.swapaxes(a, 0, 1) if time_major else a
    x = x._asdict() if hasattr(x, "_asdict") else {"inputs": x}
    feeds = {k: order(a[:, start:stop]) for k, a in x.items()} | state
    outputs, state = made.run(None, feeds)
    return order(outputs), state


def session_with_state(file):
    """A session for opset 27."""
    skip_before_opset_27()
    return session(file)


@pytest.mark.fast("grouped", "conv")
@pytest.mark.parametrize("name", WITH_STATE)
def test_a_prefill_and_then_single_steps(name):
    cell, x, state = drawn_with_state(name)
    want = jaxrnn.dynamic_rnn(cell, x, initial_state=state, dtype=jnp.float32)
    file = to_onnx(cell, lengths=False, initial_state=True)
    made = session_with_state(file)
    parts = []
    for start, stop in ((0, 7), (7, 8), (8, 9), (9, 10)):
        y, state = run_part(made, x, start, stop, initial_state=state)
        parts.append(y)
    close((np.concatenate(parts, axis=1), state), want)
    # The node has a query and a key for each head.
    own = {} if "conv" in name else {"num_key_heads": None}
    again = from_onnx(file)
    assert again.cell == dataclasses.replace(cell.cell, **own)
    assert_same(again.params, cell.params)


@pytest.mark.parametrize("name", ["grouped_keys", "conv"])
def test_time_major_without_a_past_state(name):
    cell, x, _ = drawn_with_state(name)
    made = session_with_state(to_onnx(cell, lengths=False, time_major=True))
    got = run_part(made, x, time_major=True)
    close(got, jaxrnn.dynamic_rnn(cell, x, dtype=jnp.float32))


def test_a_decay_is_at_least_exp_of_minus_87():
    cell, x, state = drawn_with_state("gated")
    zeros = np.zeros_like
    x = x._replace(k=zeros(x.k), v=zeros(x.v), g=np.full_like(x.g, -500))
    made = session_with_state(to_onnx(cell, lengths=False, initial_state=True))
    _, got = run_part(made, x, stop=1, initial_state=np.full_like(state, 1e37))
    np.testing.assert_allclose(got, np.exp(-87.0) * 1e37, rtol=1e-5)


LSTM = LAYERS["lstm"]
MEMORY, CONV = jaxrnn.DeltaMemoryCell(2, 4, 3), jaxrnn.ShortConvCell(3)
ONES = {"kernel": np.ones((4, 3), np.float32), "bias": np.ones(3, np.float32)}
conv = lambda **params: CONV.bind(ONES | params)
conv_of = lambda dtype: conv(**{k: x.astype(dtype) for k, x in ONES.items()})
of_scale = lambda scale: jaxrnn.DeltaMemoryCell(2, 4, 3, scale=scale).bind({})
DPLR = jaxrnn.DPLRMemoryCell(2, 4, 3)
BARE = {"lengths": False}
call = lambda *a, **k: lambda: to_onnx(*a, **k)
# `tests/convert/test_refusals.py` has more: the cells that ONNX lacks.
test_refusals = refusals(
    [
        (TypeError, "`cell` must be a bound", call(GRUCell(4))),
        (TypeError, "`cell` must be .*tuple", call([LSTM] * 2)),
        (TypeError, r"`cells_fw\[0\]` .*cells_bw", call((LAYERS["stack"],) * 2)),
        (ValueError, "`cell` must have no", call(own(LSTMCell(4, num_proj=2)))),
        (TypeError, "`dense", call(LSTM, dense=(np.ones((4, 2)), None))),
        (TypeError, "`lengths` must", call(LSTM, lengths=[1, 2])),
        (TypeError, "must not be traced", lambda: jax.jit(to_onnx)(LSTM)),
        (ValueError, "`lengths` must be False", call(MEMORY.bind({}))),
        (ValueError, "`dense` must be None", call(conv(), dense=(), **BARE)),
        (ValueError, r"\.scale` must not be 0", call(of_scale(1e-50), **BARE)),
        (ValueError, "'kernel'", call(conv(kernel=np.ones((3, 3), "f")), **BARE)),
        (TypeError, "float32, got float64", call(conv_of(np.float64), **BARE)),
        (TypeError, "DPLRMemory.*\n.*`ShortConvCell`", call(DPLR.bind({}), **BARE)),
    ]
)
