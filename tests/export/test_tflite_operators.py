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
    "lstm": bound(LSTM(UNITS)),
    "projected": bound(LSTM(UNITS, num_proj=2)),
    "full": bound(LSTM(UNITS, **FULL)),
    "no-projection-to-clip": bound(LSTM(UNITS, proj_clip=0.01)),
    "relu": bound(LSTM(UNITS, activation="relu")),
    "coupled-full": bound(COUPLED(UNITS, **PARTS, forget_bias=0.3, num_unit_shards=2)),
    "coupled-relu": bound(COUPLED(UNITS, activation="relu")),
    "basic": bound(BASIC(UNITS)),
    "basic-relu": bound(BASIC(UNITS, activation="relu")),
    "lite-lstm": bound(LITE(UNITS, **FULL)),
    "dropout": bound(jaxrnn.DropoutWrapper(LSTM(UNITS), output_keep_prob=1.0)),
    "stack": bound(MULTI([LSTM(4, num_proj=2), BASIC(5), LITE(3)])),
    "shared": bound(MULTI([LSTM(DEPTH)] * 2)),
    "both-lstm": both(LSTM(UNITS)),
    "both-full": both(LSTM(UNITS, **FULL)),
    "both-coupled": both(COUPLED(UNITS, **PARTS)),
    "one-coupled": (bound(COUPLED(UNITS, True)), bound(LSTM(UNITS))),
    "both-differ": (bound(LSTM(2, use_peepholes=True)), bound(LSTM(2, num_proj=2))),
    "both-sizes": (bound(BASIC(2)), bound(BASIC(5))),
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


@pytest.mark.fast(
    *("full-batch-major-3", "basic-time-major-1", "both-stack-batch-major-3"),
    *("coupled-full-time-major-3", "one-coupled-batch-major-3"),
)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("time_major", [False, True], ids=["batch-major", "time-major"])
@pytest.mark.parametrize("name", CELLS)
def test_outputs_of_the_driver(name, time_major, batch):
    cells, x = CELLS[name], data(batch)
    x = np.ascontiguousarray(np.swapaxes(x, 0, 1)) if time_major else x
    spec = jax.ShapeDtypeStruct(x.shape, F32)
    interpreter, run = load(to_tflite_operators(cells, spec, time_major=time_major))
    for inputs in (x, 2 * x):
        same(run(inputs), expected(cells, inputs, time_major))
        interpreter.reset_all_variables()


@pytest.mark.parametrize("name", ["full", "basic", "stack"])
def test_a_stream_step_by_step(name):
    x = data(batch=1)
    interpreter, run = load(to_tflite_operators(CELLS[name], x[:, :1]))
    for _ in range(2):
        steps = [run(x[:, t : t + 1]) for t in range(TIME)]
        same(np.concatenate(steps, axis=1), expected(CELLS[name], x))
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


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", ["projected", "both-lstm"])
def test_a_dense_layer_on_each_step(name, batch):
    x = data(batch)
    want = expected(CELLS[name], x)
    random = np.random.default_rng(1)
    kernel = random.normal(size=(want.shape[-1], 6)).astype("f")
    bias = random.normal(size=6).astype("f")
    for given, added in ((bias, bias), (None, 0)):
        _, run = load(to_tflite_operators(CELLS[name], x, dense=(kernel, given)))
        same(run(x), np.asarray(want) @ kernel + added)


X = data()
GRU = bound(jaxrnn.GRUCell(DEPTH))
NARROW, WIDE = bound(LSTM(2)), bound(LSTM(5))
ANY = jax.ShapeDtypeStruct((*jax.export.symbolic_shape("b"), 2, 3), F32)
SIZES = r"`cells_bw\[0\]` must match `cells_fw\[0\]` \(.*units=2.*, got .*units=5"
DENSE = {"dense": (X[0], X[0, 0])}  # `test_onnx.py` has more.
REFUSALS = [
    (GRU, X, {}, r"(?s)`cells` must be .* got GRUCell.* `to_tflite`"),
    (bound(MULTI([BASIC(3), jaxrnn.GRUCell(3)])), X, {}, r"`cells.cells\[1\]` must be"),
    (helpers.bound(LSTM(UNITS)), X, {}, "float32"),
    (bound(LSTM(2, activation="linear")), X, {}, "tanh or relu, as in .*, got linear"),
    (bound(LSTM(2, cell_clip=0)), X, {}, "clips above 0"),
    (bound(COUPLED(2, layer_norm=True)), X, {}, "not support normaliz"),
    (([NARROW], [WIDE]), X, {}, SIZES),
    ((NARROW, bound(LSTM(2, cell_clip=1))), X, {}, "both, got .*cell_clip=1"),
    (NARROW, data(depth=5), {}, "input size of 5 in layer_0, got float32.3, 8"),
    (NARROW, X[0], {}, "`inputs` must be a float32 array of rank 3"),
    (NARROW, X.astype(np.float64), {}, "`inputs` must be a float32 array"),
    (NARROW, X[:0], {}, "fixed sizes above 0"),
    (NARROW, ANY, {}, "fixed sizes"),
    (NARROW, X, DENSE, r"`dense.kernel` must have shape \[2, any\]"),
]


@pytest.mark.parametrize(("cells", "inputs", "options", "message"), REFUSALS)
def test_refusals_name_the_argument(cells, inputs, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        to_tflite_operators(cells, inputs, **options)


def test_traced_parameters():
    def export(params, dense):
        return to_tflite_operators(NARROW.cell.bind(params), X, dense=dense)

    dense = np.ones((2, 3), np.float32), np.ones(3, np.float32)
    for run, traced, name in (
        (lambda params: export(params, dense), NARROW.params, r"cells\.params"),
        (lambda dense: export(NARROW.params, dense), dense, "dense"),
    ):
        with pytest.raises(TypeError, match=f"`{name}.* must be concrete, since a"):
            jax.eval_shape(run, traced)


def test_a_file_of_coupled_gates_has_no_input_gate():
    """The file lacks a quarter of the kernels of an `LSTMCell`."""
    for cell, kernels in ((LSTM(UNITS), 4), (COUPLED(UNITS), 3)):
        interpreter, _ = load(to_tflite_operators(bound(cell), X))
        shapes = [tuple(each["shape"]) for each in interpreter.get_tensor_details()]
        assert shapes.count((UNITS, DEPTH)) == kernels
