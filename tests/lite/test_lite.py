"""TensorFlow Lite's cells: the numbers of the core's cells, in another layout."""
# ruff: noqa: E501 (One refusal a row.)

import inspect
import math
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import BasicRNNCell, GRUCell, LSTMCell, lite, testing
from jaxrnn.testing import check_cell, make_setup
from jaxrnn.testing._oracle import close, weighted_sum

F64 = jnp.dtype("float64")
X = np.random.default_rng(0).normal(size=(3, 4, 2))
LENGTHS = [3, 0, 2, 5]


def split_lstm(params):
    """NumPy: the parameters of LSTMCell as TFLiteLSTMCell has them."""
    units = params["bias"].shape[0] // 4
    out = {}
    for block, gate in enumerate(["input", "cell", "forget", "output"]):
        columns = slice(block * units, (block + 1) * units)
        kernel = params["kernel"][:, columns].T
        out[f"input_to_{gate}_w"], out[f"cell_to_{gate}_w"] = (
            kernel[:, :2],
            kernel[:, 2:],
        )
        out[f"{gate}_bias"] = params["bias"][columns]
    out |= {name: leaf for name, leaf in params.items() if name.endswith("_diag")}
    if "projection" in params:
        out["projection"] = {"kernel": params["projection"]["kernel"].T}
    return out


def split_rnn(params):
    """NumPy: the parameters of BasicRNNCell as TfLiteRNNCell has them."""
    kernel = params["kernel"].T
    return {
        "input_weights": kernel[:, :2],
        "recurrent_weights": kernel[:, 2:],
        "bias": params["bias"],
    }


FULL = {
    "use_peepholes": True,
    "cell_clip": 0.6,
    "num_proj": 2,
    "proj_clip": 0.3,
    "forget_bias": 0.5,
    "state_is_tuple": False,
    "activation": "softsign",
}
TWINS = {
    "lstm": (lite.TFLiteLSTMCell(3), LSTMCell(3), split_lstm),
    "lstm_full": (lite.TFLiteLSTMCell(3, **FULL), LSTMCell(3, **FULL), split_lstm),
    "rnn": (lite.TfLiteRNNCell(3), BasicRNNCell(3), split_rnn),
    "rnn_relu": (lite.TfLiteRNNCell(3, "relu"), BasicRNNCell(3, "relu"), split_rnn),
}


@pytest.mark.parametrize(("cell", "core", "split"), TWINS.values(), ids=TWINS)
def test_equals_the_core_on_the_same_numbers(cell, core, split):
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(core.init, jax.random.key(0), X[0])
    params = jax.tree.map(lambda s: rng.normal(size=s.shape), shapes)

    def lite_loss(params):
        results = lite.dynamic_rnn(cell.bind(params), X, LENGTHS, dtype=F64)
        return weighted_sum(results), results

    def core_loss(params):
        results = jaxrnn.dynamic_rnn(
            core.bind(params), X, LENGTHS, dtype=F64, time_major=True
        )
        return weighted_sum(results), results

    gradients, results = jax.jit(jax.grad(lite_loss, has_aux=True))(split(params))
    want_gradients, want = jax.jit(jax.grad(core_loss, has_aux=True))(params)
    close(results, want, F64)
    close(gradients, split(want_gradients), F64)


@pytest.mark.slow
def test_keeps_the_laws_of_a_cell():
    check_cell(lite.TfLiteRNNCell(3), jax.ShapeDtypeStruct((4, 2), jnp.float32))


@pytest.mark.slow
def test_the_lstm_keeps_the_laws_that_compile_fast():
    # Values and gradients are compared with the core's cell.
    setup = make_setup(TWINS["lstm_full"][0], jax.ShapeDtypeStruct((4, 2), jnp.float32))
    for law in (
        testing.is_a_value,
        testing.inits_from_shapes,
        testing.has_its_sizes,
        testing.keeps_rows_apart,
        testing.maps_over_an_axis,
    ):
        law(setup)


def test_parameters_are_tensorflow_lites():
    cell = lite.TFLiteLSTMCell(300, use_peepholes=True, num_proj=200)
    params = cell.init(jax.random.key(0), jnp.ones((1, 100), jnp.bfloat16))
    gates = ("input", "forget", "cell", "output")
    weights = {f"input_to_{g}_w": (300, 100) for g in gates}
    weights |= {f"cell_to_{g}_w": (300, 200) for g in gates}
    weights |= {f"w_{g}_diag": (300,) for g in "fio"}
    biases = {f"{g}_bias": (300,) for g in gates}
    shapes = jax.tree.map(jnp.shape, params, is_leaf=lambda x: hasattr(x, "shape"))
    assert shapes == weights | biases | {"projection": {"kernel": (200, 300)}}
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
    assert not any(params[name].any() for name in biases)
    for leaf in (*(params[name] for name in weights), params["projection"]["kernel"]):
        limit = math.sqrt(6 / (leaf.shape[0] + leaf.shape[-1]))
        assert 0.95 * limit < float(jnp.max(jnp.abs(leaf))) <= 1.01 * limit
    names = list(cell.param_specs(100))
    assert names == [
        *list(weights)[:8],
        *biases,
        "w_f_diag",
        "w_i_diag",
        "w_o_diag",
        "projection",
    ]


def test_parameters_of_the_basic_cell():
    params = lite.TfLiteRNNCell(5).init(jax.random.key(0), X[0], jnp.float32)
    assert {name: (str(p.dtype), p.shape) for name, p in params.items()} == {
        "input_weights": ("float32", (5, 2)),
        "recurrent_weights": ("float32", (5, 5)),
        "bias": ("float32", (5,)),
    }


def test_the_initializer_fills_all_but_biases():
    cell = lite.TFLiteLSTMCell(
        2, True, initializer=jax.nn.initializers.ones, num_proj=1
    )
    params = cell.init(jax.random.key(0), X[0])
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        want = 0.0 if "bias" in jax.tree_util.keystr(path) else 1.0
        assert (leaf == want).all()


def test_cells_are_values():
    assert lite.TFLiteLSTMCell(3, activation="tanh") == lite.TFLiteLSTMCell(3)
    assert lite.TFLiteLSTMCell(3) != lite.TFLiteLSTMCell(3, forget_bias=0.0)
    assert lite.TFLiteLSTMCell(3) != LSTMCell(3)
    assert (
        repr(lite.TfLiteRNNCell(3, name="a"))
        == "TfLiteRNNCell(num_units=3, activation=tanh, name='a')"
    )


def test_stacks_and_takes_other_cells():
    cell = jaxrnn.MultiRNNCell([lite.TFLiteLSTMCell(3), lite.TfLiteRNNCell(2)])
    bound = cell.bind(cell.init(jax.random.key(0), X[0]))
    outputs, state = lite.dynamic_rnn(bound, X, LENGTHS, dtype=F64)
    want = jaxrnn.dynamic_rnn(bound, np.swapaxes(X, 0, 1), LENGTHS, dtype=F64)
    close((jnp.swapaxes(outputs, 0, 1), state), want, F64)


SIGNATURES = {
    "dynamic_rnn": "cell, inputs, sequence_length=None, initial_state=None, "
    "dtype=None, parallel_iterations=None, swap_memory=False, time_major=True, "
    "scope=None",
    "TFLiteLSTMCell": "num_units, use_peepholes=False, cell_clip=None, "
    "initializer=None, num_proj=None, proj_clip=None, num_unit_shards=None, "
    "num_proj_shards=None, forget_bias=1.0, state_is_tuple=True, activation=None, "
    "reuse=None, name=None, dtype=None",
    "TfLiteRNNCell": "num_units, activation=None, reuse=None, name=None, dtype=None",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature_is_tensorflows_and_described(name):
    public = getattr(lite, name)
    parameters = inspect.signature(public).parameters.values()
    got = [
        p.name if p.default is p.empty else f"{p.name}={p.default}" for p in parameters
    ]
    assert ", ".join(got) == SIGNATURES[name]
    doc = inspect.getdoc(public)
    assert "Source:" in doc
    for p in parameters:
        assert f"{p.name}:" in doc, f"`{p.name}` is not described"


@pytest.mark.slow
def test_the_core_does_not_import_it():
    program = "import jaxrnn, sys; print('jaxrnn.lite' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "False"


def bound(cell):
    return cell.bind(cell.init(jax.random.key(0), X[0]))


GRU = bound(GRUCell(2))

REFUSALS = {
    "batch_major": (AssertionError, "lite.dynamic_rnn: `time_major` must be True, got False. Swap the first",
                    lambda: lite.dynamic_rnn(GRU, X, dtype=F64, time_major=False)),
    "time_major_kind": (TypeError, "`time_major` must be True or False, got 0",
                        lambda: lite.dynamic_rnn(GRU, X, dtype=F64, time_major=0)),
    "cell": (TypeError, "`cell` must be an RNNCell", lambda: lite.dynamic_rnn(3, X, dtype=F64)),
    "nest": (ValueError, r"`inputs` must be one array \[time, batch, ...\], got \(\*, \*\)",
             lambda: lite.dynamic_rnn(GRU, (X, X), dtype=F64)),
    "none": (ValueError, "None values not supported", lambda: lite.dynamic_rnn(GRU, None, dtype=F64)),
    "empty": (ValueError, "`inputs` must be one array", lambda: lite.dynamic_rnn(GRU, [], dtype=F64)),
    "units": (TypeError, "`num_units` must be an integer", lambda: lite.TFLiteLSTMCell(2.5)),
    "proj": (ValueError, "`num_proj` must be at least 1", lambda: lite.TFLiteLSTMCell(2, num_proj=0)),
    "activation": (ValueError, "must be one of elu", lambda: lite.TfLiteRNNCell(2, "tan")),
    "params": (ValueError, r"`params\['input_weights'\]` must have shape .* of depth 3, got float64\[2, 2\]",
               lambda: bound(lite.TfLiteRNNCell(2))(np.ones((4, 3)), np.zeros((4, 2)))),
    "params_of_core": (ValueError, r"unknown: params\['kernel'\]", lambda: lite.TfLiteRNNCell(2).apply(
        bound(BasicRNNCell(2)).params, X[0], np.zeros((4, 2)))),
    "key": (TypeError, "TFLiteLSTMCell: `key` must be a random key", lambda: lite.TFLiteLSTMCell(2).init(0, X[0])),
    "state": (TypeError, "`state` must be a tuple of 2 arrays",
              lambda: bound(lite.TFLiteLSTMCell(2))(X[0], np.zeros((4, 2)))),
    "own_dtype": (TypeError, "must share one dtype", lambda: lite.TfLiteRNNCell(2, dtype=jnp.float32).apply(
        bound(lite.TfLiteRNNCell(2)).params, X[0], np.zeros((4, 2)))),
}  # fmt: skip


@pytest.mark.parametrize(("error", "words", "call"), REFUSALS.values(), ids=REFUSALS)
def test_refusal(error, words, call):
    with pytest.raises(error, match=re.compile(words, re.DOTALL)):
        call()


def test_an_error_names_the_lite_cell():
    with pytest.raises(ValueError, match="TFLiteLSTMCell: `num_proj`"):
        lite.TFLiteLSTMCell(2, num_proj=0)
