"""Pronounce the same words with Phonetisaurus, an n-gram model.

Phonetisaurus trains on the same words as the net, with its default settings: joint
8-grams of letters and phonemes. Run it from the folder `examples`, on Linux:

    pip install -e '..[examples]' phonetisaurus
    python -m g2p.baseline

The script prints error rates, and writes the best pronunciation of each word to files
that `g2p.evaluate --against` reads.
"""

import importlib
import subprocess
import sys
from pathlib import Path

import tyro

from . import data, scores


def run(*command):
    """Runs a command of Phonetisaurus; returns its output."""
    environment = importlib.import_module("phonetisaurus").guess_environment()
    return subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True
    ).stdout


def learn(path, words):
    """Trains a model on the words for some minutes, and writes it to `path`."""
    pairs = ((word, each) for word in words for each in words[word])
    lexicon = path.with_suffix(".txt")
    lexicon.write_text("".join(f"{w}\t{' '.join(each)}\n" for w, each in pairs))
    run(sys.executable, "-m", "phonetisaurus", "train", "--model", path, lexicon)


def predict(model, path, words):
    """Writes lines `word, negative log-probability, phonemes` to `path`."""
    listed = path.with_suffix(".words")
    listed.write_text("\n".join(words))
    options = ["--beam=10000", "--thresh=99", "--nbest=1"]
    options += [f"--model={model}", f"--wordlist={listed}"]
    lines = run("phonetisaurus-g2pfst", *options).splitlines()
    # Lines of words without a pronunciation have fewer columns.
    path.write_text("".join(f"{x}\n" for x in lines if len(x.strip().split("\t")) == 3))


def main(folder: Path = Path("g2p_baseline")):
    """Trains the model if it does not exist, and prints error rates.

    Args:
        folder: The folder for the model, `dev.tsv` and `test.tsv`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    train, dev, test = data.split(data.load())
    model = folder / "model.fst"
    if not model.exists():
        learn(model, train)
    rates = {}
    for part, words in {"dev": dev, "test": test}.items():
        path = folder / f"{part}.tsv"
        predict(model, path, words)
        rates[f"Phonetisaurus, {part}"] = scores.measure(scores.read(path), words)
    scores.print_rates(rates)
    return rates


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
