"""Classify the one-dimensional digits of MNIST-1D with two bidirectional GRU layers.

A digit is a curve of 40 numbers. A generator scales, shifts and shears one of ten
curves and adds noise, 4,000 times for training and 1,000 times for the test. Each seed
trains a net on the whole training set and tests it once on the whole test set.

    pip install -e '.[examples]'
    python examples/mnist_1d.py                # five seeds
    python examples/mnist_1d.py --validate     # without the test set

The default settings were chosen with `--validate`.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from counts import check_counts
from mnist1d.data import get_dataset_args, make_dataset
from tqdm import tqdm

import jaxrnn

CLASSES = 10
LAYERS = 2


@dataclasses.dataclass(frozen=True)
class Config:
    """The net and its training; each field is a flag."""

    units: int = 48
    """The size of each cell."""
    epochs: int = 30
    """Passes over the training set."""
    batch_size: int = 100
    """Digits per training step."""
    learning_rate: float = 0.01
    """Adam's initial learning rate."""

    def __post_init__(self):
        check_counts(self, "units", "epochs", "batch_size")

    @property
    def cell(self):
        """The cell of both layers and both directions; it holds no parameters."""
        return jaxrnn.GRUCell(self.units)


def load(validate):
    """The training set and the test set, each `(signals [n, 40], labels [n])`.

    With `validate`, every fifth digit of the training set replaces the test set.
    """
    data = make_dataset(get_dataset_args())
    x, y = data["x"].astype(np.float32), data["y"]
    if validate:
        held_out = np.arange(len(y)) % 5 == 0
        return (x[~held_out], y[~held_out]), (x[held_out], y[held_out])
    return (x, y), (data["x_test"].astype(np.float32), data["y_test"])


# The net


def init(cell, key):
    """Initial parameters: a list of layers for each direction, and the head."""
    rnn_key, head_key = jax.random.split(key)
    cells, one_step = [cell] * LAYERS, jax.ShapeDtypeStruct((1, 1), jnp.float32)
    fw, bw = jaxrnn.init_stack_bidirectional(cells, cells, rnn_key, one_step)
    glorot = jax.nn.initializers.glorot_uniform()
    kernel = glorot(head_key, (2 * cell.output_size, CLASSES))
    return {"fw": fw, "bw": bw, "head": {"kernel": kernel, "bias": jnp.zeros(CLASSES)}}


def compute_logits(cell, params, signals):
    """Logits `[batch, classes]` of signals `[batch, time]`."""
    outputs, _, _ = jaxrnn.stack_bidirectional_dynamic_rnn(
        [cell.bind(layer) for layer in params["fw"]],
        [cell.bind(layer) for layer in params["bw"]],
        signals[..., None],
        dtype=jnp.float32,
    )
    # The maximum over time finds a curve wherever it is in the signal.
    features = jnp.max(outputs, axis=1)
    return features @ params["head"]["kernel"] + params["head"]["bias"]


# Training


def make_optimizer(config, digits):
    """Adam with clipped gradients and a learning rate with cosine decay to zero."""
    steps = config.epochs * (digits // config.batch_size)
    rate = optax.cosine_decay_schedule(config.learning_rate, steps)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))


@functools.partial(jax.jit, static_argnums=0)
def run_epoch(config, params, state, signals, labels, key):
    """Runs one pass over the data; returns parameters, state and mean loss."""
    optimizer = make_optimizer(config, len(labels))

    def compute_loss(params, rows):
        logits = compute_logits(config.cell, params, signals[rows])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows])
        return jnp.mean(losses)

    def step(training, rows):
        params, state = training
        loss, gradient = jax.value_and_grad(compute_loss)(params, rows)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, updates), state), loss

    used = len(labels) // config.batch_size * config.batch_size
    order = jax.random.permutation(key, len(labels))[:used]
    batches = order.reshape(-1, config.batch_size)
    (params, state), losses = jax.lax.scan(step, (params, state), batches)
    return params, state, jnp.mean(losses)


def fit(config, signals, labels, seed):
    """Trains one net; returns its parameters."""
    init_key, data_key = jax.random.split(jax.random.key(seed))
    params = init(config.cell, init_key)
    state = make_optimizer(config, len(labels)).init(params)
    # `disable=None` hides the bar if the output is not a terminal.
    with tqdm(range(config.epochs), f"seed {seed}", unit="epoch", disable=None) as bar:
        for epoch in bar:
            key = jax.random.fold_in(data_key, epoch)
            params, state, loss = run_epoch(config, params, state, signals, labels, key)
            bar.set_postfix(loss=f"{loss:.4f}")
    return params


@tyro.conf.configure(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
def main(
    config: Config,
    seeds: int = 5,
    validate: bool = False,
):
    """Trains and tests; returns the accuracy of each net.

    Args:
        config: The net and its training.
        seeds: The number of nets to train, one after the other.
        validate: Test on a fifth of the training set instead of the test set, and
            train on the rest.
    """
    train, test = load(validate)
    predict = jax.jit(compute_logits, static_argnums=0)
    guesses = []
    print("seed  accuracy")
    for seed in range(seeds):
        logits = predict(config.cell, fit(config, *train, seed), test[0])
        guesses.append(np.argmax(logits, axis=-1))
        print(f"{seed:4}  {np.mean(guesses[-1] == test[1]):8.1%}", flush=True)
    accuracies = np.mean(np.stack(guesses) == test[1], axis=1)
    print(f"mean  {accuracies.mean():8.2%}, standard deviation {accuracies.std():.2%}")
    return accuracies


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
