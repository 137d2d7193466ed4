"""g2p_en writes the phonemes of English words: two GRUs of 256 units, in an npz file.

The package's own code, in NumPy, is the oracle.
"""

import importlib

import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import decode
from jaxrnn.convert import torch as convert

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("users_settings")]
PACKAGE = "g2p_en==2.1.0"
START, END, MOST = 2, 3, 20
WORDS = "a recurrent network pronounces unfamiliar words activationist jaxrnn knight "
WORDS += "photograph zyzzyva tlaxcala o'hara antidisestablishmentarianism"
WORDS = WORDS.split()


@pytest.fixture
def theirs(stand_ins):
    stand_ins("nltk", "nltk.corpus", "nltk.tokenize", "inflect")
    return importlib.import_module("g2p_en.g2p").G2p()


@pytest.fixture
def weights(package):
    with np.load(package / "g2p_en" / "checkpoint20.npz") as file:
        return dict(file)


def gru(weights, part):
    """The weights have PyTorch's layout, under names of their own."""
    names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    arrays = {name: weights[f"{part}_{name[0]}{name[-3:]}"] for name in names}
    return convert.load(arrays)


def test_trained_g2p_en(theirs, weights):
    """Encoded and decoded as one padded batch, and there word by word."""
    steps = [theirs.encode(word)[0] for word in WORDS]
    lengths = np.array([len(x) for x in steps])
    x = np.zeros((len(WORDS), lengths.max(), steps[0].shape[-1]), np.float32)
    for row, own in zip(x, steps, strict=True):
        row[: len(own)] = own
    outputs, state = jaxrnn.dynamic_rnn(gru(weights, "enc"), x, lengths, dtype=x.dtype)
    parts = [weights[f"enc_{name}"] for name in ("w_ih", "w_hh", "b_ih", "b_hh")]
    for row, own in zip(outputs, steps, strict=True):
        want = theirs.gru(own[None], len(own), *parts)[0]
        np.testing.assert_allclose(row[: len(own)], want, rtol=0, atol=1e-5)

    decoded = decode.greedy(
        gru(weights, "dec"),
        embed=lambda ids: jnp.asarray(weights["dec_emb"])[ids],
        project=lambda h: h @ weights["fc_w"].T + weights["fc_b"],
        initial_state=state,
        start_ids=np.full(len(WORDS), START),
        end_id=END,
        max_time=MOST,
    )
    for word, ids in zip(WORDS, np.asarray(decoded.ids), strict=True):
        written = [theirs.phonemes[i] for i in ids if i != END]
        assert written == theirs.predict(word)
