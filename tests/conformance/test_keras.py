"""The layers of `examples/keras_layers.py`, in Keras 3 on JAX."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("users_settings"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
X = np.random.default_rng(0).normal(size=(4, 6, 3)).astype(np.float32)
MASK = np.arange(6) < [[6], [3], [1], [5]]


@pytest.fixture
def keras(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_BACKEND", "jax")  # Read by the first import.
    monkeypatch.chdir(tmp_path)
    keras = pytest.importorskip("keras")
    assert keras.backend.backend() == "jax"
    keras.utils.set_random_seed(0)
    return keras


@pytest.fixture
def layers(keras):
    return importlib.import_module("keras_layers")


@pytest.mark.parametrize("returns_all", [False, True])
def test_stays_in_keras_with_its_lstm(returns_all, keras, layers):
    theirs = keras.layers.LSTM(5, return_sequences=returns_all)
    want = theirs(X, mask=MASK)
    ours = layers.LSTM(5, return_sequences=returns_all)
    ours.build(X.shape)
    ours.set_weights(theirs.get_weights())
    if returns_all:
        want = jnp.where(MASK[..., None], want, 0)
    np.testing.assert_allclose(ours(X, mask=MASK), want, atol=1e-6)


def test_stays_in_keras_with_any_cell(keras, layers):
    """Masks reach the layer, `fit` trains its weights, and a file restores them."""
    model = keras.Sequential(
        [
            keras.layers.Embedding(20, 8, mask_zero=True),
            layers.CellLayer("MinGRUCell", {"num_units": 16}),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(2),
        ]
    )
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 20, (64, 9)) * (np.arange(9) < rng.integers(3, 10, (64, 1)))
    labels = (ids == 7).any(axis=1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    losses = model.fit(ids, labels, epochs=5, verbose=0).history["loss"]
    model.save("tagger.keras")
    again = keras.models.load_model("tagger.keras")
    assert losses[-1] < losses[0]
    weights = model.layers[1].get_weights()
    assert sorted(map(np.shape, weights)) == [(8, 32), (32,)]
    for before, after in zip(weights, again.layers[1].get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    want = model.predict(ids, verbose=0)
    np.testing.assert_array_equal(again.predict(ids, verbose=0), want)
    layer = model.layers[1]
    params = layer.structure.unflatten(weights)
    embedded = model.layers[0](ids)
    outputs, _ = jaxrnn.dynamic_rnn(
        layer.cell.bind(params), embedded, mask=ids != 0, dtype=embedded.dtype
    )
    np.testing.assert_allclose(layer(embedded, mask=ids != 0), outputs, atol=1e-6)
    means = jax.vmap(lambda y, n: y.sum(axis=0) / n)(outputs, (ids != 0).sum(axis=1))
    np.testing.assert_allclose(model.layers[3](means), want, atol=1e-5)
