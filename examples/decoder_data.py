"""Integers in digits and as Roman numerals, as rows of character ids."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

END, START = 0, 1
"""The ids of the stop token, which also pads, and of the one that starts a row."""

CHARACTERS = "\n>0123456789IVXLCDM"
LARGEST = 3999
DIGITS, LETTERS = 4, 15
"""How long the longest are: 3888 is "MMMDCCCLXXXVIII"."""

VALUES = {
    "M": 1000, "CM": 900, "D": 500, "CD": 400, "C": 100, "XC": 90, "L": 50,
    "XL": 40, "X": 10, "IX": 9, "V": 5, "IV": 4, "I": 1,
}  # fmt: skip


class Pairs(NamedTuple):
    """Rows of ids, each ended by stop tokens.

    Attributes:
        digits: `[batch, 5]`, the last digit first, as places are counted from there.
        numerals: `[batch, 16]`.
    """

    digits: Any
    numerals: Any

    def take(self, rows: Any) -> "Pairs":
        """Those rows."""
        return Pairs(self.digits[rows], self.numerals[rows])


def roman(number: int) -> str:
    """1994 is "MCMXCIV"."""
    text = ""
    for letters, value in VALUES.items():
        times, number = divmod(number, value)
        text += letters * times
    return text


def draw_pairs(examples: int) -> tuple[Pairs, Pairs]:
    """So many integers to learn from, and all others for the test, in random order."""
    numbers = np.random.default_rng(0).permutation(np.arange(1, LARGEST + 1))
    digits = to_ids([str(n)[::-1] for n in numbers], DIGITS)
    numerals = to_ids([roman(n) for n in numbers], LETTERS)
    pairs = Pairs(digits, numerals)
    return pairs.take(slice(examples)), pairs.take(slice(examples, None))


def to_ids(texts: Sequence[str], longest: int) -> np.ndarray:
    """Rows of ids, int32, each with at least one stop token."""
    ids = np.full((len(texts), longest + 1), END, np.int32)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = [CHARACTERS.index(c) for c in text]
    return ids


def to_text(ids: Iterable[int]) -> str:
    """The text of a row up to its stop token."""
    return "".join(CHARACTERS[i] for i in ids).partition(CHARACTERS[END])[0]
