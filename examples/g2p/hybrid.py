"""Combine the net and Phonetisaurus: choose among the candidates of both.

The candidates are the net's beams and the ten best pronunciations from Phonetisaurus. A
candidate's score is its log-probability in the net plus `weight` times its
log-probability in Phonetisaurus. A candidate that Phonetisaurus does not propose gets
the lowest log-probability of the candidates that Phonetisaurus proposes. The weight is
chosen on the dev words. Run the scripts from the folder `examples`:

    python -m g2p.baseline
    python -m g2p.hybrid
"""

import functools
from pathlib import Path

import numpy as np
import tyro

from . import baseline, data, decoding, model, scores

WEIGHTS = np.arange(0, 1.51, 0.05)


def propose(nets, params, words, listed, beams):
    """`{word: pronunciations}`: the nets' beams, and the list from Phonetisaurus."""
    search = functools.partial(decoding.all_beams, beams=beams)
    run = lambda batch, _: search(nets, params, batch.letters, batch.letter_count)
    proposed = {}
    for word, ids in decoding.in_batches(run, words).items():
        own = map(data.to_phonemes, ids)
        others = (phonemes for phonemes, _ in listed.get(word, ()))
        proposed[word] = list(dict.fromkeys([*own, *others]))
    return proposed


def by_nets(nets, params, proposed):
    """`{word: log-probabilities}` of the proposed pronunciations in the nets."""
    most = max(map(len, proposed.values()))
    longest = max(len(phonemes) for each in proposed.values() for phonemes in each)

    def score(batch, words):
        ids = np.full((len(batch.letters), most, longest + 1), data.END, np.int32)
        for i, word in enumerate(words):
            for j, phonemes in enumerate(proposed[word]):
                ids[i, j, : len(phonemes) + 1] = data.to_ids(phonemes)
        return decoding.score(nets, params, batch.letters, batch.letter_count, ids)

    found = decoding.in_batches(score, proposed)
    return {word: found[word][: len(each)] for word, each in proposed.items()}


def by_phonetisaurus(listed, proposed):
    """`{word: log-probabilities}` in Phonetisaurus.

    A pronunciation that Phonetisaurus does not list gets the word's lowest value.
    """
    found = {}
    for word, each in proposed.items():
        known = dict(reversed(listed.get(word, [])))  # Keep the first duplicate.
        last = min(known.values(), default=0.0)
        found[word] = np.array([known.get(phonemes, last) for phonemes in each])
    return found


class Candidates:
    """The pronunciations that either system proposes, with scores from both systems.

    Args:
        nets: A tuple of nets, as in `decoding.pronounce`.
        params: A tuple of their parameters.
        words: The words to pronounce.
        listed: The proposals of Phonetisaurus, as `scores.read_all` returns them.
        beams: The width of the beam search.
    """

    def __init__(self, nets, params, words, listed, beams):
        self.proposed = propose(nets, params, words, listed, beams)
        self.ours = by_nets(nets, params, self.proposed)
        self.others = by_phonetisaurus(listed, self.proposed)

    def choose(self, weight):
        """`{word: phonemes}`, with the pronunciation that has the best total score."""
        best = lambda word: np.argmax(self.ours[word] + weight * self.others[word])
        return {word: each[best(word)] for word, each in self.proposed.items()}


def main(
    paths: tuple[Path, ...] = (model.COMMITTED,),
    folder: Path = baseline.FOLDER,
    beams: int = 8,
):
    """Chooses the weight on the dev words; prints error rates of dev and test words.

    Args:
        paths: The file of a net, or several files to average the nets' probabilities.
        folder: The folder that `g2p.baseline` wrote.
        beams: The width of the beam search.
    """
    nets, params = model.load_all(paths)
    _, dev, test = data.split(data.load())
    parts = {"dev": dev, "test": test}
    candidates = {
        part: Candidates(
            nets, params, words, scores.read_all(folder / f"{part}.tsv"), beams
        )
        for part, words in parts.items()
    }
    found = map(candidates["dev"].choose, WEIGHTS)
    weight = WEIGHTS[
        np.argmin([scores.words_wrong(each, dev).mean() for each in found])
    ]
    print(f"The weight is {weight:.2f}.")
    rates = {
        f"hybrid, {part}": scores.measure(candidates[part].choose(weight), words)
        for part, words in parts.items()
    }
    scores.print_rates(rates)
    return rates


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
