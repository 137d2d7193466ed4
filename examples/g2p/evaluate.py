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
from .scores import words_wrong

ENDINGS = "s es 's s' e ed d er ers ing ings y ies ied ly".split()
LEAST = 3  # The least number of letters in a stem.


def stems(word):
    """The word itself, and the word without each ending that it has."""
    cut = {word.removesuffix(ending) for ending in ENDINGS}
    return {stem for stem in cut if len(stem) >= LEAST} | {word}


def have_neighbours(words, train):
    """Whether a training word shares a stem or a pronunciation with each word."""
    known = set().union(*map(stems, train), *train.values())
    return np.array([not known.isdisjoint({*stems(w), *words[w]}) for w in words])


def print_neighbours(found, words, train):
    """Prints a row for words with a neighbor in training, and one for the others."""
    wrong, has = words_wrong(found, words), have_neighbours(words, train)
    print("\n| neighbor in training | words | wrong |\n|---|---|---|")
    for name, chosen in (("yes", has), ("no", ~has)):
        share = wrong[chosen].sum() / max(1, chosen.sum())
        print(f"| {name} | {chosen.sum()} | {100 * share:.1f} % |")


def print_wrong(found, words, count):
    """Prints how many of the wrong words are nearly right, and some of them."""
    edits, _ = scores.phonemes_wrong(found, words)
    print(f"\nWrong in one phoneme: {np.mean(edits[edits > 0] == 1):.1%} of errors.\n")
    wrong = [word for word in words if found[word] not in words[word]]
    for word in wrong[:count]:
        right = ", ".join(map(" ".join, words[word]))
        print(f"{word}: {' '.join(found[word])}; right: {right}")


def main(
    paths: tuple[Path, ...] = (model.COMMITTED,),
    part: Literal["test", "dev"] = "test",
    beams: int = 8,
    wrong: int = 20,
    against: Path | None = None,
):
    """Prints error rates, also by neighbors, and some wrong words.

    Args:
        paths: The file of a net, or several files to average the nets' probabilities.
        part: The test words, or the dev words that hyperparameters are chosen with.
        beams: The width of the beam search.
        wrong: The number of wrong words to print.
        against: A file from `g2p.baseline` to compare the beam search with.
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
    if against is not None:
        scores.print_paired(best, scores.read(against), words)
    print_neighbours(best, words, train)
    print_wrong(best, words, wrong)
    return rates


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
