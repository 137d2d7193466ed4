"""Weights of other libraries, against what those made of them.

PyTorch, Keras, ONNX and TensorFlow 1 are not needed here: `golden/convert/*.npz` holds
their numbers, which `golden/record/convert_*.py` recorded.
"""

import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import numpy as np
import pytest
from helpers import assert_same, differentiated, squared, with_prefix

import jaxrnn
from jaxrnn import convert
from jaxrnn.testing._oracle import weighted_sum

HERE = pathlib.Path(__file__).parents[1] / "golden" / "convert"
EXACT = 1e-12


class Golden(NamedTuple):
    """The weights and results of a model, and how its weights become cells."""

    weights: Any  # What `load` takes.
    load: Callable  # Makes a bound cell, or the cells of both directions.
    save: Callable  # The inverse of `load`.
    results: Any  # Outputs and final states.
    states: Any = None  # The initial states.
    gradients: Any = None  # Of the weights and of the inputs.
    differentiated: Callable = squared
    tolerance: float = EXACT
    time_major: bool = False


def states_of(golden, h, c, both):
    """The states of all layers, as the drivers take them."""
    layers = []
    for i in [i for i in range(2) if h.format(i) in golden]:
        state = golden[h.format(i)]
        if c.format(i) in golden:
            state = jaxrnn.LSTMStateTuple(golden[c.format(i)], state)
        # [directions, batch, units]
        layers.append(jax.tree.map(lambda s: s.reshape(-1, *s.shape[-2:]), state))
    side = lambda k: jax.tree.map(lambda state: state[k], tuple(layers))
    if both:
        return side(0), side(1)
    return side(0) if len(layers) > 1 else side(0)[0]


def of_torch(name, golden):
    options = {"bidirectional": "both" in name}
    activation = "relu" if "relu" in name else "tanh"

    def states(*keys):
        h, *c = (golden[key] for key in keys if key in golden)
        return convert.from_torch_state((h, *c) if c else h, **options)

    gradients = with_prefix("grads/", golden)
    slope = gradients.pop("x")
    return Golden(
        with_prefix("weights/", golden),
        lambda x: convert.from_torch(x, at="rnn", nonlinearity=activation, **options),
        lambda cells: convert.to_torch(cells, at="rnn"),
        (golden["outputs"], states("h", "c")),
        states("h0", "c0"),
        (gradients, slope),
    )


def of_keras(name, golden):
    both = {"bidirectional": "both" in name}
    activation = next((a for a in ("relu", "softsign") if a in name), "tanh")
    options = {"activation": activation, "reset_after": "before" not in name} | both

    def lists(kind):
        """For each layer the arrays in the order of `get_weights()`."""
        layers = [with_prefix(f"{kind}/{i}/", golden) for i in range(2)]
        return [list(layer.values()) for layer in layers if layer]

    return Golden(
        lists("weights"),
        lambda weights: convert.from_keras(weights, **options),
        convert.to_keras,
        (golden["outputs"], states_of(golden, "h/{}", "c/{}", *both.values())),
        states_of(golden, "h0/{}", "c0/{}", *both.values()),
        (lists("grads"), golden["grads/x"]),
    )


def of_onnx(name, golden):
    """ONNX has no gradients. Its own evaluator, in float64, knows few activations."""
    both, made = "both" in name, with_prefix("reference/", golden)
    wide = (lambda array: array.astype(np.float64)) if made else (lambda array: array)
    results, nodes = made or golden, []
    for node in filter(None, (with_prefix(f"{i}/", golden) for i in range(2))):
        arrays = {key: wide(node[key]) for key in "WRBP" if key in node}
        nodes.append(arrays | json.loads(str(node["attributes"])))
    return Golden(
        nodes,
        lambda weights: convert.from_onnx(weights, bidirectional=both),
        convert.to_onnx_nodes,
        (results["outputs"], states_of(results, "{}/h", "{}/c", both)),
        jax.tree.map(wide, states_of(golden, "{}/h0", "{}/c0", both)),
        tolerance=EXACT if made else 2e-6,
        time_major=True,
    )


# The scope of each case, and the cells that TensorFlow was given.
_full = functools.partial(jaxrnn.LSTMCell, 3, use_peepholes=True, num_proj=2)
_FOUR = [jaxrnn.BasicRNNCell(2), jaxrnn.GRUCell(3), jaxrnn.BasicLSTMCell(2)]
_FOUR += [_full(cell_clip=0.4, proj_clip=0.2)]
_GRU, _ONE = jaxrnn.GRUCell(3), jaxrnn.MultiRNNCell([jaxrnn.LSTMCell(2)])
_PAIRS = [_GRU, jaxrnn.BasicRNNCell(2)], [_ONE, jaxrnn.GRUCell(3)]
SCOPES = {
    "stack": ("rnn", jaxrnn.MultiRNNCell(_FOUR)),
    "scoped": ("encoder/lstm", _full(forget_bias=0.25, activation="relu")),
    "wrapped": ("rnn", _GRU),
    "both_ways": ("bidirectional_rnn", (_GRU, _ONE)),
    "stack_both_ways": ("stack_bidirectional_rnn", _PAIRS),
}


def of_tf1(name, golden):
    scope, cell = SCOPES[name]
    given = {"cell": cell, "inputs": golden["inputs"][:, 0]}
    given["bidirectional"] = "both" in name
    # A training graph also holds the slots of its optimizer.
    every = with_prefix("variables/", golden)
    own = {k: x for k, x in every.items() if "Adam" not in k and "beta" not in k}
    gradients = with_prefix("gradients/", golden)
    slope = gradients.pop("inputs")
    leaves = lambda key: list(with_prefix(f"{key}/", golden).values())
    return Golden(
        own,
        lambda weights: convert.from_tf1(every | weights, at=scope, **given),
        lambda cells: convert.to_tf1(cells, at=scope),
        (leaves("outputs"), leaves("states")),
        gradients=(gradients, slope),
        differentiated=functools.partial(differentiated, total=of_leaves),
    )


def of_leaves(results):
    """The loss of record/convert_tf1.py, which weighs each leaf."""
    return sum(map(weighted_sum, jax.tree.leaves(results)))


LIBRARIES = {"torch": of_torch, "keras": of_keras, "onnx": of_onnx, "tf1": of_tf1}
FILES = {library: np.load(HERE / f"{library}.npz") for library in LIBRARIES}
CASES = [(library, key.split("/")[0]) for library in FILES for key in FILES[library]]
NAMES = {"-".join(case): case for case in CASES}


@functools.cache
def read(case):
    library, name = NAMES[case]
    golden = with_prefix(f"{name}/", FILES[library])
    x = golden["x" if "x" in golden else "inputs"]
    return LIBRARIES[library](name, golden), x


def run(case, golden, cells, x):
    options = {"dtype": x.dtype, "time_major": golden.time_major}
    if not isinstance(cells, tuple):
        return jaxrnn.dynamic_rnn(cells, x, None, golden.states, **options)
    if case == "tf1-both_ways":  # This model keeps the outputs of directions apart.
        (fw,), (bw,) = cells
        return jaxrnn.bidirectional_dynamic_rnn(fw, bw, x, **options)
    given = *cells, x, *(golden.states or (None, None))
    outputs, *finals = jaxrnn.stack_bidirectional_dynamic_rnn(*given, **options)
    # TensorFlow's golden is ordered by layers.
    by_layer = tuple(zip(*finals, strict=True)) if golden.states is None else finals
    return outputs, by_layer


def close(got, want, rtol, atol):
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(g, w, rtol, atol)


def layout(weights):
    """The shape of each array, or the value of each attribute, by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(weights)
    return {jax.tree_util.keystr(p): getattr(x, "shape", x) for p, x in leaves}


@pytest.mark.fast(
    *("torch-lstm_projected_both", "keras-gru_before_both", "tf1-scoped"),
    *("onnx-lstm_both", "onnx-gru_after_both"),
)
@pytest.mark.parametrize("case", NAMES)
def test_there_and_back(case):
    """Outputs, final states, gradients of inputs and weights, and what `save` gives.

    Bits return, except that two biases become one; a missing bias is of zeros.
    """
    golden, x = read(case)
    cells = golden.load(golden.weights)
    saved = golden.save(cells)
    assert_same(golden.load(saved), cells)
    assert layout(golden.weights).items() <= layout(saved).items()
    if golden.gradients is None:
        x = x.astype(golden.weights[0]["W"].dtype)
        results = jax.jit(lambda x: run(case, golden, cells, x))(x)
    else:
        compute = lambda weights, x: run(case, golden, golden.load(weights), x)
        results, slopes = golden.differentiated(compute, golden.weights, x)
        chex.assert_trees_all_equal_structs(slopes, golden.gradients)
        close(slopes, golden.gradients, EXACT, EXACT)
    assert {leaf.dtype for leaf in jax.tree.leaves(results)} == {x.dtype}
    close(results, golden.results, 0, golden.tolerance)


def to_cudnn(kernel, gates):
    """The same numbers in memory, with each gate's kernel as `[units, depth]`."""
    parts = np.split(kernel, gates, axis=1)
    return np.concatenate([k.T.reshape(k.shape) for k in parts], axis=1)


@pytest.mark.parametrize("case", ["lstm_both", "gru_after"])
def test_weights_of_the_cudnn_layers_of_keras(case):
    """Their biases are those of the inputs, followed by those of the state."""
    # The numbers are from tf_keras, which converts `LSTM` to `CuDNNLSTM`.
    packed = to_cudnn(np.arange(6).reshape(2, 3), 1)
    np.testing.assert_array_equal(packed, [[0, 3, 1], [4, 2, 5]])
    golden, x = read(f"keras-{case}")
    gates = 3 if "gru" in case else 4

    def converted(kernel, state, bias):
        bias = bias if "gru" in case else np.append(bias - 1, np.ones_like(bias))
        return [to_cudnn(kernel, gates), to_cudnn(state, gates), bias.ravel()]

    parts = [[w[i : i + 3] for i in range(0, len(w), 3)] for w in golden.weights]
    weights = [[a for each in part for a in converted(*each)] for part in parts]
    compute = lambda weights: run(f"keras-{case}", golden, golden.load(weights), x)
    results = jax.jit(compute)(weights)
    close(results, golden.results, 0, EXACT)
