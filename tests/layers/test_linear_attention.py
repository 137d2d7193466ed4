"""The layers of the page "Layers of linear attention", in float64.

`tests/conformance` compares three of them with other packages.
"""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import run_page
from flax import nnx
from helpers import assert_near, usual_promotion

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "docs" / "recipes" / "linear_attention.md"
DEPTH, LENGTH = 8, 9
LAYERS = {
    "GatedDeltaNet": {"heads": 4, "key_size": 3, "value_size": 4, "key_heads": 2},
    "KDA": {"heads": 2, "key_size": 3, "value_size": 4},
    "Mamba2": {"heads": 2, "key_size": 3, "value_size": 4},
    "RWKV7": {"heads": 2},
}
# Two rows of two documents.
DOCUMENTS = np.random.default_rng(0).normal(size=(4, LENGTH, DEPTH))
ROWS = DOCUMENTS.reshape(2, 2 * LENGTH, DEPTH)
RESETS = np.zeros(ROWS.shape[:2], bool)
RESETS[:, [0, LENGTH]] = True

each_layer = pytest.mark.parametrize("name", LAYERS)
one_is_fast = pytest.mark.fast("GatedDeltaNet")


@pytest.fixture(autouse=True)
def promotion():
    with usual_promotion():
        yield


@pytest.fixture(scope="module")
def page():
    """The classes and functions of the page."""
    with usual_promotion():
        return run_page.definitions(PAGE)


def make(page, name):
    """A layer that runs in chunks, with no parameter of 0, such as an initial bias."""
    layer = getattr(page, name)(DEPTH, **LAYERS[name], rngs=nnx.Rngs(0))
    layer.memory = dataclasses.replace(layer.memory, chunk_size=4)
    graph, state = nnx.split(layer)
    rng = np.random.default_rng(1)
    drawn = jax.tree.map(lambda x: x + rng.normal(scale=0.1, size=x.shape), state)
    return nnx.merge(graph, drawn)


@nnx.jit
def run(layer, x, state=(None, None), resets=None):
    return layer(x, state, resets=resets)


@pytest.mark.slow
@each_layer
def test_documents_of_a_row_are_separate(name, page):
    layer = make(page, name)
    got, states = run(layer, ROWS, resets=RESETS)
    want, lasts = run(layer, DOCUMENTS)
    assert_near(got.reshape(want.shape), want, tolerance=1e-12)
    assert_near(states, jax.tree.map(lambda x: x[1::2], lasts), tolerance=1e-12)
    assert np.abs(want).max() > 0.1


@one_is_fast
@each_layer
def test_single_tokens_equal_the_parallel_form(name, page):
    layer = make(page, name)
    want, last = run(layer, DOCUMENTS)
    outputs, state = [], jax.tree.map(jnp.zeros_like, last)
    for t in range(LENGTH):
        output, state = run(layer, DOCUMENTS[:, t : t + 1], state)
        outputs.append(output)
    assert_near(jnp.concatenate(outputs, axis=1), want, tolerance=1e-12)
    assert_near(state, last, tolerance=1e-12)


@one_is_fast
@each_layer
def test_a_step_of_training_on_packed_documents(name, page):
    """All parameters have gradients, and the loss falls as the gradient says."""
    layer, rate = make(page, name), 1e-5
    targets = np.random.default_rng(2).normal(size=ROWS.shape)

    def compute_loss(layer):
        outputs, _ = layer(ROWS, resets=RESETS)
        return jnp.mean((outputs - targets) ** 2)

    evaluate = nnx.jit(nnx.value_and_grad(compute_loss))
    loss, gradient = evaluate(layer)
    leaves = jax.tree.leaves(gradient)
    assert all(np.isfinite(x).all() and np.abs(x).max() > 1e-9 for x in leaves)
    nnx.Optimizer(layer, optax.sgd(rate), wrt=nnx.Param).update(layer, gradient)
    fall = rate * sum(np.sum(np.square(x)) for x in leaves)
    np.testing.assert_allclose(loss - evaluate(layer)[0], fall, rtol=0.01)


@pytest.mark.slow
@each_layer
def test_padding_of_zeros_has_no_effect_on_gradients(name, page):
    layer, padded = make(page, name), np.array(DOCUMENTS)
    padded[:, LENGTH // 2 :] = 0

    def compute_loss(layer, x, lengths):
        outputs, _ = layer(x, sequence_length=lengths)
        return jnp.sum(outputs[:, : LENGTH // 2] ** 2)

    gradient = nnx.jit(nnx.grad(compute_loss))
    lengths = np.full(len(padded), LENGTH // 2)
    got = gradient(layer, padded, lengths)
    want = gradient(layer, padded[:, : LENGTH // 2], lengths)
    assert_near(jax.tree.leaves(got), jax.tree.leaves(want), tolerance=1e-9)


@pytest.mark.slow
def test_rwkv7_is_the_loop_of_its_equations(page):
    """arXiv:2503.14456, section 4, with states [value, key] as there."""
    layer = make(page, "RWKV7")
    got, (_, states) = run(layer, DOCUMENTS)
    for x, outputs, state in zip(DOCUMENTS, got, states, strict=True):
        want, last = rwkv7(layer, x)
        np.testing.assert_allclose(outputs, want, atol=1e-12)
        np.testing.assert_allclose(state, last.mT, atol=1e-12)


def rwkv7(layer, xs):
    heads = LAYERS["RWKV7"]["heads"]
    by_head = lambda x: x.reshape(heads, -1)
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    array = lambda param: np.asarray(param[...])
    kernel = lambda module: array(module.kernel)

    def low_rank(module, x, activation=lambda x: x):
        down, _, up = module.layers
        product = activation(x @ kernel(down)) @ kernel(up)
        return product if up.bias is None else product + array(up.bias)

    s = np.zeros((heads, DEPTH // heads, DEPTH // heads))
    before, outputs = np.zeros(DEPTH), []
    for x in xs:
        r, w, k, v, a, g = (x + mix * (before - x) for mix in array(layer.mix))
        r, k, v = r @ kernel(layer.r), k @ kernel(layer.k), v @ kernel(layer.v)
        rate = sigmoid(low_rank(layer.a, a))
        w = np.exp(-np.exp(-0.5) * sigmoid(low_rank(layer.w, w, np.tanh)))
        key = by_head(k * array(layer.k_k))
        key /= np.linalg.norm(key, axis=-1, keepdims=True)
        k = k * (1 - array(layer.k_a) * (1 - rate))
        r, w, k, v, rate = map(by_head, (r, w, k, v, rate))
        for head in range(heads):
            moved = np.outer(key[head], rate[head] * key[head])
            s[head] = s[head] @ (np.diag(w[head]) - moved) + np.outer(v[head], k[head])
        h = np.einsum("hvk,hk->hv", s, r)
        h = (h - h.mean(1, keepdims=True)) / np.sqrt(h.var(1, keepdims=True) + 64e-5)
        h = h.reshape(-1) * array(layer.norm.scale) + array(layer.norm.bias)
        bonus = (r * array(layer.r_k) * k).sum(1, keepdims=True) * v
        gate = low_rank(layer.gate, g, sigmoid)
        outputs.append((h + bonus.reshape(-1)) * gate @ kernel(layer.back))
        before = x
    return np.stack(outputs), s
