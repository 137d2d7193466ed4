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
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, differentiated, with_prefix

import jaxrnn
from jaxrnn import convert
from jaxrnn.testing._oracle import weighted_sum

HERE = pathlib.Path(__file__).parents[1] / "golden" / "convert"
EXACT = 1e-12


class Golden(NamedTuple):
    """The weights and results of a model, and how its weights become cells."""

    weights: Any  # What `load` takes.
    load: (
        Callable  # Makes a bound cell of the weights, or the cells of both directions.
    )
    save: Callable  # The inverse of `load`.
    states: Any  # The initial states, or None.
    results: dict  # Outputs and final states, by the tolerance.
    gradients: Any = None  # Of the weights and of the inputs, or None.
    loss: Callable = lambda results: sum(
        jnp.sum(x**2) for x in jax.tree.leaves(results)
    )  # What the gradients are of.
    time_major: bool = False


def states_of(golden, h, c, both):
    """The states of all layers, as the drivers take them."""
    layers = []
    for i in range(2):
        if h.format(i) not in golden:
            continue
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
    both, activation = "both" in name, "relu" if "relu" in name else "tanh"

    def states(*keys):
        h, *c = (golden[key] for key in keys if key in golden)
        return convert.torch.load_state((h, *c) if c else h, bidirectional=both)

    gradients = with_prefix("grads/", golden)
    slope = gradients.pop("x")
    return Golden(
        with_prefix("weights/", golden),
        lambda w: convert.torch.load(w, "rnn.", activation, bidirectional=both),
        lambda cells: convert.torch.save(cells, "rnn.", bidirectional=both),
        states("h0", "c0"),
        {EXACT: (golden["outputs"], states("h", "c"))},
        (gradients, slope),
    )


def of_keras(name, golden):
    both = "both" in name
    activation = next((a for a in ("relu", "softsign") if a in name), "tanh")
    options = {"activation": activation, "reset_after": "before" not in name}

    def lists(kind):
        """For each layer the arrays in the order of `get_weights()`."""
        layers = [with_prefix(f"{kind}/{i}/", golden) for i in range(2)]
        return [list(layer.values()) for layer in layers if layer]

    return Golden(
        lists("weights"),
        lambda w: convert.keras.load(*w, **options, bidirectional=both),
        lambda cells: convert.keras.save(cells, bidirectional=both),
        states_of(golden, "h0/{}", "c0/{}", both),
        {EXACT: (golden["outputs"], states_of(golden, "h/{}", "c/{}", both))},
        (lists("grads"), golden["grads/x"]),
    )


def of_onnx(name, golden):
    """ONNX has no gradients. Its own evaluator, in float64, knows few activations."""
    both, nodes = "both" in name, []
    made = lambda arrays: (arrays["outputs"], states_of(arrays, "{}/h", "{}/c", both))
    exact = with_prefix("reference/", golden)
    results = {2e-6: made(golden)} | ({EXACT: made(exact)} if exact else {})
    wide = lambda array: array.astype(np.float64) if exact else array
    for node in (with_prefix(f"{i}/", golden) for i in range(2)):
        if node:
            arrays = {key: wide(node[key]) for key in "WRBP" if key in node}
            nodes.append(arrays | json.loads(str(node["attributes"])))
    return Golden(
        nodes,
        lambda w: convert.onnx.load(*w, bidirectional=both),
        lambda cells: convert.onnx.save(cells, bidirectional=both),
        jax.tree.map(wide, states_of(golden, "{}/h0", "{}/c0", both)),
        results,
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
    options = {"scope": scope, "bidirectional": "both" in name}
    given = {"cell": cell, "inputs": golden["inputs"][:, 0]}
    # A training graph also holds the slots of its optimizer.
    every = with_prefix("variables/", golden)
    own = {k: x for k, x in every.items() if "Adam" not in k and "beta" not in k}
    gradients = with_prefix("gradients/", golden)
    slope = gradients.pop("inputs")
    leaves = lambda key: list(with_prefix(f"{key}/", golden).values())
    return Golden(
        own,
        lambda w: convert.tf1.load(every | w, **given, **options),
        lambda cells: convert.tf1.save(cells, **options),
        None,
        {EXACT: (leaves("outputs"), leaves("states"))},
        (gradients, slope),
        # Leaf by leaf, as record/convert_tf1.py weighs them.
        lambda results: sum(map(weighted_sum, jax.tree.leaves(results))),
    )


LIBRARIES = {"torch": of_torch, "keras": of_keras, "onnx": of_onnx, "tf1": of_tf1}
FILES = {library: dict(np.load(HERE / f"{library}.npz")) for library in LIBRARIES}
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


FAST = [
    *[f"torch-{n}" for n in ("lstm_no_bias", "lstm_projected_both", "gru")],
    *[f"keras-{n}" for n in ("lstm_softsign", "lstm_both", "gru_*_both")],
    *[f"onnx-{n}" for n in ("lstm_both", "lstm_softsign", "gru", "gru_after_both")],
    *("torch-rnn_relu_both", "onnx-rnn_relu", "tf1-scoped", "tf1-stack_both_ways"),
]


def close(got, want, rtol, atol):
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(g, w, rtol, atol)


@pytest.mark.fast(*FAST)
@pytest.mark.parametrize("case", NAMES)
def test_results_and_gradients(case):
    """Outputs, final states, and gradients with respect to inputs and weights."""
    golden, x = read(case)

    compute = lambda weights, x: run(case, golden, golden.load(weights), x)
    if golden.gradients is None:
        x = x.astype(golden.weights[0]["W"].dtype)
        results = jax.jit(functools.partial(compute, golden.weights))(x)
    else:
        given = golden.weights, x
        results, slopes = differentiated(compute, *given, total=golden.loss)
        chex.assert_trees_all_equal_structs(slopes, golden.gradients)
        close(slopes, golden.gradients, EXACT, EXACT)
    assert {leaf.dtype for leaf in jax.tree.leaves(results)} == {x.dtype}
    for tolerance, want in golden.results.items():
        close(results, want, 0, tolerance)


@pytest.mark.parametrize("case", NAMES)
def test_there_and_back(case):
    """Bits return, except that two biases become one; a missing bias is of zeros."""
    golden, _ = read(case)
    cells = golden.load(golden.weights)
    saved = golden.save(cells)
    assert_same(golden.load(saved), cells)
    layout = lambda tree: {
        jax.tree_util.keystr(path): getattr(leaf, "shape", leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    assert layout(golden.weights).items() <= layout(saved).items()


def to_cudnn(kernel, gates):
    """The same numbers in memory, with each gate's kernel as `[units, depth]`."""
    parts = np.split(kernel, gates, axis=1)
    return np.concatenate([k.T.reshape(k.shape) for k in parts], axis=1)


@pytest.mark.parametrize("case", ["lstm", "lstm_both", "gru_after", "gru_after_both"])
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
    close(results, golden.results[EXACT], 0, EXACT)
