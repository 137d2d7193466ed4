"""Whole ONNX files in onnxruntime, against the driver of the same layers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_near, assert_same, bound, refusals

import jaxrnn
from jaxrnn import BasicRNNCell, GRUCell, LSTMCell, MultiRNNCell
from jaxrnn.contrib import CoupledInputForgetGateLSTMCell
from jaxrnn.convert import from_onnx, onnx_nodes
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
    "coupled": own(COUPLED),
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


def test_names_shapes_and_versions():
    def shapes(values):
        for value in values:
            sizes = value.type.tensor_type.shape.dim
            yield value.name, [size.dim_param or size.dim_value for size in sizes]

    model = onnx.load_from_string(to_onnx(LAYERS["both_layers"], initial_state=True))
    units = {"0_c": 4, "0_h": 4, "1_h": 5, "2_c": 2, "2_h": 2}
    sizes = [(f"{way}_{name}", units[name]) for way in ("fw", "bw") for name in units]
    states = [(f"state_{name}", ["batch", size]) for name, size in sizes]
    inputs = [("inputs", ["batch", "time", DEPTH]), ("sequence_length", ["batch"])]
    inputs += [(f"initial_{name}", shape) for name, shape in states]
    outputs = [("outputs", ["batch", "time", 4]), *states]
    assert list(shapes(model.graph.output)) == outputs
    assert list(shapes(model.graph.input)) == inputs
    assert (model.ir_version, model.opset_import[0].version) == (7, 14)


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


LSTM = LAYERS["lstm"]
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
    ]
)


@pytest.mark.fast("coupled")
@pytest.mark.parametrize("name", ["both_layers", "coupled"])
def test_files_load_again(name):
    """`from_onnx` of a file gives what was exported."""
    cell, (x, lengths) = LAYERS[name], padded()
    file = to_onnx(cell)
    again = from_onnx(file, bidirectional=isinstance(cell, tuple))
    assert_same(again, from_onnx(onnx_nodes(file)))
    close(driver(again, x, lengths), driver(cell, x, lengths))
