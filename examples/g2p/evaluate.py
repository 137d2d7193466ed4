"""Compute error rates of a trained net on the test words.

The script loads the committed model, runs greedy search and beam search, and prints
tables. Run it from the folder `examples`:

    pip install -e '..[examples]'
    python -m g2p.evaluate

"""

import functools
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from . import data, decoding, model, scores
from .neighbours import Neighbours
from .scores import words_wrong

LENGTHS = ((1, 4), (5, 6), (7, 8), (9, 10), (11, 28))
VOWELS = [phoneme for phoneme in data.PHONEMES if phoneme[0] in "AEIOU"]


def by_length(found, words):
    """`(shortest, longest, number of words, fraction wrong)` for each word length."""
    wrong = words_wrong(found, words)
    letters = np.array([len(word) for word in words])
    for shortest, longest in LENGTHS:
        chosen = (shortest <= letters) & (letters <= longest)
        yield shortest, longest, chosen.sum(), wrong[chosen].mean()


def print_lengths(found, words):
    """Prints a row for the words of each length."""
    print("\n| letters | words | wrong |\n|---|---|---|")
    for shortest, longest, count, wrong in by_length(found, words):
        print(f"| {shortest} to {longest} | {count} | {100 * wrong:.1f} % |")


def print_neighbours(found, words, train):
    """Prints a row for words with a neighbor in training, and one for the others."""
    wrong, known = words_wrong(found, words), Neighbours(train)
    has = np.array([known.has(*item) for item in words.items()])
    print("\n| neighbor in training | words | wrong |\n|---|---|---|")
    for name, chosen in (("yes", has), ("no", ~has)):
        share = wrong[chosen].sum() / max(1, chosen.sum())
        print(f"| {name} | {chosen.sum()} | {100 * share:.1f} % |")


def print_wrong(found, words, count):
    """Prints some wrong words with their right pronunciations."""
    wrong = [word for word in words if found[word] not in words[word]]
    for word in wrong[:count]:
        right = ", ".join(map(" ".join, words[word]))
        print(f"{word}: {' '.join(found[word])}; right: {right}")


def wrong_if_one(found, words, phonemes):
    """The fraction of words that would be wrong if these phonemes were the same."""
    as_one = lambda each: tuple("*" if p in phonemes else p for p in each)
    found = {word: as_one(found[word]) for word in words}
    words = {word: list(map(as_one, words[word])) for word in words}
    return words_wrong(found, words).mean()


def print_near(found, words):
    """Prints how many of the wrong words are nearly right."""
    edits, _ = scores.phonemes_wrong(found, words)
    print(f"\nWrong in one phoneme: {np.mean(edits[edits > 0] == 1):.1%} of errors.")
    for name, phonemes in ("AH and IH", ("AH", "IH")), ("all vowels", VOWELS):
        share = wrong_if_one(found, words, phonemes)
        print(f"If {name} were one phoneme, {share:.1%} of the words would be wrong.")


def main(
    paths: tuple[Path, ...] = (model.COMMITTED,),
    part: Literal["test", "dev"] = "test",
    beams: int = 8,
    wrong: int = 20,
    against: Path | None = None,
    save: Path | None = None,
):
    """Prints error rates, also by length and by neighbors, and some wrong words.

    Args:
        paths: The file of a net, or several files to average the nets' probabilities.
        part: The test words, or the dev words that hyperparameters are chosen with.
        beams: The width of the beam search.
        wrong: The number of wrong words to print.
        against: A file from `g2p.baseline` or `--save` to compare the beam search with.
        save: The file for the results of the beam search.
    """
    train, dev, test = data.split(data.load())
    words = test if part == "test" else dev
    nets, params = model.load_all(paths)
    searches = {
        "greedy": decoding.greedy,
        f"{beams} beams": functools.partial(decoding.beam_search, beams=beams),
    }
    found = {
        name: decoding.pronounce(nets, params, words, search)
        for name, search in searches.items()
    }
    rates = {name: scores.measure(each, words) for name, each in found.items()}
    scores.print_rates(rates)
    *_, best = found.values()
    if save is not None:
        scores.write(save, best)
    if against is not None:
        scores.print_paired(best, scores.read(against), words)
    print_lengths(best, words)
    print_neighbours(best, words, train)
    print_near(best, words)
    print()
    print_wrong(best, words, wrong)
    return rates


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
