"""The dictionary of the example of letters and sounds: its words and its batches."""

import numpy as np
import pytest
from g2p import data, make_cmudict

SOURCE = """\
'tis T IH1 Z
a AH0
a(2) EY1
a.d. EY2 D IY1
aalborg AO1 L B AO0 R G # place, danish
abstract AE0 B S T R AE1 K T
abstract(2) AE1 B S T R AE2 K T
wi-fi W AY1 F AY0
"""


@pytest.fixture(scope="module")
def words():
    return data.load()


def test_what_is_kept_of_the_source():
    assert make_cmudict.read(SOURCE.splitlines()) == [
        "'tis T IH Z",
        "a AH",
        "a EY",
        "aalborg AO L B AO R G",
        "abstract AE B S T R AE K T",
    ]


def test_the_dictionary(words):
    assert len(words) == make_cmudict.WORDS
    assert sum(map(len, words.values())) == make_cmudict.PRONUNCIATIONS
    assert words["tomato"] == [
        tuple("T AH M EY T OW".split()),
        tuple("T AH M AA T OW".split()),
    ]
    assert {p for each in words.values() for p in sum(each, ())} == set(data.PHONEMES)
    assert set("".join(words)) == set(data.LETTERS)


@pytest.mark.slow
def test_no_word_is_in_two_parts(words):
    train, dev, test = data.split(words)
    assert (len(train), len(dev), len(test)) == (110_256, 2_670, 12_000)
    assert {**train, **dev, **test} == words
    # As it was when the committed model was trained.
    assert list(test)[:3] == ["dismore", "evander", "vantrease"]
    assert data.split(dict(sorted(words.items(), reverse=True)))[2] == test


@pytest.fixture(scope="module")
def training(words):
    some = dict(list(words.items())[:3000])
    return some, data.Training(some, 16, seed=3)


def test_a_batch_holds_words_with_their_pronunciations(training):
    words, batches = training
    for n in range(5):
        letters, letter_count, phonemes, phoneme_count = batches[n]
        assert letters.shape == phonemes.shape
        assert letters.shape[0] == 16
        assert letters.shape[1] in data.BUCKETS
        for i in range(16):
            word = "".join(data.LETTERS[k - 1] for k in letters[i, : letter_count[i]])
            assert data.to_phonemes(phonemes[i]) in words[word]
            assert phonemes[i, phoneme_count[i] - 1] == data.END
            assert phonemes[i, : phoneme_count[i] - 1].all()
            assert not letters[i, letter_count[i] :].any()
            assert not phonemes[i, phoneme_count[i] :].any()


def test_an_epoch_reads_each_pair_once_at_most(training):
    words, batches = training
    rows = [
        (*letters.tolist(), -1, *phonemes.tolist())
        for n in range(batches.per_epoch)
        for letters, _, phonemes, _ in [batches[n]]
        for letters, phonemes in zip(letters, phonemes, strict=True)
    ]
    pairs = sum(map(len, words.values()))
    assert len(set(rows)) == len(rows) > pairs - 16 * len(data.BUCKETS)


def test_a_batch_depends_on_its_number_and_the_seed_alone(training):
    words, batches = training
    n = batches.per_epoch + 2
    again = data.Training(words, 16, seed=3)[n]
    for a, b in zip(batches[n], again, strict=True):
        np.testing.assert_array_equal(a, b)
    other = data.Training(words, 16, seed=4)[n]
    assert not np.array_equal(batches[n].letters, other.letters)
    assert not np.array_equal(batches[n].letters, batches[2].letters)
