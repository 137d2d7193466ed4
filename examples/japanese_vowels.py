"""Who is speaking? A bidirectional LSTM on utterances of 7 to 29 frames.

Nine speakers say two vowels, 12 cepstrum coefficients a frame. The net learns from 270
utterances and is tested on 370, recorded on other occasions. All seeds train at once,
by `jax.vmap` over their parameters.

    pip install -e '.[examples]'
    python examples/japanese_vowels.py                     # five seeds
    python examples/japanese_vowels.py --ensemble          # eleven nets, averaged
    python examples/japanese_vowels.py --cell GRUCell --direction forward
    python examples/japanese_vowels.py --cross-validate    # never sees the test set

The default settings were chosen by cross-validation on the training set alone.
"""

import dataclasses
import functools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

try:
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    import orbax.checkpoint
    from japanese_vowels_figure import draw
    from japanese_vowels_flags import Config, cells, parse
    from tqdm import tqdm

    import jaxrnn
except ImportError as error:
    raise SystemExit(f"{error}. Try: pip install -e '.[examples]'") from None

from japanese_vowels_data import (
    COEFFICIENTS,
    FEATURES,
    SPEAKERS,
    Scale,
    Utterances,
    folds,
    load,
    measure,
    stack,
)

FOLDS = 5
PyTree = Any


class Training(NamedTuple):
    """What a step of training changes."""

    params: PyTree
    optimiser: PyTree


# The net


def make_cell(config: Config) -> jaxrnn.RNNCell:
    """The cell of one layer and direction; it drops outputs only if it gets a key."""
    cell = cells()[config.cell](config.units)
    return jaxrnn.DropoutWrapper(cell, output_keep_prob=1 - config.dropout)


def init(config: Config, key: jax.Array) -> PyTree:
    """Fresh parameters: `{"layer_0": {"fw": …, "bw": …}, …, "head": …}`."""
    cell = make_cell(config)
    names = ("fw", "bw") if config.direction == "bidirectional" else ("fw",)
    *keys, head_key = jax.random.split(key, config.layers * len(names) + 1)
    params, depth = {}, FEATURES
    for layer in range(config.layers):
        one_step = jax.ShapeDtypeStruct((1, depth), jnp.float32)
        params[f"layer_{layer}"] = {n: cell.init(keys.pop(), one_step) for n in names}
        depth = cell.output_size * len(names)
    kernel = jax.nn.initializers.glorot_uniform()(head_key, (depth, SPEAKERS))
    params["head"] = {"kernel": kernel, "bias": jnp.zeros(SPEAKERS)}
    return params


def run_layer(
    config: Config, params: PyTree, x: jax.Array, lengths: jax.Array, key: Any
) -> jax.Array:
    """Outputs `[batch, time, depth]` of one layer, both directions side by side."""
    cell = make_cell(config)
    key_fw, key_bw = (None, None) if key is None else jax.random.split(key)
    cell_fw = cell.bind(params["fw"], key_fw)
    if config.direction == "forward":
        outputs, _ = jaxrnn.dynamic_rnn(
            cell_fw, x, sequence_length=lengths, dtype=jnp.float32
        )
        return outputs
    cell_bw = cell.bind(params["bw"], key_bw)
    outputs, _ = jaxrnn.bidirectional_dynamic_rnn(
        cell_fw, cell_bw, x, sequence_length=lengths, dtype=jnp.float32
    )
    return jnp.concatenate(outputs, axis=-1)


def scores(config: Config, params: PyTree, data: Utterances, key=None) -> jax.Array:
    """Logits `[batch, speakers]`; random if there is a key, as in training."""
    x = data.frames
    for layer in range(config.layers):
        layer_key = None if key is None else jax.random.fold_in(key, layer)
        x = run_layer(config, params[f"layer_{layer}"], x, data.lengths, layer_key)
    # Outputs past the length are zeros, so this is the mean over the valid frames.
    mean = jnp.sum(x, axis=1) / data.lengths[:, None]
    return mean @ params["head"]["kernel"] + params["head"]["bias"]


# Training


def perturb(config: Config, key: jax.Array, frames: jax.Array) -> jax.Array:
    """Frames as another day, room or microphone might have given them."""
    shift_key, noise_key = jax.random.split(key)
    shape = (len(frames), 1, COEFFICIENTS)
    shift = config.shift * jax.random.normal(shift_key, shape)
    frames = frames.at[..., :COEFFICIENTS].add(shift)  # Slopes do not change.
    return frames + config.noise * jax.random.normal(noise_key, frames.shape)


def loss(
    params: PyTree, config: Config, key: jax.Array, batch: Utterances
) -> tuple[jax.Array, jax.Array]:
    """The mean cross-entropy of a batch, and the accuracy."""
    noise_key, dropout_key = jax.random.split(key)
    batch = batch._replace(frames=perturb(config, noise_key, batch.frames))
    logits = scores(config, params, batch, dropout_key)
    targets = jax.nn.one_hot(batch.labels, SPEAKERS)
    targets = optax.smooth_labels(targets, config.smoothing)
    accuracy = jnp.mean(jnp.argmax(logits, axis=-1) == batch.labels)
    return jnp.mean(optax.softmax_cross_entropy(logits, targets)), accuracy


def make_optimiser(config: Config, utterances: int) -> optax.GradientTransformation:
    """Adam with a clipped gradient and a rate that falls to zero along a cosine."""
    steps = config.epochs * (utterances // config.batch_size)
    rate = optax.cosine_decay_schedule(config.learning_rate, steps)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))


def run_epoch(
    config: Config, training: Training, data: Utterances, key: jax.Array
) -> tuple[Training, tuple[jax.Array, jax.Array]]:
    """One pass over the data; also its mean loss and accuracy."""
    utterances = len(data.labels)
    optimiser = make_optimiser(config, utterances)
    batches = utterances // config.batch_size
    order_key, *keys = jax.random.split(key, batches + 1)
    order = jax.random.permutation(order_key, utterances)
    order = order[: batches * config.batch_size].reshape(batches, config.batch_size)

    def step(training, scanned):
        rows, key = scanned
        (value, accuracy), gradient = jax.value_and_grad(loss, has_aux=True)(
            training.params, config, key, data.take(rows)
        )
        updates, state = optimiser.update(gradient, training.optimiser)
        params = optax.apply_updates(training.params, updates)
        return Training(params, state), (value, accuracy)

    training, history = jax.lax.scan(step, training, (order, jnp.stack(keys)))
    return training, jax.tree.map(jnp.mean, history)


def fit(
    config: Config, data: Utterances, first_seed: int
) -> tuple[PyTree, tuple[np.ndarray, np.ndarray]]:
    """Trains one net on each member of `data`, all at once, each with its own seed.

    Returns:
        Their parameters, stacked; losses and accuracies, each `[epochs, members]`.
    """
    members, utterances = data.labels.shape
    if config.batch_size > utterances:
        raise SystemExit(f"--batch-size: at most {utterances}, got {config.batch_size}")
    data = jax.device_put(data)
    keys = jax.vmap(jax.random.key)(first_seed + jnp.arange(members))

    @jax.jit
    @jax.vmap
    def start(key):
        params = init(config, key)
        return Training(params, make_optimiser(config, utterances).init(params))

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, 0, 0, None))
    def epoch(training, data, key, number):
        return run_epoch(config, training, data, jax.random.fold_in(key, number))

    training, history = start(keys), []
    with tqdm(range(config.epochs), unit="epoch") as bar:
        for number in bar:
            training, now = epoch(training, data, keys, number)
            history.append(jax.device_get(now))
            value, accuracy = np.mean(history[-1], axis=1)
            bar.set_postfix(loss=f"{value:.3f}", accuracy=f"{100 * accuracy:.1f} %")
    losses, accuracies = (np.stack(series) for series in zip(*history, strict=True))
    return training.params, (losses, accuracies)


def predict(config: Config, params: PyTree, data: Utterances) -> np.ndarray:
    """Probabilities `[members, utterances, speakers]` of stacked nets."""
    logits = jax.jit(jax.vmap(functools.partial(scores, config)))(params, data)
    return np.asarray(jax.nn.softmax(logits))


# What is shown and kept


def percent(hits: np.ndarray) -> str:
    """Mean, spread and range over members of `hits` `[members, utterances]`."""
    each = 100 * hits.mean(axis=-1)
    if len(each) == 1:
        return f"{each[0]:.2f} %"
    return (
        f"{each.mean():.2f} %, standard deviation {each.std():.2f}, "
        f"range {each.min():.2f} to {each.max():.2f}"
    )


def cross_validate(config: Config, first_seed: int, repeats: int) -> float:
    """Trains on four fifths of the training set, asks for the rest, fold by fold."""
    pairs = folds(load()[0], FOLDS) * repeats
    train, held_out = (stack(part) for part in zip(*pairs, strict=True))
    params, _ = fit(config, train, first_seed)
    probabilities = predict(config, params, held_out)
    right = np.take_along_axis(probabilities, held_out.labels[..., None], axis=-1)
    hits = probabilities.argmax(axis=-1) == held_out.labels
    print(f"Held-out accuracy: {percent(hits.reshape(repeats, -1))}")
    print(f"Held-out log-loss: {-np.log(right).mean():.4f}")
    return hits.mean()


def save(folder: Path, params: PyTree, scale: Scale) -> tuple[PyTree, Scale]:
    """Writes weights and scale with Orbax; returns what is read back."""
    tree = {"params": params, "scale": scale._asdict()}
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder.resolve(), tree, force=True)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(folder.resolve(), like)
    return restored["params"], Scale(**restored["scale"])


# The program


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Trains, tests, reports; returns what `results.json` holds."""
    start = time.perf_counter()
    config, flags = parse(__doc__, argv)
    if flags.cross_validate:
        return {"held_out": cross_validate(config, flags.seed, flags.cross_validate)}
    train, test = load()
    scale, members = measure(train), flags.ensemble or flags.seeds
    params, history = fit(config, stack([scale(train)] * members), flags.seed)
    tests = stack([scale(test)] * members)
    probabilities = predict(config, params, tests)
    guesses = probabilities.argmax(axis=-1)
    hits = guesses == test.labels

    draw(flags.output / "japanese_vowels.png", test.labels, guesses, history)
    params, scale = save(flags.output / "checkpoint", params, scale)
    again = predict(config, params, stack([scale(test)] * members))
    if not np.array_equal(again, probabilities, equal_nan=True):
        raise RuntimeError("The weights read back do not give the same predictions.")

    results = {
        "config": dataclasses.asdict(config),
        "accuracies": hits.mean(axis=-1).tolist(),
        "final_losses": history[0][-1].tolist(),
    }
    width = len(str(flags.seed + members - 1))
    for seed, accuracy in enumerate(results["accuracies"], flags.seed):
        print(f"Seed {seed:{width}}: test accuracy {100 * accuracy:.2f} %")
    if members > 1:
        print(f"Mean of {members}: {percent(hits)}")
    if not np.isfinite(history[0]).all():
        print("The loss is not finite: try a smaller --learning-rate.")
    if flags.ensemble:
        averaged = probabilities.mean(axis=0).argmax(axis=-1) == test.labels
        results["ensemble"] = averaged.mean().item()
        print(f"Ensemble of {members}: {100 * results['ensemble']:.2f} %")
    (flags.output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print(f"{time.perf_counter() - start:.1f} s; see {flags.output}/")
    return results


if __name__ == "__main__":
    main()
