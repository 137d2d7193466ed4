"""Functions that TensorFlow converts and LiteRT runs, against JAX."""

import sys

import export_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from export_cases import F32, UNITS, bound, data

import jaxrnn
from jaxrnn import decode
from jaxrnn.export import tflite_deviation, to_tflite, to_tflite_operators

pytest.importorskip("ai_edge_litert")

GRUS = [bound(jaxrnn.GRUCell(UNITS)) for _ in range(2)]
LSTM = bound(jaxrnn.LSTMCell(UNITS))


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
    **export_cases.FUNCTIONS,
    "no-lengths": lambda x, n: jaxrnn.dynamic_rnn(LSTM, x, dtype=F32),
    "bidirectional": lambda x, n: jaxrnn.bidirectional_dynamic_rnn(
        *GRUS, x, n, dtype=F32
    ),
    "raw_rnn": raw,
}
TABLE = jnp.asarray(np.random.default_rng(1).normal(size=(10, UNITS)), F32)
DECODER = bound(jaxrnn.GRUCell(UNITS), UNITS)


def decoded(decoder, **options):
    return lambda state, start: decoder(
        cell=DECODER,
        embed=lambda ids: TABLE[ids],
        project=lambda output: output @ TABLE.T,
        initial_state=state,
        start_ids=start,
        end_id=0,
        max_time=6,
        **options,
    )


START = jnp.array([[1.0] * UNITS, [-0.5] * UNITS], F32), jnp.array([1, 2], jnp.int32)


def shapes(arguments):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arguments)


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_results_of_the_function(name):
    pytest.importorskip("tensorflow")
    file = to_tflite(FUNCTIONS[name], *shapes(data()))
    assert tflite_deviation(file, FUNCTIONS[name], *data()) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(
    "decoder",
    [decoded(decode.greedy), decoded(decode.beam_search, beam_width=3)],
    ids=["greedy", "beam"],
)
def test_decoders(decoder):
    pytest.importorskip("tensorflow")
    # LiteRT fails to slice by int64, in which `jax.lax.scan` counts otherwise.
    with jax.enable_x64(False):
        assert tflite_deviation(to_tflite(decoder, *START), decoder, *START) < 2e-6


@pytest.mark.slow
@pytest.mark.parametrize(("optimize", "size"), [("float16", 0.6), ("int8", 0.45)])
def test_smaller_files_lose_accuracy(optimize, size):
    pytest.importorskip("tensorflow")
    cell = bound(jaxrnn.LSTMCell(128), 64)
    run = lambda x: jaxrnn.dynamic_rnn(cell, x, dtype=F32)
    x = jax.random.normal(jax.random.key(0), (2, 20, 64), F32)
    file, smaller = to_tflite(run, x), to_tflite(run, x, optimize=optimize)
    assert len(smaller) < size * len(file)
    assert tflite_deviation(file, run, x) < 1e-6
    assert 1e-6 < tflite_deviation(smaller, run, x) < 0.02


@pytest.mark.slow
def test_leaves_have_numbers():
    pytest.importorskip("tensorflow")
    f = lambda nest, y: ([nest["b"] + i for i in range(11)], {"unused": y})
    arguments = {"b": jnp.ones(2, F32), "a": jnp.zeros(3, jnp.int32)}, jnp.array([True])
    assert tflite_deviation(to_tflite(f, *arguments), f, *arguments) == 0


@pytest.mark.slow
def test_random_numbers_are_missing():
    pytest.importorskip("tensorflow")
    sample = decoded(decode.sample, key=jax.random.key(0))
    with pytest.raises(ValueError, match="to_tflite: TensorFlow Lite lacks an operat"):
        to_tflite(sample, *START)


def test_the_deviation_from_the_function():
    x, _ = data()
    file = to_tflite_operators(LSTM, x)
    outputs = lambda x: jaxrnn.dynamic_rnn(LSTM, x, dtype=F32)[0]
    assert tflite_deviation(file, outputs, x) < 1e-6
    distant = tflite_deviation(file, lambda x: outputs(x).at[1, 2, 3].add(0.25), x)
    assert abs(distant - 0.25) < 1e-6
    with pytest.raises(
        ValueError, match=r"float32\[3, 5, 4\]\), got float32\[3, 5, 4\], f"
    ):
        tflite_deviation(file, lambda x: jaxrnn.dynamic_rnn(LSTM, x, dtype=F32), x)
    with pytest.raises(ValueError, match=r"`arguments` must hold 1 arrays, got 2"):
        tflite_deviation(file, outputs, x, x)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((3, jnp.ones(2)), {}, TypeError, "`f` must be a function"),
        ((abs, 1.0), {}, TypeError, r"`examples\[0\]` must be an array"),
        ((abs, jnp.ones(2)), {"optimize": "int4"}, ValueError, "`optimize` must be"),
        (
            (abs, jax.ShapeDtypeStruct(jax.export.symbolic_shape("b"), F32)),
            {},
            ValueError,
            "`examples` must have fixed sizes",
        ),
        ((abs, jnp.ones((2, 0))), {}, ValueError, "`examples` must have fixed sizes"),
    ],
)
def test_refusals_name_the_argument(arguments, options, error, message):
    with pytest.raises(error, match=rf"to_tflite: {message}"):
        to_tflite(*arguments, **options)


def test_what_to_install_without_tensorflow(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ImportError, match="pip install tensorflow-cpu"):
        to_tflite(abs, jnp.ones(2, F32))
