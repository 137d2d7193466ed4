"""Train a bidirectional LSTM on one device, several devices, or several processes.

The losses are the same in all cases. The script saves checkpoints; after a kill, the
same command continues from the last checkpoint. Run it from the folder `examples`:

    pip install -e '..[examples]'
    python -m distributed.train
    JAX_NUM_CPU_DEVICES=4 python -m distributed.train --folder four --mesh explicit
    python -m distributed.train --folder two --processes 2 --process 0 &
    python -m distributed.train --folder two --processes 2 --process 1; wait

The net reads sequences window by window. The state of the forward direction is carried
from one window to the next, without a gradient, and reset at the first step of each
sequence. The backward direction starts at the end of the window.
"""

import contextlib
import dataclasses
import functools
import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from counts import check_counts
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from tqdm import tqdm

import jaxrnn

from . import checkpoints, datasets

SEED = 0  # Of the parameters, the dropout and the order of the records.
DROPOUT = 0.2  # The fraction of the outputs to drop.
# Adam divides a gradient by its size plus epsilon, so gradients that are only rounding
# errors have an effect unless epsilon is much larger.
EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class Config:
    """The task, the net and its training; each field is a flag."""

    data: datasets.Name = "vowels"
    """The dataset: Japanese Vowels, or 4096 sequences with a symbol to recall."""
    steps: int = 300
    """The number of training steps."""
    batch_size: int = 64
    """The rows per step, over all processes."""
    units: int = 32
    """The size of the cell of each direction."""
    learning_rate: float = 5e-3
    """Adam's learning rate."""
    mesh: Literal["auto", "explicit", "shard_map"] = "auto"
    """How the program is divided among devices: by the compiler, by the types of
    arrays, or by hand."""
    x64: bool = False
    """Compute in float64."""
    save_every: int = 20
    """The number of steps between checkpoints."""

    def __post_init__(self):
        check_counts(self, "steps", "batch_size", "units", "save_every")


class State(NamedTuple):
    """The state that a training step updates and a checkpoint holds."""

    params: Any
    optimizer: Any
    key: Any
    carry: Any  # The forward direction's state, [batch_size, units] each.


# The net


def init(config, dataset, key):
    """The state before the first step."""
    key, *keys = jax.random.split(key, 4)
    dtype = jnp.dtype(dataset.train.frames.dtype)
    cell = jaxrnn.LSTMCell(config.units)
    frame = jax.ShapeDtypeStruct((1, dataset.train.frames.shape[-1]), dtype)
    shape = (2 * config.units, dataset.classes)
    params = {
        "fw": cell.init(keys[0], frame, dtype),
        "bw": cell.init(keys[1], frame, dtype),
        "kernel": jax.nn.initializers.glorot_uniform()(keys[2], shape, dtype),
        "bias": jnp.zeros(dataset.classes, dtype),
    }
    carry = cell.zero_state(config.batch_size, dtype)
    return State(params, make_optimizer(config).init(params), key, carry)


def make_optimizer(config):
    """Adam with clipped gradients."""
    adam = optax.adam(config.learning_rate, eps=EPSILON)
    return optax.chain(optax.clip_by_global_norm(1.0), adam)


def compute_logits(params, carry, batch, drop=lambda x: x):
    """Logits `[rows, classes]` for a window, and the carry after it."""
    cell = jaxrnn.LSTMCell(params["fw"]["bias"].size // 4)
    outputs, (carry, _) = jaxrnn.bidirectional_dynamic_rnn(
        cell.bind(params["fw"]),
        cell.bind(params["bw"]),
        batch.frames,
        batch.lengths,
        initial_state_fw=carry,
        dtype=batch.frames.dtype,
        resets=batch.resets,
    )
    # Past a row's length, outputs are zeros, so padding does not change the mean.
    total = jnp.sum(drop(jnp.concatenate(outputs, axis=-1)), axis=1)
    mean = total / jnp.maximum(batch.lengths, 1)[:, None].astype(total.dtype)
    return mean @ params["kernel"] + params["bias"], carry


def drop_by_row(key, rows, rate, x):
    """Dropout with noise that depends only on the key and the row's number.

    The noise is therefore the same for any division of rows among devices.
    """
    draw = lambda row: jax.random.bernoulli(
        jax.random.fold_in(key, row), 1 - rate, x.shape[1:]
    )
    return jnp.where(jax.vmap(draw)(rows), x / (1 - rate), 0)


# Training


def compute_loss(params, config, carry, key, batch):
    """The mean cross-entropy of the sequences with frames, and the carry."""
    drop = functools.partial(drop_by_row, key, batch.rows, DROPOUT)
    logits, carry = compute_logits(params, carry, batch, drop)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
    is_valid = batch.lengths > 0
    total = jnp.sum(jnp.where(is_valid, losses, 0))
    count = jnp.sum(is_valid, dtype=losses.dtype)
    if config.mesh == "shard_map":  # The sums so far include one device's rows only.
        total, count = jax.lax.psum((total, count), "data")
    return total / jnp.maximum(count, 1), carry


def update(config, state, batch):
    """Runs one training step; returns the new state and the loss."""
    key, drop_key = jax.random.split(state.key)
    (loss, carry), gradient = jax.value_and_grad(compute_loss, has_aux=True)(
        state.params, config, state.carry, drop_key, batch
    )
    updates, optimizer = make_optimizer(config).update(gradient, state.optimizer)
    params = optax.apply_updates(state.params, updates)
    return State(params, optimizer, key, carry), loss


SPECS = State(params=P(), optimizer=P(), key=P(), carry=P("data"))
"""The sharding of the state: the carry is divided by rows, the rest is replicated."""


def make_functions(config, dataset, mesh):
    """`() -> state` and `(state, batch) -> (state, loss)`, compiled for the mesh."""
    shardings = State(*(NamedSharding(mesh, spec) for spec in SPECS))
    start = lambda: init(config, dataset, jax.random.key(SEED))
    step = functools.partial(update, config)
    if config.mesh == "shard_map":
        step = jax.shard_map(
            step, mesh=mesh, in_specs=(SPECS, P("data")), out_specs=(SPECS, P())
        )
    return (
        jax.jit(start, out_shardings=shardings),
        jax.jit(step, out_shardings=(shardings, None), donate_argnums=0),
    )


@contextlib.contextmanager
def open_log(path, steps):
    """A function that appends a line of JSON after the first `steps` lines.

    Later lines belong to steps that were not saved and run again, so they are cut off.
    Only process 0 writes.
    """
    if jax.process_index() != 0:
        yield lambda **entries: None
        return
    path.touch()
    with path.open("r+") as file:
        for _ in range(steps):
            file.readline()
        file.seek(file.tell())  # Buffered reads have moved the file's own position.
        file.truncate()
        yield lambda **entries: print(json.dumps(entries), file=file, flush=True)


def fit(config, dataset, folder):
    """Trains from the last checkpoint, if there is one; returns the parameters."""
    kind = AxisType.Explicit if config.mesh == "explicit" else AxisType.Auto
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(kind,))
    start, step = make_functions(config, dataset, mesh)
    process, processes = jax.process_index(), jax.process_count()
    iterator = datasets.batches(dataset, config.batch_size, SEED, process, processes)
    rows = NamedSharding(mesh, P("data"))
    place = functools.partial(jax.make_array_from_process_local_data, rows)
    saving = checkpoints.open_folder(folder / "checkpoints", config.save_every)
    with jax.set_mesh(mesh), saving as manager:
        done, state = checkpoints.restore(manager, start(), iterator)
        with open_log(folder / "losses.jsonl", done) as log:
            bar = tqdm(
                range(done, config.steps),
                initial=done,
                total=config.steps,
                disable=process != 0,
            )
            for n in bar:
                state, loss = step(state, jax.tree.map(place, next(iterator)))
                loss = loss.item()
                log(step=n, loss=loss)
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                checkpoints.save(manager, n + 1, state, iterator)
    return jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), state.params)


def test_accuracy(dataset, params):
    """The fraction of test records with a right prediction after their last window."""
    cell = jaxrnn.LSTMCell(params["fw"]["bias"].size // 4)
    carry = cell.zero_state(len(dataset.test.labels), dataset.test.frames.dtype)
    guesses = np.zeros_like(dataset.test.labels)
    windows = dataset.test.frames.shape[1] // dataset.window
    for batch in datasets.Windows(windows, first_row=0).flat_map(dataset.test):
        logits, carry = jax.jit(compute_logits)(params, carry, batch)
        guesses = np.where(batch.lengths > 0, logits.argmax(axis=-1), guesses)
    return np.mean(guesses == dataset.test.labels).item()


@tyro.conf.configure(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
def main(
    config: Config,
    folder: Path = Path("distributed_output"),
    processes: int = 1,
    process: int = 0,
    coordinator: str = "localhost:9876",
):
    """Starts or continues training, tests the net, and writes the parameters.

    Args:
        config: The task, the net and its training.
        folder: The folder for checkpoints, `losses.jsonl` and `parameters.npz`. A run
            in this folder is continued.
        processes: The number of processes that were started.
        process: The number of this process, from 0.
        coordinator: The address at which process 0 waits for the other processes.
    """
    if config.x64:
        jax.config.update("jax_enable_x64", True)
    if processes > 1:
        jax.distributed.initialize(
            coordinator, processes, process, heartbeat_timeout_seconds=10
        )
    if config.batch_size % (devices := jax.device_count()):
        must = f"divide the number of rows (--batch-size), {config.batch_size}"
        raise SystemExit(f"the number of devices must {must}, got {devices}.")
    folder.mkdir(parents=True, exist_ok=True)
    dataset = datasets.load(config.data, np.float64 if config.x64 else np.float32)
    params = fit(config, dataset, folder)
    if jax.process_index() == 0:
        paths = jax.tree_util.tree_leaves_with_path(params)
        name = functools.partial(jax.tree_util.keystr, simple=True, separator="/")
        np.savez(folder / "parameters.npz", **{name(path): x for path, x in paths})
        print(f"Test accuracy: {100 * test_accuracy(dataset, params):.2f} %")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
