"""Fused operators of TensorFlow Lite, which LiteRT runs, against the drivers."""

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
import jaxrnn.lite
from jaxrnn.export import to_tflite_operators

pytest.importorskip("ai_edge_litert")

F32 = jnp.float32
DEPTH, UNITS, TIME = 3, 4, 7
FULL = {"use_peepholes": True, "num_proj": 2, "cell_clip": 0.3, "proj_clip": 0.1}


def bound(cell, depth=DEPTH, seed=0):
    """The cell with parameters that are all random, biases too."""
    return helpers.bound(cell, depth, "float32", seed, scale=0.5)


def both(cell):
    """A layer of two directions with the same hyper-parameters."""
    return bound(cell), bound(cell, seed=2)


PARTS = {"use_peepholes": True, "num_proj": 2, "proj_clip": 0.1}
LSTM, BASIC, LITE = jaxrnn.LSTMCell, jaxrnn.BasicRNNCell, jaxrnn.lite.TFLiteLSTMCell
COUPLED = jaxrnn.contrib.CoupledInputForgetGateLSTMCell
MULTI = jaxrnn.MultiRNNCell
CELLS = {
    "projected": bound(LSTM(UNITS, num_proj=2)),
    "full": bound(LSTM(UNITS, **FULL)),
    "coupled-full": bound(COUPLED(UNITS, **PARTS, forget_bias=0.3, num_unit_shards=2)),
    "basic-relu": bound(BASIC(UNITS, activation="relu")),
    "lite-lstm": bound(LITE(UNITS, **FULL)),
    "stack": bound(MULTI([LSTM(4, num_proj=2), BASIC(5), LITE(3)])),
    "shared": bound(MULTI([LSTM(DEPTH)] * 2)),
    "both-lstm": both(LSTM(UNITS)),
    "both-coupled": both(COUPLED(UNITS, **PARTS)),
    "one-coupled": (bound(COUPLED(UNITS, True)), bound(LSTM(UNITS))),
    "both-stack": (
        [bound(LSTM(4)), bound(LSTM(2), 8), bound(BASIC(2), 4)],
        [bound(LSTM(4), seed=2), bound(LSTM(2), 8, 3), bound(BASIC(1), 4)],
    ),
}


def expected(cells, x, time_major=False):
    if isinstance(cells, tuple):
        cells = tuple(side if isinstance(side, list) else [side] for side in cells)
    return helpers.outputs_of(cells, x, time_major=time_major)


def load(file):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=file)
    run = interpreter.get_signature_runner()
    return interpreter, lambda x: run(inputs=x)["outputs"]


def data(batch=3, time=TIME, depth=DEPTH):
    x = np.random.default_rng(0).normal(size=(batch, time, depth))
    return x.astype(np.float32)


def same(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=5e-6)


# Each operator has both layouts and both numbers of rows, in one cell or another.
CASES = [(name, i % 2 == 1, (1, 3)[i // 2 % 2]) for i, name in enumerate(CELLS)]


@pytest.mark.fast("full-*", "both-stack-*", "coupled-full-*")
@pytest.mark.parametrize(("name", "time_major", "batch"), CASES)
def test_outputs_of_the_driver(name, time_major, batch):
    cells, x = CELLS[name], data(batch)
    x = np.ascontiguousarray(np.swapaxes(x, 0, 1)) if time_major else x
    spec = jax.ShapeDtypeStruct(x.shape, F32)
    interpreter, run = load(to_tflite_operators(cells, spec, time_major=time_major))
    for inputs in (x, 2 * x):
        same(run(inputs), expected(cells, inputs, time_major))
        interpreter.reset_all_variables()


def test_the_state_is_in_variables_by_name():
    cell, x = CELLS["full"], data()
    interpreter, run = load(to_tflite_operators(cell, x))
    run(x)
    (_, state) = jaxrnn.dynamic_rnn(cell, x, dtype=F32)
    numbers = {each["name"]: each["index"] for each in interpreter.get_tensor_details()}
    start = jaxrnn.LSTMStateTuple(np.full((3, 4), 0.2, "f"), np.full((3, 2), 0.1, "f"))
    for name, value in start._asdict().items():
        number = numbers[f"layer_0/{name}"]
        same(interpreter.get_tensor(number), getattr(state, name))
        interpreter.set_tensor(number, value)
    same(run(x), jaxrnn.dynamic_rnn(cell, x, initial_state=start)[0])


@pytest.mark.parametrize("name", ["projected", "both-lstm"])
def test_a_dense_layer_on_each_step(name):
    x, draw = data(), np.random.default_rng(1).normal
    want = expected(CELLS[name], x)
    kernel, bias = draw(size=(want.shape[-1], 6)).astype("f"), draw(size=6).astype("f")
    for given, added in ((bias, bias), (None, 0)):
        _, run = load(to_tflite_operators(CELLS[name], x, dense=(kernel, given)))
        same(run(x), np.asarray(want) @ kernel + added)


X = data()
NARROW, WIDE = bound(LSTM(2)), bound(LSTM(5))
OTHER = bound(MULTI([BASIC(3), jaxrnn.GRUCell(3)]))
ANY = jax.ShapeDtypeStruct((*jax.export.symbolic_shape("b"), 2, 3), F32)
DENSE = {"dense": (X[0], X[0, 0])}  # `test_onnx.py` has more.


def call(cells, inputs=X, **options):
    return lambda: to_tflite_operators(cells, inputs, **options)


test_refusals = helpers.refusals(
    [
        (ValueError, "`cells` must", call(bound(jaxrnn.GRUCell(DEPTH)))),
        (ValueError, r"`cells.cells\[1\]` must", call(OTHER)),
        (TypeError, "float32", call(helpers.bound(LSTM(UNITS)))),
        (ValueError, r"`cells_bw\[0\]` must", call(([NARROW], [WIDE]))),
        (TypeError, "`inputs` must", call(NARROW, X.astype(np.float64))),
        (ValueError, "`inputs` must", call(NARROW, ANY)),
        (ValueError, r"`dense.kernel` must", call(NARROW, **DENSE)),
    ]
)
