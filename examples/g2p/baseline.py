"""Error rates of Phonetisaurus, which counts n-grams, on the same words.

It learns from the same words as the net, by its own defaults: joint 8-grams of letters
and phonemes. From the folder `examples`, on Linux:

    pip install -e '..[examples]' phonetisaurus
    python -m g2p.baseline
"""

import subprocess
import tempfile
from pathlib import Path
from typing import Literal

import tyro

from . import data, evaluate


def learn(path, words):
    """Writes its model of the words, in some minutes."""
    pairs = ((word, each) for word in words for each in words[word])
    lexicon = path.with_suffix(".txt")
    lexicon.write_text("".join(f"{w} {' '.join(each)}\n" for w, each in pairs))
    command = ["phonetisaurus", "train", "--model", path, lexicon]
    subprocess.run(command, cwd=path.parent, check=True, capture_output=True)


def pronounce(path, words):
    """A dict of the words, each with the phonemes that it writes."""
    command = ["phonetisaurus", "predict", "--model", path]
    written = subprocess.run(
        command, input="\n".join(words), check=True, capture_output=True, text=True
    )
    found: dict[str, tuple[str, ...]] = dict.fromkeys(words, ())
    for line in written.stdout.splitlines():
        word, *phonemes = line.split()
        found[word] = tuple(phonemes)
    return found


def main(part: Literal["test", "dev"] = "test"):
    """Prints error rates.

    Args:
        part: The words of the test, or those by which hyper-parameters are chosen.
    """
    train, dev, test = data.split(data.load())
    words = test if part == "test" else dev
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.fst")
        learn(path, train)
        found = pronounce(path, words)
    rates = {"Phonetisaurus": evaluate.measure(found, words)}
    evaluate.print_rates(rates)
    return rates


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
