"""The Japanese Vowels utterances as padded arrays; see `data/ATTRIBUTION.md`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

FILE = Path(__file__).parent / "data" / "japanese_vowels.npz"
SPEAKERS = 9
COEFFICIENTS = 12
FEATURES = 2 * COEFFICIENTS  # Each coefficient and its slope.


class Utterances(NamedTuple):
    """A set of padded utterances; padding in `frames` has no effect."""

    frames: Any  # [utterances, time, FEATURES], float32
    lengths: Any  # [utterances], int32
    labels: Any  # [utterances], int32: the speaker, from 0

    def take(self, rows: np.ndarray) -> "Utterances":
        """The utterances in the given rows."""
        return Utterances(*(array[rows] for array in self))


class Scale(NamedTuple):
    """The mean and the standard deviation of each feature; a call standardizes data."""

    mean: Any
    deviation: Any

    def __call__(self, data: Utterances) -> Utterances:
        """The same utterances, standardized."""
        return data._replace(frames=(data.frames - self.mean) / self.deviation)


def with_slopes(frames: np.ndarray) -> np.ndarray:
    """The frames `[time, 12]`, each with the difference between its two neighbors.

    A room or a microphone adds a constant to a cepstrum. The difference removes this
    constant.
    """
    padded = np.pad(frames, ((1, 1), (0, 0)), mode="edge")
    return np.concatenate([frames, padded[2:] - padded[:-2]], axis=-1)


def load() -> tuple[Utterances, Utterances]:
    """The 270 training utterances and the 370 test utterances."""
    with np.load(FILE) as file:
        lengths, labels, is_test = file["lengths"], file["labels"], file["is_test"]
        utterances = np.split(file["frames"], np.cumsum(lengths)[:-1])
    frames = np.zeros((len(lengths), lengths.max(), FEATURES), np.float32)
    for row, utterance in zip(frames, utterances, strict=True):
        row[: len(utterance)] = with_slopes(utterance)
    everything = Utterances(frames, lengths, labels)
    return everything.take(~is_test), everything.take(is_test)


def measure(data: Utterances) -> Scale:
    """The scale of the valid frames in `data`."""
    steps = np.arange(data.frames.shape[1])
    valid = data.frames[steps < data.lengths[:, None]]
    return Scale(valid.mean(axis=0), valid.std(axis=0))


def load_scaled() -> tuple[Utterances, Utterances]:
    """Both sets from `load`, standardized by the scale of the training set."""
    train, test = load()
    scale = measure(train)
    return scale(train), scale(test)


def folds(data: Utterances, count: int) -> list[tuple[Utterances, Utterances]]:
    """Pairs of a larger part for training and a smaller, held-out part.

    Each fold holds out consecutive utterances of each speaker. Neighboring utterances
    sound similar, so consecutive utterances are a harder test than a random choice.
    Both parts are standardized by the scale of the larger part.
    """
    fold = np.zeros(len(data.labels), int)
    for speaker in range(SPEAKERS):
        rows = np.flatnonzero(data.labels == speaker)
        fold[rows] = np.arange(len(rows)) * count // len(rows)
    pairs = []
    for i in range(count):
        kept, held_out = data.take(fold != i), data.take(fold == i)
        scale = measure(kept)
        pairs.append((scale(kept), scale(held_out)))
    return pairs


def stack(members: Sequence[Utterances]) -> Utterances:
    """Stacks sets of the same size, one for each net, along a new first axis."""
    return Utterances(*(np.stack(arrays) for arrays in zip(*members, strict=True)))


def batches(utterances: int, size: int, epochs: int, seed: int) -> list[np.ndarray]:
    """The rows of each batch of all epochs, each epoch in a new order.

    Utterances that do not fill a batch are left out of that epoch.
    """
    if size > utterances:
        raise ValueError(f"`size` must be at most {utterances}, got {size}.")
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(utterances) for _ in range(epochs)]
    starts = range(0, utterances - size + 1, size)
    return [order[i : i + size] for order in orders for i in starts]


def perturb(
    key: jax.Array, frames: jax.Array, shift: float = 0.3, noise: float = 0.2
) -> jax.Array:
    """Augments frames, as if they came from another day, room or microphone."""
    shift_key, noise_key = jax.random.split(key)
    constant = jax.random.normal(shift_key, (len(frames), 1, COEFFICIENTS))
    # A constant does not change slopes.
    frames = frames.at[..., :COEFFICIENTS].add(shift * constant)
    return frames + noise * jax.random.normal(noise_key, frames.shape)
