"""Error rates of a trained net on the words of the test.

It reads the committed model, searches greedily and by beams, and prints tables. From
the folder `examples`:

    pip install -e '..[examples]'
    python -m g2p.evaluate

"""

import functools
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from . import data, decoding, model, scores

LENGTHS = ((1, 4), (5, 6), (7, 8), (9, 10), (11, 28))
SAMPLES = 2000
VOWELS = [phoneme for phoneme in data.PHONEMES if phoneme[0] in "AEIOU"]


def bootstrap(wrong, of):
    """`sum(wrong) / sum(of)`, and 95 % of such rates of words drawn anew.

    Args:
        wrong: What is wrong in each word.
        of: Out of how many.
    """
    random, n = np.random.default_rng(0), len(wrong)
    drawn = (random.integers(n, size=n) for _ in range(SAMPLES))
    rates = [wrong[rows].sum() / of[rows].sum() for rows in drawn]
    return wrong.sum() / of.sum(), *np.quantile(rates, [0.025, 0.975])


def measure(found, words):
    """The rates by name, each with its interval."""
    ones = np.ones(len(words))
    return {
        "words wrong": bootstrap(scores.words_wrong(found, words), ones),
        "by the first pronunciation": bootstrap(
            scores.words_wrong_by_first(found, words), ones
        ),
        "phonemes wrong": bootstrap(*scores.phonemes_wrong(found, words)),
    }


def by_length(found, words):
    """`(shortest, longest, words, share that is wrong)` for words of each length."""
    wrong = scores.words_wrong(found, words)
    letters = np.array([len(word) for word in words])
    for shortest, longest in LENGTHS:
        chosen = (shortest <= letters) & (letters <= longest)
        yield shortest, longest, chosen.sum(), wrong[chosen].mean()


def print_rates(rates):
    """A row for each search, a column for each rate."""
    names = next(iter(rates.values()))
    print(f"\n| search | {' | '.join(names)} |\n|{'---|' * (1 + len(names))}")
    for search, row in rates.items():
        cells = (
            f"{100 * x:.2f} % ({100 * a:.2f}-{100 * b:.2f})" for x, a, b in row.values()
        )
        print(f"| {search} | {' | '.join(cells)} |")


def print_lengths(found, words):
    """A row for the words of each length."""
    print("\n| letters | words | wrong |\n|---|---|---|")
    for shortest, longest, count, wrong in by_length(found, words):
        print(f"| {shortest} to {longest} | {count} | {100 * wrong:.1f} % |")


def print_wrong(found, words, count):
    """Some of the words that are wrong, with what is right."""
    wrong = [word for word in words if found[word] not in words[word]]
    for word in wrong[:count]:
        right = ", ".join(map(" ".join, words[word]))
        print(f"{word}: {' '.join(found[word])}; right: {right}")


def wrong_if_one(found, words, phonemes):
    """The share of words that would be wrong if these phonemes were one."""
    as_one = lambda each: tuple("*" if p in phonemes else p for p in each)
    found = {word: as_one(found[word]) for word in words}
    words = {word: list(map(as_one, words[word])) for word in words}
    return scores.words_wrong(found, words).mean()


def print_near(found, words):
    """How many of the wrong words are nearly right."""
    edits, _ = scores.phonemes_wrong(found, words)
    print(f"\nWrong in one phoneme: {np.mean(edits[edits > 0] == 1):.1%} of the wrong.")
    for name, phonemes in ("AH and IH", ("AH", "IH")), ("all vowels", VOWELS):
        share = wrong_if_one(found, words, phonemes)
        print(f"Were {name} one phoneme, {share:.1%} of the words would be wrong.")


def main(
    paths: tuple[Path, ...] = (model.COMMITTED,),
    part: Literal["test", "dev"] = "test",
    beams: int = 8,
    wrong: int = 20,
):
    """Prints error rates, by the length of words too, and some wrong words.

    Args:
        paths: The net; or several, whose probabilities are averaged.
        part: The words of the test, or those by which hyper-parameters are chosen.
        beams: Width of the beam search.
        wrong: How many wrong words to print.
    """
    if not paths:
        raise SystemExit("--paths needs one file or more")
    _, dev, test = data.split(data.load())
    words = test if part == "test" else dev
    nets, params = zip(*map(model.load, paths), strict=True)
    searches = {
        "greedy": decoding.greedy,
        f"{beams} beams": functools.partial(decoding.beam_search, beams=beams),
    }
    found = {
        name: decoding.pronounce(nets, params, words, search)
        for name, search in searches.items()
    }
    rates = {name: measure(each, words) for name, each in found.items()}
    print_rates(rates)
    *_, best = found.values()
    print_lengths(best, words)
    print_near(best, words)
    print()
    print_wrong(best, words, wrong)
    return rates


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
