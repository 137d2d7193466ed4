"""Speaker identification with a bidirectional LSTM on utterances of 7 to 29 frames.

Nine speakers say two vowels; a frame has 12 cepstrum coefficients. The net is trained
on 270 utterances and tested on 370 utterances from other recording sessions. Nets with
different seeds train at the same time, with `jax.vmap`, and form an ensemble.

    pip install -e '.[examples]'
    python examples/japanese_vowels.py             # five seeds; japanese_vowels.png
    python examples/japanese_vowels.py --seeds 11  # a larger ensemble

The default settings were chosen on the training set only.
"""

import functools
import time

import japanese_vowels_data as vowels
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from matplotlib.figure import Figure
from tqdm import tqdm

import jaxrnn

BATCH_SIZE, LEARNING_RATE, DROPOUT, SMOOTHING = 27, 2e-3, 0.3, 0.05
PICTURE = "japanese_vowels.png"

# The net


def init(cell, key):
    """Initial parameters of both directions and of the classifier."""
    fw_key, bw_key, head_key = jax.random.split(key, 3)
    one_step = jax.ShapeDtypeStruct((1, vowels.FEATURES), jnp.float32)
    glorot = jax.nn.initializers.glorot_uniform()
    return {
        "fw": cell.init(fw_key, one_step),
        "bw": cell.init(bw_key, one_step),
        "kernel": glorot(head_key, (2 * cell.output_size, vowels.SPEAKERS)),
        "bias": jnp.zeros(vowels.SPEAKERS),
    }


def compute_logits(cell, params, data, key=None):
    """Logits `[batch, speakers]`; with dropout if there is a key, as in training."""
    key_fw, key_bw = (None, None) if key is None else jax.random.split(key)
    outputs, _ = jaxrnn.bidirectional_dynamic_rnn(
        cell.bind(params["fw"], key_fw),
        cell.bind(params["bw"], key_bw),
        data.frames,
        data.lengths,
        dtype=jnp.float32,
    )
    # Past a row's length, outputs are zeros, so padding does not change the mean.
    mean = jnp.sum(jnp.concatenate(outputs, axis=-1), axis=1) / data.lengths[:, None]
    return mean @ params["kernel"] + params["bias"]


# Training


def compute_loss(params, cell, key, batch):
    """The mean cross-entropy of a batch, with smoothed labels."""
    noise_key, dropout_key = jax.random.split(key)
    batch = batch._replace(frames=vowels.perturb(noise_key, batch.frames))
    logits = compute_logits(cell, params, batch, dropout_key)
    targets = jax.nn.one_hot(batch.labels, vowels.SPEAKERS)
    targets = optax.smooth_labels(targets, SMOOTHING)
    return jnp.mean(optax.softmax_cross_entropy(logits, targets))


def fit(cell, data, seeds, epochs):
    """Trains one net per seed, all at once.

    Returns:
        The nets' stacked parameters, and their mean losses `[epochs, seeds]`.
    """
    batches = len(data.labels) // BATCH_SIZE
    rate = optax.cosine_decay_schedule(LEARNING_RATE, epochs * batches)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))

    @jax.jit
    @jax.vmap
    def start(key):
        params = init(cell, key)
        return params, optimizer.init(params)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None, 0, None))
    def run_epoch(training, data, key, number):
        key = jax.random.fold_in(key, number)
        order_key, *keys = jax.random.split(key, batches + 1)
        order = jax.random.permutation(order_key, len(data.labels))
        order = order[: batches * BATCH_SIZE].reshape(batches, BATCH_SIZE)

        def step(training, scanned):
            (params, state), (rows, key) = training, scanned
            loss, gradient = jax.value_and_grad(compute_loss)(
                params, cell, key, data.take(rows)
            )
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(params, updates), state), loss

        training, losses = jax.lax.scan(step, training, (order, jnp.stack(keys)))
        return training, jnp.mean(losses)

    keys = jax.vmap(jax.random.key)(jnp.arange(seeds))
    training, data, history = start(keys), jax.device_put(data), []
    # The first epoch takes longer, to compile. `disable=None` hides the bar if the
    # output is not a terminal.
    with tqdm(range(epochs), f"{seeds} nets", unit="epoch", disable=None) as bar:
        for epoch in bar:
            training, losses = run_epoch(training, data, keys, epoch)
            history.append(np.asarray(losses))
            bar.set_postfix(loss=f"{losses.mean():.3f}")
    return training[0], np.stack(history)


def draw(labels, guesses, losses):
    """Saves a figure of the confusion matrix and the training loss."""
    figure = Figure(figsize=(11, 5), dpi=150, layout="constrained")
    matrix, curve = figure.subplots(1, 2)
    counts = np.zeros((vowels.SPEAKERS, vowels.SPEAKERS), int)
    np.add.at(counts, (np.broadcast_to(labels, guesses.shape), guesses), 1)
    shares = counts / counts.sum(axis=1, keepdims=True)
    # The square root makes single mistakes visible next to hundreds of hits.
    matrix.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(counts):
        color = "white" if shares[row, column] > 0.4 else "black"
        place = {"ha": "center", "va": "center", "color": color}
        matrix.text(column, row, counts[row, column], **place)
    ticks = {"ticks": range(vowels.SPEAKERS), "labels": range(1, vowels.SPEAKERS + 1)}
    matrix.set_xticks(**ticks)
    matrix.set_yticks(**ticks)
    matrix.set(xlabel="recognized speaker", ylabel="true speaker")
    right = f"right: {np.mean(guesses == labels):.2%}"
    matrix.set_title(f"{len(labels)} test utterances x {len(guesses)} nets, {right}")

    curve.plot(range(1, len(losses) + 1), losses, linewidth=1)
    curve.set(xlabel="epoch", ylabel="loss, smoothed labels", ylim=0)
    curve.set_title("Training: one line per net")
    curve.grid(alpha=0.25)
    curve.spines[["top", "right"]].set_visible(False)
    figure.savefig(PICTURE)


def main(seeds: int = 5, epochs: int = 60, units: int = 64):
    """Trains and tests nets and their ensemble; returns the accuracies of the nets.

    Args:
        seeds: The number of nets to train.
        epochs: Passes over the training set.
        units: The size of each cell.
    """
    if min(seeds, epochs, units) < 1:
        raise SystemExit("--seeds, --epochs and --units must be at least 1.")
    start = time.perf_counter()
    train, test = vowels.load()
    # Applies dropout only if the cell is bound to a key.
    cell = jaxrnn.DropoutWrapper(jaxrnn.LSTMCell(units), output_keep_prob=1 - DROPOUT)
    params, losses = fit(cell, train, seeds, epochs)
    predict = jax.vmap(functools.partial(compute_logits, cell), in_axes=(0, None))
    probabilities = np.asarray(jax.nn.softmax(jax.jit(predict)(params, test)))
    guesses = probabilities.argmax(axis=-1)
    accuracies = np.mean(guesses == test.labels, axis=1)
    for seed, accuracy in enumerate(accuracies):
        print(f"Seed {seed}: test accuracy {accuracy:.2%}")
    ensemble = np.mean(probabilities.mean(axis=0).argmax(axis=-1) == test.labels)
    print(f"Mean: {accuracies.mean():.2%}, standard deviation {accuracies.std():.2%}")
    print(f"Ensemble, probabilities averaged: {ensemble:.2%}")
    draw(test.labels, guesses, losses)
    print(f"{time.perf_counter() - start:.1f} s. Wrote {PICTURE}.")
    return accuracies


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
