"""The CMU Pronouncing Dictionary: words, their pronunciations, and batches of both.

A word may have several pronunciations; each is one training example. The ids of letters
and phonemes are those of g2p_en. ATTRIBUTION.md describes the source of the file.
"""

import hashlib
import lzma
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FILE = Path(__file__).with_name("cmudict.txt.xz")
TEST, DEV = 12_000, 2_670
"""The numbers of test and dev words, as in the split for published results."""

VOWELS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW".split()
CONSONANTS = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH".split()
STRESSED = [f"{vowel}{stress}" for vowel in VOWELS for stress in "012"]

LETTERS = ["<pad>", "'", "<end>", *"abcdefghijklmnopqrstuvwxyz"]
"""g2p_en reads every character that it does not know, like an apostrophe, as 1."""
PHONEMES = ["<pad>", "?", "<start>", "<end>", *sorted([*STRESSED, *CONSONANTS, "UW"])]
"""Those of g2p_en, where ? and UW without stress are in no pronunciation."""

LETTERS_END = LETTERS.index("<end>")
START, END = PHONEMES.index("<start>"), PHONEMES.index("<end>")

BUCKETS = (5, 6, 7, 8, 9, 10, 12, 15, 29)
"""The possible values of `size` in a batch. A word and its pronunciation belong to the
first size that fits both, each with an end."""


class Batch(NamedTuple):
    """Words with one pronunciation each, padded with zeros."""

    letters: Any  # [rows, size], int32, including the end
    letter_count: Any  # [rows], int32, including the end
    phonemes: Any  # [rows, size], int32, including the end
    phoneme_count: Any  # [rows], int32, including the end


# Words


def load():
    """A dict from each word to its pronunciations, which are tuples of phonemes."""
    words = {}
    for line in lzma.decompress(FILE.read_bytes()).decode().splitlines():
        word, *phonemes = line.split()
        words.setdefault(word, []).append(tuple(phonemes))
    return words


def split(words):
    """The words for training, for choosing hyperparameters (dev), and for testing.

    A hash of each word determines its part, so neither a seed nor a list is needed.
    """
    hashed = sorted(words, key=lambda word: hashlib.sha256(word.encode()).digest())
    test, dev, train = np.split(hashed, [TEST, TEST + DEV])
    return tuple({str(w): words[str(w)] for w in part} for part in (train, dev, test))


# Ids


def read_word(word):
    """The word in lowercase; exits with the reason if no network can read it."""
    word, longest = word.lower(), BUCKETS[-1] - 1
    if not 1 <= len(word) <= longest or set(word) - set(LETTERS):
        must = f"be 1 to {longest} characters from a to z, or apostrophes"
        raise SystemExit(f"Each word must {must}, got {word!r}.")
    return word


def spell(word):
    """The ids of a word's letters, and of the end."""
    return [LETTERS.index(letter) for letter in word] + [LETTERS_END]


def to_ids(phonemes):
    """The ids of the phonemes, and of the end."""
    return [PHONEMES.index(phoneme) for phoneme in phonemes] + [END]


def to_phonemes(ids):
    """The phonemes before the first end."""
    ids = [int(i) for i in ids]
    ids = ids[: ids.index(END)] if END in ids else ids
    return tuple(PHONEMES[i] for i in ids)


# Batches


def make_batch(pairs, size, rows):
    """A batch from pairs of a word and a pronunciation; empty rows have counts of 0."""
    letters, phonemes = np.zeros((2, rows, size), np.int32)
    letter_count, phoneme_count = np.zeros((2, rows), np.int32)
    for i, (word, pronunciation) in enumerate(pairs):
        read, written = spell(word), to_ids(pronunciation)
        letter_count[i], phoneme_count[i] = len(read), len(written)
        letters[i, : len(read)], phonemes[i, : len(written)] = read, written
    return Batch(letters, letter_count, phonemes, phoneme_count)


def bucket_of(word, pronunciation):
    """The `size` of the batches for a word and its pronunciation."""
    longest = 1 + max(len(word), len(pronunciation))
    return next(size for size in BUCKETS if longest <= size)


class Training:
    """An endless sequence of training batches, each from one bucket.

    An epoch has only full batches from each bucket, so each epoch leaves out a few
    words, at random. Batch n depends only on the seed and n.
    """

    def __init__(self, words, rows, seed):
        pairs = [(word, each) for word in words for each in words[word]]
        sizes = np.array([bucket_of(*pair) for pair in pairs])
        self.buckets = {
            size: make_batch([pairs[i] for i in np.flatnonzero(sizes == size)], size, n)
            for size, n in zip(*np.unique(sizes, return_counts=True), strict=True)
        }
        self.rows, self.seed = rows, seed
        self.per_epoch = sum(len(b.letters) // rows for b in self.buckets.values())
        if self.per_epoch == 0:
            most = max(len(bucket.letters) for bucket in self.buckets.values())
            must = f"at most {most}, the number of examples in the largest bucket"
            raise ValueError(f"`rows` must be {must}, got {rows}.")
        self.epoch, self.order = -1, []

    def __getitem__(self, n):
        epoch, at = divmod(n, self.per_epoch)
        if epoch != self.epoch:
            self.epoch, self.order = epoch, self._order(epoch)
        size, rows = self.order[at]
        return Batch(*(field[rows] for field in self.buckets[size]))

    def _order(self, epoch):
        random = np.random.default_rng([self.seed, epoch])
        batches = []
        for size, bucket in self.buckets.items():
            rows = random.permutation(len(bucket.letters))
            full = len(rows) // self.rows * self.rows
            batches += [(size, part) for part in rows[:full].reshape(-1, self.rows)]
        return [batches[i] for i in random.permutation(len(batches))]
