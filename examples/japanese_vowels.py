"""Speaker identification with a bidirectional LSTM on utterances of 7 to 29 frames.

Nine speakers say two vowels; a frame has 12 cepstrum coefficients. The net is trained
on 270 utterances and tested on 370 utterances from other recording sessions. Nets with
different seeds train at the same time, with `jax.vmap`, and form an ensemble.

    pip install -e '.[examples]'
    python examples/japanese_vowels.py                     # five seeds
    python examples/japanese_vowels.py --seeds 11          # a larger ensemble
    python examples/japanese_vowels.py --cell GRUCell --direction forward
    python examples/japanese_vowels.py --cross-validate    # without the test set

The default settings were chosen by cross-validation on the training set only.
"""

import dataclasses
import functools
import json
import time
from pathlib import Path
from typing import Literal

import japanese_vowels_data as vowels
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import tyro
from flag_types import Count, Folder, NonNegative, Positive, Seed, Share
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from tqdm import tqdm

import jaxrnn

FOLDS = 5


@dataclasses.dataclass(frozen=True)
class Config:
    """The net and its training; each field is a flag."""

    cell: Literal[
        "BasicLSTMCell", "BasicRNNCell", "CudnnCompatibleGRUCell", "GRUCell", "LSTMCell"
    ] = "LSTMCell"
    """The kind of cell."""
    direction: Literal["bidirectional", "forward"] = "bidirectional"
    """Whether to read utterances in both directions or only forward."""
    layers: Count = 1
    """The number of layers."""
    units: Count = 64
    """The size of each cell."""
    epochs: Count = 60
    """Passes over the training set."""
    batch_size: Count = 27
    """Utterances per training step."""
    learning_rate: Positive = 2e-3
    """Adam's initial learning rate."""
    dropout: Share = 0.3
    """The fraction of the cells' outputs to drop."""
    smoothing: Share = 0.05
    """The fraction of each label that is spread over all speakers."""
    shift: NonNegative = 0.3
    """The standard deviation of the constant added to an utterance's coefficients."""
    noise: NonNegative = 0.2
    """The standard deviation of the noise added to each number in a frame."""


# The net


def make_cell(config):
    """The cell of one layer and direction; it applies dropout only if it has a key."""
    cell = getattr(jaxrnn, config.cell)(config.units)
    return jaxrnn.DropoutWrapper(cell, output_keep_prob=1 - config.dropout)


def init(config, key):
    """Initial parameters: `{"layer_0": {"fw": …, "bw": …}, …, "head": …}`."""
    cell = make_cell(config)
    names = ("fw", "bw") if config.direction == "bidirectional" else ("fw",)
    *keys, head_key = jax.random.split(key, config.layers * len(names) + 1)
    params, depth = {}, vowels.FEATURES
    for layer in range(config.layers):
        one_step = jax.ShapeDtypeStruct((1, depth), jnp.float32)
        params[f"layer_{layer}"] = {n: cell.init(keys.pop(), one_step) for n in names}
        depth = cell.output_size * len(names)
    kernel = jax.nn.initializers.glorot_uniform()(head_key, (depth, vowels.SPEAKERS))
    params["head"] = {"kernel": kernel, "bias": jnp.zeros(vowels.SPEAKERS)}
    return params


def run_layer(config, params, x, lengths, key):
    """Outputs `[batch, time, depth]` of one layer, both directions concatenated."""
    cell = make_cell(config)
    key_fw, key_bw = (None, None) if key is None else jax.random.split(key)
    cell_fw = cell.bind(params["fw"], key_fw)
    if config.direction == "forward":
        return jaxrnn.dynamic_rnn(cell_fw, x, lengths, dtype=jnp.float32)[0]
    cell_bw = cell.bind(params["bw"], key_bw)
    outputs, _ = jaxrnn.bidirectional_dynamic_rnn(
        cell_fw, cell_bw, x, lengths, dtype=jnp.float32
    )
    return jnp.concatenate(outputs, axis=-1)


def compute_logits(config, params, data, key=None):
    """Logits `[batch, speakers]`; with dropout if there is a key, as in training."""
    x = data.frames
    for layer in range(config.layers):
        layer_key = None if key is None else jax.random.fold_in(key, layer)
        x = run_layer(config, params[f"layer_{layer}"], x, data.lengths, layer_key)
    # Past a row's length, outputs are zeros, so padding does not change the mean.
    mean = jnp.sum(x, axis=1) / data.lengths[:, None]
    return mean @ params["head"]["kernel"] + params["head"]["bias"]


# Training


def compute_loss(params, config, key, batch):
    """The mean cross-entropy and the accuracy of a batch."""
    noise_key, dropout_key = jax.random.split(key)
    frames = vowels.perturb(noise_key, batch.frames, config.shift, config.noise)
    logits = compute_logits(config, params, batch._replace(frames=frames), dropout_key)
    targets = jax.nn.one_hot(batch.labels, vowels.SPEAKERS)
    targets = optax.smooth_labels(targets, config.smoothing)
    accuracy = jnp.mean(jnp.argmax(logits, axis=-1) == batch.labels)
    return jnp.mean(optax.softmax_cross_entropy(logits, targets)), accuracy


def make_optimizer(config, utterances):
    """Adam with clipped gradients and a learning rate with cosine decay to zero."""
    steps = config.epochs * (utterances // config.batch_size)
    rate = optax.cosine_decay_schedule(config.learning_rate, steps)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))


def run_epoch(config, params, state, data, key):
    """Runs one pass over the data.

    Returns parameters, optimizer state, mean loss and mean accuracy.
    """
    utterances, size = len(data.labels), config.batch_size
    optimizer = make_optimizer(config, utterances)
    batches = utterances // size
    order_key, *keys = jax.random.split(key, batches + 1)
    order = jax.random.permutation(order_key, utterances)
    order = order[: batches * size].reshape(batches, size)

    def step(training, scanned):
        (params, state), (rows, key) = training, scanned
        (loss, accuracy), gradient = jax.value_and_grad(compute_loss, has_aux=True)(
            params, config, key, data.take(rows)
        )
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, updates), state), (loss, accuracy)

    training, history = jax.lax.scan(step, (params, state), (order, jnp.stack(keys)))
    return *training, *map(jnp.mean, history)


def fit(config, data, first_seed):
    """Trains one net on each member of `data`, all at once, each with its own seed.

    Returns:
        The nets' stacked parameters; losses and accuracies, each `[epochs, members]`.
    """
    members, utterances = data.labels.shape
    if config.batch_size > utterances:
        most = f"{utterances}, the number of training utterances"
        raise SystemExit(
            f"--batch-size must be at most {most}, got {config.batch_size}"
        )
    data = jax.device_put(data)
    keys = jax.vmap(jax.random.key)(first_seed + jnp.arange(members))

    @jax.jit
    @jax.vmap
    def start(key):
        params = init(config, key)
        return params, make_optimizer(config, utterances).init(params)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, 0, 0, 0, None))
    def epoch(params, state, data, key, number):
        return run_epoch(config, params, state, data, jax.random.fold_in(key, number))

    (params, state), history = start(keys), []
    print(f"Nets to train: {members}. Compiling.", flush=True)
    compiled = epoch.lower(params, state, data, keys, 0).compile()
    # `disable=None` hides the bar if the output is not a terminal.
    with tqdm(range(config.epochs), "training", unit="epoch", disable=None) as bar:
        for number in bar:
            params, state, *now = compiled(params, state, data, keys, number)
            history.append(jax.device_get(now))
            loss, accuracy = np.mean(history[-1], axis=1)
            bar.set_postfix(loss=f"{loss:.3f}", accuracy=f"{accuracy:.1%}")
    losses, accuracies = np.stack(history, axis=1)
    return params, losses, accuracies


def predict(config, params, data):
    """Probabilities `[members, utterances, speakers]` of stacked nets."""
    logits = jax.jit(jax.vmap(functools.partial(compute_logits, config)))(params, data)
    return np.asarray(jax.nn.softmax(logits))


# The results


def percent(hits):
    """Mean, deviation and range over the members of `hits` `[members, utterances]`."""
    each = 100 * hits.mean(axis=-1)
    if len(each) == 1:
        return f"{each[0]:.2f} %"
    return (
        f"{each.mean():.2f} %, standard deviation {each.std():.2f}, "
        f"range {each.min():.2f} to {each.max():.2f}"
    )


def save(folder, params, scale):
    """Saves weights and scale with Orbax, restores them, and returns the result."""
    tree = {"params": params, "scale": scale._asdict()}
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder.resolve(), tree, force=True)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(folder.resolve(), like)
    return restored["params"], vowels.Scale(**restored["scale"])


def draw_confusion(axes, labels, guesses):
    """Draws how often each speaker (row) was recognized as each speaker (column)."""
    counts = np.zeros((vowels.SPEAKERS, vowels.SPEAKERS), int)
    np.add.at(counts, (np.broadcast_to(labels, guesses.shape), guesses), 1)
    shares = counts / counts.sum(axis=1, keepdims=True)
    # The square root makes single mistakes visible next to hundreds of hits.
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        color = "white" if shares[row, column] > 0.4 else "black"
        if count:
            axes.text(column, row, count, ha="center", va="center", color=color)
    ticks = {"ticks": range(vowels.SPEAKERS), "labels": range(1, vowels.SPEAKERS + 1)}
    axes.set_xticks(**ticks)
    axes.set_yticks(**ticks)
    axes.set(xlabel="recognized speaker", ylabel="true speaker")
    right = f"{100 * np.mean(guesses == labels):.2f} %"
    axes.set_title(
        f"{len(labels)} test utterances x {len(guesses)} nets, right: {right}"
    )


def draw_history(axes, series, name, color):
    """Draws the mean over nets of `[epochs, members]`, and the range as a band."""
    epochs = np.arange(1, len(series) + 1)
    band = series.min(axis=1), series.max(axis=1)
    axes.fill_between(epochs, *band, color=color, alpha=0.25, linewidth=0)
    axes.plot(epochs, series.mean(axis=1), color=color, marker=".")
    axes.set(xlabel="epoch", ylabel=name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def draw(path, labels, guesses, losses, accuracies):
    """Saves a figure of the confusion matrix and the learning curves."""
    figure = Figure(figsize=(11, 5), dpi=150, layout="constrained")
    parts = figure.subplot_mosaic("AB;AC", width_ratios=[1.1, 1])
    draw_confusion(parts["A"], labels, guesses)
    draw_history(parts["B"], losses, "loss, smoothed labels", "tab:blue")
    draw_history(parts["C"], 100 * accuracies, "accuracy, %", "tab:green")
    parts["B"].set_title("Training: mean and range of the nets")
    figure.savefig(path)


# The program


def validate(config, first_seed, repeats):
    """Trains on four fifths of the training set, tests on the rest, fold by fold."""
    pairs = vowels.folds(vowels.load()[0], FOLDS) * repeats
    train, held_out = (vowels.stack(part) for part in zip(*pairs, strict=True))
    params, *_ = fit(config, train, first_seed)
    probabilities = predict(config, params, held_out)
    right = np.take_along_axis(probabilities, held_out.labels[..., None], axis=-1)
    hits = probabilities.argmax(axis=-1) == held_out.labels
    log_loss = -np.log(right).mean().item()
    print(f"Held-out accuracy: {percent(hits.reshape(repeats, -1))}")
    print(f"Held-out log-loss: {log_loss:.4f}")
    return {"held_out": hits.mean().item(), "log_loss": log_loss}


def train_and_test(config, first_seed, members, output):
    """Trains, tests and draws; saves the weights, and tests the restored weights."""
    train, test = vowels.load()
    scale = vowels.measure(train)
    many = vowels.stack([scale(train)] * members)
    params, losses, accuracies = fit(config, many, first_seed)
    probabilities = predict(config, params, vowels.stack([scale(test)] * members))
    guesses = probabilities.argmax(axis=-1)
    hits = guesses == test.labels
    draw(output / "japanese_vowels.png", test.labels, guesses, losses, accuracies)
    params, scale = save(output / "checkpoint", params, scale)
    again = predict(config, params, vowels.stack([scale(test)] * members))
    if not np.array_equal(again, probabilities, equal_nan=True):
        raise RuntimeError("The restored weights give different predictions.")

    for seed, accuracy in enumerate(hits.mean(axis=-1), first_seed):
        print(f"Seed {seed}: test accuracy {100 * accuracy:.2f} %")
    ensemble = np.mean(probabilities.mean(axis=0).argmax(axis=-1) == test.labels)
    if members > 1:
        print(f"Mean of {members}: {percent(hits)}")
        print(f"Ensemble of {members}, probabilities averaged: {100 * ensemble:.2f} %")
    if not np.isfinite(losses).all():
        print("The loss is not finite: try a smaller --learning-rate.")
    return {
        "accuracies": hits.mean(axis=-1).tolist(),
        "ensemble": ensemble.item(),
        "final_losses": losses[-1].tolist(),
    }


@tyro.conf.configure(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
def main(
    config: Config,
    seeds: Count = 5,
    seed: Seed = 0,
    cross_validate: bool = False,
    output: Folder = Path("japanese_vowels_output"),
):
    """Trains, tests and reports; returns the contents of `results.json`.

    Args:
        config: The net and its training.
        seeds: The number of nets to train, each with its own seed; with
            cross-validation, the number for each fold.
        seed: The first net's seed.
        cross_validate: Train on four fifths of the training set and test on the rest,
            fold by fold, without the test set.
        output: The folder for the results and, without cross-validation, for the figure
            and the weights.
    """
    start = time.perf_counter()
    output.mkdir(parents=True, exist_ok=True)
    if cross_validate:
        name, files = "cross_validation.json", ()
        results = validate(config, seed, seeds)
    else:
        name, files = "results.json", ("japanese_vowels.png", "checkpoint")
        results = train_and_test(config, seed, seeds, output)
    results = {"config": dataclasses.asdict(config), **results}
    (output / name).write_text(json.dumps(results, indent=2) + "\n")
    print(f"{time.perf_counter() - start:.1f} s. Written:")
    print(*(output / file for file in (*files, name)), sep="\n")
    return results


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
