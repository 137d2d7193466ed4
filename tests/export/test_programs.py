"""Functions as StableHLO, which JAX runs without jaxrnn, and as files for LiteRT."""

import functools
import importlib
import sys

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import decode
from jaxrnn.export import to_stablehlo, to_tflite, to_tflite_operators

F32 = jnp.float32
UNITS, DEPTH = 4, 3
bound = functools.partial(helpers.bound, dtype="float32", scale=0.5)


def dynamic(cell):
    cell = bound(cell)
    return lambda x, n: jaxrnn.dynamic_rnn(cell, x, n, dtype=F32)


def data(batch=3, time=5):
    x = np.random.default_rng(0).normal(size=(batch, time, DEPTH))
    return jnp.asarray(x, F32), jnp.asarray([time, 0, 2][:batch], jnp.int32)


LSTM = bound(jaxrnn.LSTMCell(UNITS))
GRU = bound(jaxrnn.GRUCell(UNITS), UNITS)


def raw(x, n):
    """`dynamic_rnn` by `raw_rnn`, which also counts the steps."""
    inputs_ta = jaxrnn.TensorArray(F32, size=x.shape[1]).unstack(jnp.swapaxes(x, 0, 1))

    def loop_fn(t, output, state, count):
        if output is None:
            state, count = LSTM.zero_state(x.shape[0], F32), jnp.int32(0)
        return t >= n, inputs_ta.read(t), state, output, count + 1

    emit_ta, state, count = jaxrnn.raw_rnn(LSTM, loop_fn, max_time=x.shape[1])
    return {"outputs": emit_ta.stack(), "state": state, "count": count}


FUNCTIONS = {
    "projected": dynamic(jaxrnn.LSTMCell(UNITS, use_peepholes=True, num_proj=2)),
    "raw_rnn": raw,
}
TABLE = jnp.asarray(np.random.default_rng(1).normal(size=(10, UNITS)), F32)
START = jnp.array([[1.0] * UNITS, [-0.5] * UNITS], F32), jnp.array([1, 2], jnp.int32)


def beam(state, start):
    functions = lambda ids: TABLE[ids], lambda y: y @ TABLE.T
    model = decode.Model(GRU, *functions, state, start, 0)
    return decode.beam_search(model, 6, num_beams=3)


# A file holds tuples where a function returns an `LSTMStateTuple`: compare leaves.
same = functools.partial(helpers.assert_near, tolerance=5e-6)


@pytest.mark.fast("projected")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_any_batch_and_time(name):
    b, t = jax.export.symbolic_shape("b, t")
    x = jax.ShapeDtypeStruct((b, t, DEPTH), F32)
    n = jax.ShapeDtypeStruct((b,), jnp.int32)
    program = jax.export.deserialize(to_stablehlo(FUNCTIONS[name], x, n))
    assert program.platforms == ("cpu", "cuda", "tpu")
    same(program.call(*data()), jax.jit(FUNCTIONS[name])(*data()))


@pytest.mark.slow
def test_gradients_on_request():
    (x, n), run = data(), FUNCTIONS["raw_rnn"]
    program = jax.export.deserialize(to_stablehlo(run, x, n, vjp_order=1))
    got = helpers.differentiated(lambda x: program.call(x, n), x)
    same(got, helpers.differentiated(lambda x: run(x, n), x))


@pytest.mark.slow
def test_a_decoder():
    program = jax.export.deserialize(to_stablehlo(beam, *START))
    same(program.call(*START), jax.jit(beam)(*START))


def test_standard_containers_in_and_out():
    step = lambda inputs, state: {"result": LSTM(inputs["x"], state)}
    x, state = {"x": jnp.ones((1, DEPTH), F32)}, LSTM.zero_state(1, F32)
    got = jax.export.deserialize(to_stablehlo(step, x, state)).call(x, tuple(state))
    assert type(got) is dict
    assert type(got["result"][1]) is tuple
    same(got, step(x, state))


def test_our_types_are_serialized_by_jax_itself():
    packed = jaxrnn.pack_sequences(np.ones((3, 3, DEPTH), "f"), np.array([2, 3, 1]))
    double = functools.partial(jax.tree.map, lambda leaf: leaf + leaf)
    arguments = packed, LSTM.zero_state(3, F32)
    exported = jax.export.export(jax.jit(lambda *given: double(given)))(*arguments)
    program = jax.export.deserialize(exported.serialize())
    got_packed, got_state = program.call(*arguments)
    assert isinstance(got_packed, jaxrnn.Packed)
    assert isinstance(got_state, jaxrnn.LSTMStateTuple)
    same((got_packed, got_state), double(arguments))


# LiteRT.


@pytest.fixture
def tensorflow():
    """LiteRT fails to slice by int64, in which `jax.lax.scan` counts with x64."""
    pytest.importorskip("ai_edge_litert")
    pytest.importorskip("tensorflow")
    with jax.enable_x64(False):
        yield


def deviation(file, f, *arguments):
    """The largest difference between the results of a file and of a function."""
    litert = importlib.import_module("ai_edge_litert.interpreter")
    run = litert.Interpreter(model_content=file).get_signature_runner()
    leaves = map(np.asarray, jax.tree.leaves(arguments))
    results = run(**{f"input_{i}": leaf for i, leaf in enumerate(leaves)})
    want = jax.tree.leaves(jax.jit(f)(*arguments))
    pairs = [(results[f"output_{i}"], leaf) for i, leaf in enumerate(want)]
    assert len(results) == len(want)
    differences = [np.abs(got.astype(float) - np.asarray(leaf)) for got, leaf in pairs]
    return max(each.max(initial=0) for each in differences)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FUNCTIONS, "beam"])
def test_results_of_the_function(name, tensorflow):
    f, given = (beam, START) if name == "beam" else (FUNCTIONS[name], data())
    assert deviation(to_tflite(f, *given), f, *given) < 2e-6


@pytest.mark.slow
def test_smaller_files_lose_accuracy(tensorflow):
    cell, x = jaxrnn.LSTMCell(128), helpers.draw(2, 20, 64, dtype=np.float32)
    cell = cell.bind(cell.init(jax.random.key(0), x[:, 0]))
    run = lambda x: jaxrnn.dynamic_rnn(cell, x, dtype=F32)
    file, smaller = to_tflite(run, x), to_tflite(run, x, optimize="int8")
    assert len(smaller) < 0.45 * len(file)
    assert 1e-5 < deviation(smaller, run, x) < 0.02


TWO = jnp.ones(2)
ANY = jax.ShapeDtypeStruct(jax.export.symbolic_shape("b"), F32)
test_refusals = helpers.refusals(
    [
        (TypeError, "`f` must be a fun", lambda: to_stablehlo(3, TWO)),
        (TypeError, r"`examples\[0\]\['x'\]`", lambda: to_stablehlo(abs, {"x": "a"})),
        (ValueError, "`optimize`", lambda: to_tflite(abs, TWO, optimize="int4")),
        (ValueError, r"`examples\[0\]`", lambda: to_tflite(abs, ANY)),
    ]
)


fused = lambda: to_tflite_operators(LSTM, data()[0])
MISSING = [
    ("tensorflow", "tensorflow-cpu", lambda: to_tflite(abs, TWO)),
    ("ai_edge_litert.schema_py_generated", "ai-edge-litert", fused),
    ("onnx", "onnx", lambda: jaxrnn.export.to_onnx(LSTM)),
]


@pytest.mark.parametrize(("module", "package", "call"), MISSING)
def test_what_to_install(module, package, call, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"pip install {package}"):
        call()
