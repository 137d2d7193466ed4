"""resemblyzer tells voices apart: three LSTMs of 256 units, in a PyTorch file.

The package's own encoder, in PyTorch, is the oracle.
"""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import convert

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("users_settings")]
torch = pytest.importorskip("torch")
PACKAGE = "resemblyzer==0.1.4"
LENGTHS, CHANNELS = [160, 90, 33, 1], 40


@pytest.fixture
def encoder(stand_ins):
    stand_ins("librosa", "webrtcvad")
    voices = importlib.import_module("resemblyzer.voice_encoder")
    return voices.VoiceEncoder("cpu", verbose=False)


def draw_spectra():
    """Energies of 40 channels of utterances; they change slowly, as in speech."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(len(LENGTHS), max(LENGTHS), CHANNELS)).cumsum(axis=1)
    return (0.02 * np.exp(0.15 * x)).astype(np.float32)


def embed(weights, h):
    """Unit vectors of the last layer's outputs after the last step."""
    x = jax.nn.relu(h @ weights["linear.weight"].T + weights["linear.bias"])
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def test_trained_resemblyzer(encoder, package):
    """Embeddings of padded and of packed utterances."""
    file = package / "resemblyzer" / "pretrained.pt"
    saved = torch.load(file, map_location="cpu")["model_state"]
    weights = {name: x.numpy() for name, x in saved.items()}
    stack = convert.from_torch(weights, at="lstm")
    x = draw_spectra()
    _, states = jaxrnn.dynamic_rnn(stack, x, LENGTHS, dtype=x.dtype)
    pack = jaxrnn.pack_sequences(x, LENGTHS)
    _, _, in_rows = jaxrnn.dynamic_rnn(
        stack,
        pack.inputs,
        pack.lengths,
        dtype=x.dtype,
        resets=pack.resets,
        return_states=True,
    )
    of_pack = pack.at_ends(in_rows)
    with torch.no_grad():
        spectra = [
            torch.from_numpy(row[None, :n]) for row, n in zip(x, LENGTHS, strict=True)
        ]
        want = torch.cat([encoder(each) for each in spectra]).numpy()
    assert np.min(want @ want.T) < 0.9  # The embeddings differ.
    for final in states, of_pack:
        got = embed(weights, final[-1].h)
        np.testing.assert_allclose(got, want, rtol=0, atol=5e-6)
