"""Time a training epoch with jaxrnn, and with the same net in Flax only.

Both run the same updates on the same parameters, with batches of each size. Their runs
alternate, so that other load on the machine affects both. Run it from the folder
`examples`:

    pip install -e '..[examples,flax]'
    python -m g2p.time_epoch

docs/tutorials/letters_to_sounds.md shows the results.
"""

import statistics
import time
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from tqdm import tqdm

from . import data, flax_net, model, train
from .train import Config

STEPS = 1000  # The length of the schedule; it does not affect the time.


def flax_logits(net, params, batch, key):
    """The logits of the net in Flax, with dropout."""
    variables, noise = {"params": params}, {"dropout": key}
    return flax_net.FlaxNet(net).apply(variables, batch, train=True, rngs=noise)


class Training:
    """A net in training, with the times of its updates."""

    def __init__(self, config, params, compute_logits):
        params = jax.tree.map(jnp.array, params)  # Copy, as updates donate buffers.
        self.state = train.start(config, STEPS, params)
        self.config, self.compute_logits = config, compute_logits
        self.seconds = {}  # The time of each run, by batch size.

    def _arguments(self, batch):
        n = np.int32(0)
        return self.config, STEPS, self.state, batch, n, self.compute_logits

    def update(self, batch):
        """Runs one update, and records its time."""
        began = time.perf_counter()
        self.state, loss = train.update(*self._arguments(batch))
        loss.block_until_ready()
        taken = time.perf_counter() - began
        self.seconds.setdefault(batch.letters.shape[1], []).append(taken)

    def megabytes(self, batch):
        """XLA's planned temporary memory of an update, in MB."""
        lowered = train.update.lower(*self._arguments(batch))
        plan: Any = lowered.compile().memory_analysis()
        return plan.temp_size_in_bytes / 1e6

    def of_epoch(self, reduce, batches):
        """Seconds per epoch, without the first run of each size, which compiles.

        Args:
            reduce: The function that reduces the times of the other runs, such as
                `min`.
            batches: The number of batches of each size.
        """
        return sum(n * reduce(self.seconds[size][1:]) for size, n in batches.items())


def both(config):
    """A dict from the library's name to its `Training`."""
    ours = model.init(config.net, jax.random.key(config.seed))
    of_flax = flax_net.from_ours(config.net, ours)
    return {
        "jaxrnn": Training(config, ours, model.compute_logits),
        "Flax": Training(config, of_flax, flax_logits),
    }


def main(
    config: Annotated[Config, tyro.conf.arg(name="")] = train.FULL,
    rounds: int = 10,
):
    """Prints the seconds per epoch and for compilation, and the memory.

    Args:
        config: The net and its training.
        rounds: The number of timed updates for each batch size.
    """
    words, _, _ = data.split(data.load())
    buckets = data.Training(words, config.rows, config.seed).buckets
    first = lambda bucket: data.Batch(*(field[: config.rows] for field in bucket))
    trainings = both(config)
    for bucket in tqdm(buckets.values(), unit="size"):
        for _ in range(rounds + 1):  # The first run compiles.
            for training in trainings.values():
                training.update(first(bucket))
    batches = {s: len(bucket.letters) // config.rows for s, bucket in buckets.items()}
    for name, training in trainings.items():
        least = training.of_epoch(min, batches)
        median = training.of_epoch(statistics.median, batches)
        compiling = sum(runs[0] - min(runs[1:]) for runs in training.seconds.values())
        memory = training.megabytes(first(buckets[max(buckets)]))
        print(
            f"{name:6} {least:.0f} s per epoch, median {median:.0f} s; compiling "
            f"{compiling:.0f} s; {memory:.0f} MB"
        )
    return trainings


if __name__ == "__main__":
    tyro.cli(tyro.conf.configure(tyro.conf.OmitArgPrefixes)(main), description=__doc__)
