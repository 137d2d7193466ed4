"""Train the net on the dictionary; after a kill, the same command continues.

Run it from the folder `examples`:

    pip install -e '..[examples]'
    python -m g2p.train
    python -m g2p.train --seed 1
    python -m g2p.train --quick

The script writes checkpoints, `log.jsonl`, `curve.png` and `model.npz` to a folder for
each seed. docs/tutorials/letters_to_sounds.md shows the results.
"""

import dataclasses
import functools
import json
import time
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import tyro
from matplotlib.figure import Figure
from tqdm import tqdm

from . import data, decoding, model, scores
from .model import Net


@dataclasses.dataclass(frozen=True)
class Config:
    """The net and its training; each field is a flag."""

    net: Annotated[Net, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Net)
    epochs: int = 24
    """The number of passes over the training words."""
    rows: int = 128
    """The number of words in a batch."""
    learning_rate: float = 1e-3
    """Adam's maximum learning rate, after a warmup of 5 % of the steps."""
    smoothing: float = 0.1
    """The fraction of each target that is spread over all phonemes and the end."""
    averaging: float = 0.999
    """The decay of the moving average of the parameters, which is saved as the net."""
    seed: int = 0
    """The seed of the parameters, the dropout and the order of the words."""
    save_every: int = 1000
    """The number of steps between checkpoints."""

    def __post_init__(self):
        model.check_counts(self, "epochs", "rows", "save_every")
        positive = lambda x: 0 < x < float("inf")
        model.check(self, "finite and above 0", positive, "learning_rate")
        share = lambda x: 0 <= x <= 1
        model.check(self, "from 0 to 1", share, "smoothing", "averaging")
        model.check(self, "from 0 to 2147483647", lambda n: 0 <= n < 2**31, "seed")


FULL = Config()
QUICK = Config(
    Net(units=80, layers=2, decoder_units=96, dropout=0.1),
    epochs=3,
    learning_rate=5e-3,
    averaging=0.99,
)


class State(NamedTuple):
    """The state that a training step updates and a checkpoint holds."""

    params: Any
    mean: Any  # The moving average of the parameters, used for pronouncing words.
    optimizer: Any


def make_optimizer(config, steps):
    """Adam with clipped gradients, learning rate warmup and cosine decay to zero."""
    rate = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, max(1, steps // 20), steps
    )
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))


def start(config, steps, params):
    """The state before the first step."""
    mean = jax.tree.map(jnp.copy, params)  # Shared buffers cannot be donated.
    return State(params, mean, make_optimizer(config, steps).init(params))


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def update(config, steps, state, batch, n):
    """Runs step n; returns the new state and the loss."""
    key = jax.random.fold_in(jax.random.key(config.seed), 1 + n)

    def compute_loss(params):
        logits = model.compute_logits(config.net, params, batch, key)
        return model.cross_entropy(logits, batch, config.smoothing)

    loss, gradient = jax.value_and_grad(compute_loss)(state.params)
    optimizer = make_optimizer(config, steps)
    updates, optimizer_state = optimizer.update(gradient, state.optimizer)
    params = optax.apply_updates(state.params, updates)
    # Keep less of the mean at first, because it starts at the initial parameters.
    kept = jnp.minimum(config.averaging, (1 + n) / (10 + n))
    mean = optax.incremental_update(params, state.mean, 1 - kept)
    return State(params, mean, optimizer_state), loss


def open_checkpoints(folder, every):
    """A checkpoint manager for `folder` that keeps the last two checkpoints."""
    options = ocp.CheckpointManagerOptions(save_interval_steps=every, max_to_keep=2)
    return ocp.CheckpointManager((folder / "checkpoints").resolve(), options=options)


def restore(manager, state):
    """The number of steps done, and the state, from the last complete checkpoint."""
    done = manager.latest_step()
    if done is None:
        return 0, state
    like = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
    return done, manager.restore(done, args=ocp.args.StandardRestore(like))


def claim(folder, config):
    """Writes the config to a folder; exits if the folder holds another training run."""
    config = {**dataclasses.asdict(config), "save_every": None}  # This may change.
    text, file = json.dumps(config), folder / "config.json"
    held = file.read_text() if file.exists() else None
    if held != text and (held or (folder / "checkpoints").exists()):
        fix = "pass the flags of that run, or another --folder"
        raise SystemExit(f"{folder} holds another training run; {fix}")
    file.write_text(text)


class Log:
    """The log of a run that can be killed and continued: a line of JSON per epoch.

    Args:
        path: The log file.
        done: The number of steps done. Entries of later steps are removed, because
            these steps run again.
    """

    def __init__(self, path, done):
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        whole = (line for line in lines if line.endswith("\n"))  # Drop a partial line.
        entries = [entry for entry in map(json.loads, whole) if entry["step"] <= done]
        path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        self.path, self.entries = path, entries
        # Do not count the time of steps that a kill lost.
        before = entries[-1]["seconds"] if entries else 0.0
        self.began = time.perf_counter() - before

    def add(self, **entry):
        """Adds an entry, with the seconds of the run so far."""
        entry["seconds"] = time.perf_counter() - self.began
        self.entries.append(entry)
        with open(self.path, "a") as file:
            print(json.dumps(entry), file=file)


def share_wrong(config, params, words):
    """The fraction of words that the net gets wrong with greedy search."""
    found = decoding.pronounce((config.net,), (params,), words)
    return scores.words_wrong(found, words).mean().item()


def fit(config, train, dev, folder):
    """Trains the net; returns the mean of its parameters and a log entry per epoch.

    The loss of an entry is the mean over the steps since the previous entry, or since
    the start of this run.

    Args:
        config: The net and its training.
        train: The training words.
        dev: The words that are pronounced after each epoch.
        folder: The folder for checkpoints and the log.
    """
    batches = data.Training(train, config.rows, config.seed)
    steps, losses = config.epochs * batches.per_epoch, []
    params = model.init(config.net, jax.random.key(config.seed))
    with open_checkpoints(folder, config.save_every) as manager:
        done, state = restore(manager, start(config, steps, params))
        log = Log(folder / "log.jsonl", done)
        bar = tqdm(range(done, steps), initial=done, total=steps, unit="step")
        for n in bar:
            state, loss = update(config, steps, state, batches[n], np.int32(n))
            losses.append(loss)
            if (n + 1) % batches.per_epoch == 0:
                mean = np.mean(jax.device_get(losses)).item()
                wrong, losses = share_wrong(config, state.mean, dev), []
                log.add(step=n + 1, loss=mean, dev=wrong)
                bar.set_postfix(loss=f"{mean:.3f}", wrong=f"{wrong:.1%}")
            if manager.should_save(n + 1) or n + 1 == steps:
                manager.save(n + 1, args=ocp.args.StandardSave(state), force=True)
    return state.mean, log.entries


def draw(path, entries):
    """Saves a figure of the log: the loss and the percentage of wrong words."""
    epochs = range(1, 1 + len(entries))
    figure = Figure(figsize=(9, 3.4), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(epochs, [entry["loss"] for entry in entries], color="tab:blue")
    left.set(xlabel="epoch", ylabel="loss of a phoneme", title="Training, with dropout")
    right.plot(epochs, [100 * entry["dev"] for entry in entries], color="tab:orange")
    right.set(xlabel="epoch", ylabel="words wrong, %", title="Words it never saw")
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
def main(
    config: Annotated[Config, tyro.conf.arg(name="")] = FULL,
    folder: Path | None = None,
    quick: bool = False,
):
    """Starts or continues training.

    Args:
        config: The net and its training.
        folder: The folder for checkpoints, `log.jsonl` and `model.npz`. A run in this
            folder is continued. By default `g2p_<seed>`, or `g2p_quick`.
        quick: Train a small net in a few minutes. Only `folder` may be set with it.
    """
    if quick and config != FULL:
        raise SystemExit("--quick sets the net and its training; drop the other flags")
    config = QUICK if quick else config
    folder = folder or Path("g2p_quick" if quick else f"g2p_{config.seed}")
    folder.mkdir(parents=True, exist_ok=True)
    claim(folder, config)
    train, dev, _ = data.split(data.load())
    mean, entries = fit(config, train, dev, folder)
    model.save(folder / "model.npz", config.net, mean)
    draw(folder / "curve.png", entries)
    print(f"Of {len(dev)} dev words, {entries[-1]['dev']:.2%} are wrong.")
    return entries


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
