"""What the examples with Flax and PyTorch share: data, loss and report.

The data, their perturbation and the settings are those of `japanese_vowels.py`.
"""

from collections.abc import Sequence

import jax
import numpy as np
import optax
from japanese_vowels import percent
from japanese_vowels_data import SPEAKERS, Utterances, load, measure
from japanese_vowels_flags import Config


def load_scaled() -> tuple[Utterances, Utterances]:
    """The utterances to train with and those to test with, standardised."""
    train, test = load()
    scale = measure(train)
    return scale(train), scale(test)


def batches(config: Config, utterances: int, seed: int) -> list[np.ndarray]:
    """The rows of each batch of all epochs. What does not fill a batch waits."""
    rng, size = np.random.default_rng(seed), config.batch_size
    if size > utterances:
        raise ValueError(f"A batch has at most {utterances} utterances, got {size}.")
    orders = [rng.permutation(utterances) for _ in range(config.epochs)]
    starts = range(0, utterances - size + 1, size)
    return [order[i : i + size] for order in orders for i in starts]


def cross_entropy(config: Config, logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean over a batch, with smoothed labels."""
    targets = optax.smooth_labels(jax.nn.one_hot(labels, SPEAKERS), config.smoothing)
    return optax.softmax_cross_entropy(logits, targets).mean()


def hits(logits: jax.Array, labels: np.ndarray) -> np.ndarray:
    """Which utterances are given to the right speaker."""
    return np.argmax(logits, axis=-1) == labels


def report(found: Sequence[np.ndarray]) -> list[float]:
    """Prints the accuracy of each seed and their mean, from their `hits`."""
    for seed, each in enumerate(found):
        print(f"Seed {seed}: test accuracy {percent(each[None])}")
    if len(found) > 1:
        print(f"Mean of {len(found)}: {percent(np.stack(found))}")
    return [each.mean().item() for each in found]
