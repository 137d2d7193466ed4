"""g2p_en writes the phonemes of English words: two GRUs of 256 units, in an npz file.

The example `g2p` loads the file. The package's own code, in NumPy, is the oracle.
"""

import importlib

import numpy as np
import pytest
from g2p import data, model

import jaxrnn

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("users_settings")]
PACKAGE = "g2p_en==2.1.0"
WORDS = "a recurrent network pronounces unfamiliar words activationist jaxrnn knight "
WORDS += "photograph zyzzyva tlaxcala o'hara antidisestablishmentarianism"
WORDS = WORDS.split()


@pytest.fixture
def theirs(stand_ins):
    stand_ins("nltk", "nltk.corpus", "nltk.tokenize", "inflect")
    return importlib.import_module("g2p_en.g2p").G2p()


def test_trained_g2p_en(theirs, package):
    """Encoded and decoded as one padded batch, and there word by word."""
    network = model.load(package / "g2p_en" / "checkpoint20.npz")
    batch = data.make_batch([(word, ()) for word in WORDS], model.LONGEST, len(WORDS))
    x = network["read"][batch.letters]
    cell, lengths = network["encoder"], batch.letter_count
    outputs, _ = jaxrnn.dynamic_rnn(cell, x, lengths, dtype=x.dtype)
    names = ("enc_w_ih", "enc_w_hh", "enc_b_ih", "enc_b_hh")
    weights = [getattr(theirs, name) for name in names]
    for word, row in zip(WORDS, outputs, strict=True):
        own, count = theirs.encode(word), len(word) + 1
        want = theirs.gru(own, count, *weights)[0]
        np.testing.assert_allclose(row[:count], want, rtol=0, atol=1e-5)
    for word, phonemes in model.pronounce(network, WORDS).items():
        assert list(phonemes) == theirs.predict(word)
