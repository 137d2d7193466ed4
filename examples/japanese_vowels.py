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

import argparse
import dataclasses
import functools
import inspect
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

try:
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    import orbax.checkpoint
    from japanese_vowels_figure import draw
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


@dataclasses.dataclass(frozen=True)
class Config:
    """The net and its training; each field is a flag."""

    cell: str = "LSTMCell"
    direction: str = "bidirectional"
    layers: int = 1
    units: int = 64
    epochs: int = 60
    batch_size: int = 27
    learning_rate: float = 2e-3
    dropout: float = 0.3  # Of the outputs of the cells.
    smoothing: float = 0.05  # Of the labels.
    shift: float = 0.3  # Deviation of a random constant added to each coefficient.
    noise: float = 0.2  # Deviation of the noise added to each number.


class Training(NamedTuple):
    """What a step of training changes."""

    params: PyTree
    optimiser: PyTree


# The net


def cells() -> dict[str, Callable[[int], jaxrnn.RNNCell]]:
    """The cells of jaxrnn that need to be told their size and nothing else."""

    def is_sized(value: Any) -> bool:
        if not (inspect.isclass(value) and issubclass(value, jaxrnn.RNNCell)):
            return False
        arguments = inspect.signature(value).parameters.values()
        needed = [item.name for item in arguments if item.default is item.empty]
        return needed == ["num_units"]

    return {name: value for name, value in vars(jaxrnn).items() if is_sized(value)}


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
            bar.set_postfix(loss=f"{value:.3f}", accuracy=f"{accuracy:.1%}")
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


def positive(text: str) -> int:
    """A flag's value that must be a number from 1 on."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def parse(argv: Sequence[str] | None) -> tuple[Config, argparse.Namespace]:
    """The flags: one for each field of `Config`, and those of the run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    choices = {"cell": sorted(cells()), "direction": ["bidirectional", "forward"]}
    for field in dataclasses.fields(Config):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=positive if field.type is int else field.type,
            default=field.default,
            choices=choices.get(field.name),
            help=f"default: {field.default}",
        )
    run = parser.add_argument_group("the run")
    run.add_argument("--seeds", type=positive, default=5, help="how many; default: 5")
    run.add_argument("--seed", type=int, default=0, help="the first; default: 0")
    run.add_argument(
        "--ensemble",
        type=positive,
        nargs="?",
        const=11,
        metavar="N",
        help="train N nets (11) and average their probabilities as well",
    )
    run.add_argument(
        "--cross-validate",
        type=positive,
        nargs="?",
        const=3,
        metavar="N",
        help=f"train on {FOLDS - 1} fifths of the training set, N times (3), and stop",
    )
    run.add_argument(
        "--output", type=Path, default=Path("japanese_vowels_output"), help="a folder"
    )
    flags = parser.parse_args(argv)
    names = [field.name for field in dataclasses.fields(Config)]
    return Config(**{name: getattr(flags, name) for name in names}), flags


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Trains, tests, reports; returns what `results.json` holds."""
    start = time.perf_counter()
    config, flags = parse(argv)
    if flags.cross_validate:
        return {"held_out": cross_validate(config, flags.seed, flags.cross_validate)}
    train, test = load()
    scale, members = measure(train), flags.ensemble or flags.seeds
    params, history = fit(config, stack([scale(train)] * members), flags.seed)
    tests = stack([scale(test)] * members)
    probabilities = predict(config, params, tests)
    guesses = probabilities.argmax(axis=-1)
    hits = guesses == test.labels

    flags.output.mkdir(parents=True, exist_ok=True)
    draw(flags.output / "japanese_vowels.png", test.labels, guesses, history)
    params, scale = save(flags.output / "checkpoint", params, scale)
    again = predict(config, params, stack([scale(test)] * members))
    if not np.array_equal(again, probabilities):
        raise RuntimeError("The weights read back do not give the same predictions.")

    results = {
        "config": dataclasses.asdict(config),
        "accuracies": hits.mean(axis=-1).tolist(),
        "final_losses": history[0][-1].tolist(),
    }
    for seed, accuracy in enumerate(results["accuracies"], flags.seed):
        print(f"Seed {seed:2}: test accuracy {accuracy:.2%}")
    print(f"Mean of {members}: {percent(hits)}")
    if flags.ensemble:
        averaged = probabilities.mean(axis=0).argmax(axis=-1) == test.labels
        results["ensemble"] = averaged.mean().item()
        print(f"Ensemble of {members}: {results['ensemble']:.2%}")
    (flags.output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print(f"{time.perf_counter() - start:.1f} s; see {flags.output}/")
    return results


if __name__ == "__main__":
    main()
