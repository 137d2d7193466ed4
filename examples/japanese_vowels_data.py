"""The Japanese Vowels utterances as padded arrays; see `data/ATTRIBUTION.md`."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

FILE = Path(__file__).parent / "data" / "japanese_vowels.npz"
SPEAKERS = 9
COEFFICIENTS = 12
FEATURES = 2 * COEFFICIENTS  # Each coefficient and its slope.
SHIFT, NOISE = 0.3, 0.2  # The deviations of what `perturb` adds.


class Utterances(NamedTuple):
    """A set of padded utterances; padding in `frames` has no effect."""

    frames: Any  # [utterances, time, FEATURES], float32
    lengths: Any  # [utterances], int32
    labels: Any  # [utterances], int32: the speaker, from 0

    def take(self, rows: np.ndarray) -> "Utterances":
        """The utterances in the given rows."""
        return Utterances(*(array[rows] for array in self))


def with_slopes(frames: np.ndarray) -> np.ndarray:
    """The frames `[time, 12]`, each with the difference between its two neighbors.

    A room or a microphone adds a constant to a cepstrum. The difference removes this
    constant.
    """
    padded = np.pad(frames, ((1, 1), (0, 0)), mode="edge")
    return np.concatenate([frames, padded[2:] - padded[:-2]], axis=-1)


def load() -> tuple[Utterances, Utterances]:
    """The 270 training utterances and the 370 test utterances.

    Features are standardized by their mean and deviation in the training set.
    """
    with np.load(FILE) as file:
        lengths, labels, is_test = file["lengths"], file["labels"], file["is_test"]
        utterances = np.split(file["frames"], np.cumsum(lengths)[:-1])
    frames = np.zeros((len(lengths), lengths.max(), FEATURES), np.float32)
    for row, utterance in zip(frames, utterances, strict=True):
        row[: len(utterance)] = with_slopes(utterance)
    is_valid = np.arange(lengths.max()) < lengths[:, None]
    known = frames[is_valid & ~is_test[:, None]]
    frames = (frames - known.mean(axis=0)) / known.std(axis=0)
    everything = Utterances(frames, lengths, labels)
    return everything.take(~is_test), everything.take(is_test)


def batches(utterances: int, size: int, epochs: int, seed: int) -> list[np.ndarray]:
    """The rows of each batch of all epochs, each epoch in a new order.

    Utterances that do not fill a batch are left out of that epoch.
    """
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(utterances) for _ in range(epochs)]
    starts = range(0, utterances - size + 1, size)
    return [order[i : i + size] for order in orders for i in starts]


def perturb(key: jax.Array, frames: jax.Array) -> jax.Array:
    """Augments frames, as if they came from another day, room or microphone."""
    shift_key, noise_key = jax.random.split(key)
    constant = jax.random.normal(shift_key, (len(frames), 1, COEFFICIENTS))
    # A constant does not change slopes.
    frames = frames.at[..., :COEFFICIENTS].add(SHIFT * constant)
    return frames + NOISE * jax.random.normal(noise_key, frames.shape)
