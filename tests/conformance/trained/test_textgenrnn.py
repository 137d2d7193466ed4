"""textgenrnn writes English: two `CuDNNLSTM`s of 128 units, in an HDF5 file of Keras 2.

Keras 2 runs these layers only on GPUs. The oracle is PyTorch's LSTM, which has cuDNN's
equations, with the kernels as cuDNN reads them: the numbers of a gate's kernel, in the
order of the file, are a matrix `[units, inputs]`.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import convert

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("users_settings")]
h5py, torch = pytest.importorskip("h5py"), pytest.importorskip("torch")
PACKAGE = "textgenrnn==2.0.0"
UNITS, MOST = 128, 40
TEXT = "What is the best way to learn about the"


@pytest.fixture
def folder(package):
    return package / PACKAGE.replace("==", "-") / "textgenrnn"


@pytest.fixture
def weights(folder):
    """The arrays of each layer, in the order of Keras' `get_weights()`."""
    with h5py.File(folder / "textgenrnn_weights.hdf5") as file:
        return {
            layer: [group[name][()] for name in group.attrs["weight_names"]]
            for layer, group in file.items()
        }


@pytest.fixture
def ids(folder):
    """The start of a text, and the ids of its characters."""
    vocabulary = json.loads((folder / "textgenrnn_vocab.json").read_text())
    return np.array([vocabulary["<s>"], *(vocabulary[c] for c in TEXT)])


def theirs(layer, x):
    """The outputs `[batch, time, units]` of cuDNN's LSTM."""
    kernel, recurrent, biases = layer
    gates = lambda w: [np.reshape(gate, [UNITS, -1]) for gate in np.split(w, 4, axis=1)]
    arrays = [np.concatenate(gates(w)) for w in (kernel, recurrent)]
    lstm = torch.nn.LSTM(x.shape[-1], UNITS, batch_first=True)
    arrays += np.split(biases, 2)
    for own, array in zip(lstm.parameters(), arrays, strict=True):
        own.data = torch.tensor(array)
    with torch.no_grad():
        return lstm(torch.tensor(x))[0].numpy()


def log_probabilities(weights, x):
    """Of the next character, `[batch, characters]`; an average over time is read."""
    shares = jax.nn.softmax((x @ weights["attention"][0])[..., 0])
    kernel, bias = weights["output"]
    return jax.nn.log_softmax(jnp.einsum("bt,btd->bd", shares, x) @ kernel + bias)


def test_trained_textgenrnn(weights, ids):
    """All starts of a text, after zeros as in the package; what follows is likely."""
    starts = [np.pad(ids[:n], (MOST - n, 0)) for n in range(1, len(ids))]
    parts = [weights["embedding"][0][np.stack(starts)]]
    for name in ("rnn_1", "rnn_2"):
        x = np.asarray(parts[-1])
        cell = convert.from_keras(weights[name])
        outputs, _ = jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)
        want = theirs(weights[name], x)
        np.testing.assert_allclose(outputs, want, rtol=0, atol=5e-6)
        parts.append(outputs)
    found = log_probabilities(weights, jnp.concatenate(parts, axis=-1))
    assert np.mean(found[np.arange(len(starts)), ids[1:]]) > -2
