"""Speaker identification with Flax linen: the net of `japanese_vowels.py` as a module.

Use `jaxrnn.linen.Bidirectional` like any linen layer: its parameters are in
`variables["params"]`, and its dropout draws from the stream "dropout".

    pip install -e '.[examples,flax]'
    python examples/flax_linen.py        # five seeds
"""

import jax
import numpy as np
import optax
import tyro
from japanese_vowels_data import SPEAKERS, batches, load, perturb
from tqdm import tqdm

try:
    import flax.linen as nn
    from flax.training.train_state import TrainState

    import jaxrnn.linen
except ImportError as error:
    raise SystemExit(f"{error}. Try: pip install -e '.[examples,flax]'") from None

BATCH_SIZE = 27


class Speaker(nn.Module):
    """A net that maps utterances to logits `[batch, speakers]`."""

    units: int

    @nn.compact
    def __call__(self, frames, lengths, *, train=False):
        """Computes logits; applies dropout to the cells' outputs if `train` is True."""
        # The cell has no parameters, so both directions can share it.
        cell = jaxrnn.LSTMCell(self.units)
        cell = jaxrnn.DropoutWrapper(cell, output_keep_prob=0.7)
        rnn = jaxrnn.linen.Bidirectional(cell_fw=cell, cell_bw=cell, name="rnn")
        outputs = rnn(frames, lengths, deterministic=not train)
        # Past a row's length, outputs are zeros, so padding does not change the mean.
        return nn.Dense(SPEAKERS, name="head")(outputs.sum(axis=1) / lengths[:, None])


def cross_entropy(logits, labels):
    """The mean cross-entropy of a batch, with smoothed labels."""
    targets = optax.smooth_labels(jax.nn.one_hot(labels, SPEAKERS), 0.05)
    return optax.softmax_cross_entropy(logits, targets).mean()


@jax.jit
def train_step(state, batch, key):
    """Updates the state with one batch; returns the new state and the loss."""
    noise_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
    frames = perturb(noise_key, batch.frames)

    def loss(params):
        variables, rngs = {"params": params}, {"dropout": dropout_key}
        logits = state.apply_fn(variables, frames, batch.lengths, train=True, rngs=rngs)
        return cross_entropy(logits, batch.labels)

    value, grads = jax.value_and_grad(loss)(state.params)
    return state.apply_gradients(grads=grads), value


def fit(state, data, epochs, seed):
    """Trains a net; returns its state and the loss of each batch."""
    losses = []
    with tqdm(batches(len(data.labels), BATCH_SIZE, epochs, seed), unit="batch") as bar:
        for rows in bar:
            state, loss = train_step(state, data.take(rows), jax.random.key(seed))
            losses.append(loss.item())
            bar.set_postfix(loss=f"{np.mean(losses[-10:]):.3f}", refresh=False)
    return state, losses


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
    # All seeds share one model and one optimizer, so that training is compiled once.
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    model = Speaker(units)
    init = jax.jit(model.init)
    found = {"accuracies": [], "losses": []}
    for seed in range(seeds):
        variables = init(jax.random.key(seed), train.frames, train.lengths)
        state = TrainState.create(apply_fn=model.apply, tx=tx, **variables)
        state, losses = fit(state, train, epochs, seed)
        logits = state.apply_fn({"params": state.params}, test.frames, test.lengths)
        accuracy = np.mean(np.argmax(logits, axis=-1) == test.labels)
        print(f"Seed {seed}: test accuracy {100 * accuracy:.2f} %")
        found["accuracies"].append(accuracy)
        found["losses"].append(losses)
    print(f"Mean of {seeds}: {100 * np.mean(found['accuracies']):.2f} %")
    return found


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
