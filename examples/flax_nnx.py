"""Speaker identification with Flax nnx: the net of `japanese_vowels.py` as a module.

Use `jaxrnn.nnx.Bidirectional` like any nnx layer: the module holds its parameters and
its random stream for dropout. `train()` and `eval()` switch dropout on and off.

    pip install -e '.[examples,flax]'
    python examples/flax_nnx.py        # five seeds
"""

import jax
import numpy as np
import optax
import tyro
from japanese_vowels_data import FEATURES, SPEAKERS, batches, load, perturb
from tqdm import tqdm

try:
    from flax import nnx

    import jaxrnn.nnx
except ImportError as error:
    raise SystemExit(f"{error}. Try: pip install -e '.[examples,flax]'") from None

BATCH_SIZE = 27


class Speaker(nnx.Module):
    """A net that maps utterances to logits `[batch, speakers]`."""

    def __init__(self, units, *, rngs):
        # The cell has no parameters, so both directions can share it.
        cell = jaxrnn.LSTMCell(units)
        cell = jaxrnn.DropoutWrapper(cell, output_keep_prob=0.7)
        self.rnn = jaxrnn.nnx.Bidirectional(cell, cell, FEATURES, rngs=rngs)
        self.head = nnx.Linear(2 * units, SPEAKERS, rngs=rngs)

    def __call__(self, frames, lengths):
        """Computes logits; applies dropout after `train()`, but not after `eval()`."""
        outputs = self.rnn(frames, lengths)
        # Past a row's length, outputs are zeros, so padding does not change the mean.
        return self.head(outputs.sum(axis=1) / lengths[:, None])


def cross_entropy(logits, labels):
    """The mean cross-entropy of a batch, with smoothed labels."""
    targets = optax.smooth_labels(jax.nn.one_hot(labels, SPEAKERS), 0.05)
    return optax.softmax_cross_entropy(logits, targets).mean()


@nnx.jit
def train_step(model, optimizer, rngs, batch):
    """Updates the model with one batch; returns the loss."""
    frames = perturb(rngs.noise(), batch.frames)

    def loss(model):
        return cross_entropy(model(frames, batch.lengths), batch.labels)

    value, grads = nnx.value_and_grad(loss)(model)
    optimizer.update(model, grads)
    return value


def fit(units, tx, data, epochs, seed):
    """Trains a net; returns the net and the loss of each batch."""
    model = Speaker(units, rngs=nnx.Rngs(seed))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    rngs, losses = nnx.Rngs(noise=seed), []
    model.train()
    with tqdm(batches(len(data.labels), BATCH_SIZE, epochs, seed), unit="batch") as bar:
        for rows in bar:
            loss = train_step(model, optimizer, rngs, data.take(rows))
            losses.append(loss.item())
            bar.set_postfix(loss=f"{np.mean(losses[-10:]):.3f}", refresh=False)
    return model, losses


def main(epochs: int = 60, seeds: int = 5, units: int = 64):
    """Trains and tests the nets, and prints their accuracies.

    Args:
        epochs: Passes over the training set.
        seeds: The number of nets to train, one after the other.
        units: The size of each cell.
    """
    if min(seeds, epochs, units) < 1:
        raise SystemExit("--seeds, --epochs and --units must be at least 1.")
    train, test = load()
    steps = epochs * (len(train.labels) // BATCH_SIZE)
    rate = optax.cosine_decay_schedule(2e-3, steps)
    # All seeds share one optimizer, so that training is compiled once.
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    found = {"accuracies": [], "losses": []}
    for seed in range(seeds):
        model, losses = fit(units, tx, train, epochs, seed)
        model.eval()
        logits = model(test.frames, test.lengths)
        accuracy = np.mean(np.argmax(logits, axis=-1) == test.labels)
        print(f"Seed {seed}: test accuracy {100 * accuracy:.2f} %")
        found["accuracies"].append(accuracy)
        found["losses"].append(losses)
    print(f"Mean of {seeds}: {100 * np.mean(found['accuracies']):.2f} %")
    return found


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
