"""Which recurrences can track a state over sequences longer than those in training?

Each task is a finite automaton: it reads random symbols, and the label of each step is
the state that the automaton is then in. Networks with different cells train on
sequences of 40 steps. Tested on 256 steps, some of them still name the state, and
others guess.

    pip install -e '.[examples]'
    python examples/state_tracking.py                      # writes state_tracking.png
    python examples/state_tracking.py --tasks parity --cells LSTM LRU --seeds 1

On two cores, the first command takes about XX minutes.
"""

import dataclasses
import functools
import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flag_types import Count, NonNegative, Picture, Positive, Seed
from matplotlib.figure import Figure
from tqdm import tqdm

import jaxrnn

HEADS = 4
TEST_SEQUENCES = 512
# The memories are small, 8 by 8 for each head: single steps are faster than chunks.
delta_net = functools.partial(jaxrnn.DeltaNetCell, num_heads=HEADS, chunk_size=1)
CELLS = {
    "LSTM": jaxrnn.LSTMCell,
    "sLSTM": functools.partial(jaxrnn.SLSTMCell, num_heads=HEADS),
    "mLSTM": functools.partial(jaxrnn.MLSTMCell, num_heads=HEADS),
    "minGRU": jaxrnn.MinGRUCell,
    "LRU": jaxrnn.LRUCell,
    "DeltaNet": delta_net,
    "DeltaNet±": functools.partial(delta_net, allow_neg_eigval=True),
}
"""The cells to compare, as functions of the number of units."""
CellName = Literal["LSTM", "sLSTM", "mLSTM", "minGRU", "LRU", "DeltaNet", "DeltaNet±"]
TaskName = Literal["parity", "cycle", "swaps", "S3"]


@dataclasses.dataclass(frozen=True)
class Config:
    """The networks and their training; each field is a flag."""

    layers: Count = 1
    """The number of layers."""
    units: Count = 32
    """The size of each cell, a multiple of 4."""
    steps: Count = 40
    """The length of the sequences in training."""
    test_steps: Count = 256
    """The length of the sequences in the test."""
    updates: Count = 1500
    """Updates of the parameters, each on a new batch."""
    batch: Count = 32
    """Sequences in a batch."""
    learning_rate: Positive = 0.01
    """Adam's highest learning rate."""
    noise: NonNegative = 0.5
    """The standard deviation of the noise added to the cells' outputs in training."""
    seeds: Count = 3
    """The number of networks for each cell and task, which are trained at once."""
    seed: Seed = 0
    """The first network's seed."""


# The tasks


def permutation_table(orders, moves):
    """The table of an automaton that rearranges objects, from one order to another."""
    after = lambda order, move: tuple(order[place] for place in move)
    return [[orders.index(after(order, move)) for move in moves] for order in orders]


ORDERS = list(itertools.permutations(range(3)))
SWAPS = [move for move in ORDERS if any(np.equal(move, range(3)))]  # And the identity.
TASKS = {
    "parity": np.array([[0, 1], [1, 0]]),
    "cycle": np.array([[n, (n + 1) % 5, (n - 1) % 5] for n in range(5)]),
    "swaps": np.array(permutation_table(ORDERS, SWAPS)),
    "S3": np.array(permutation_table(ORDERS, ORDERS)),
}
"""The new state `table[state, symbol]` of each task's automaton."""


def draw(key, task, sequences, steps):
    """Random symbols and the states after them, each `[steps, sequences]`."""
    table = jnp.asarray(TASKS[task])
    symbols = jax.random.randint(key, (steps, sequences), 0, table.shape[1])

    def move(state, symbol):
        state = table[state, symbol]
        return state, state

    _, states = jax.lax.scan(move, jnp.zeros(sequences, jnp.int32), symbols)
    return symbols, states


# The network


def init(config, cell, task, key):
    """Initial parameters for the symbols and states of a task."""
    states, symbols = TASKS[task].shape
    units = config.units
    one_step = jax.ShapeDtypeStruct((1, units), jnp.float32)
    embed_key, head_key, *keys = jax.random.split(key, 2 + config.layers)
    matrix = jax.nn.initializers.lecun_normal()

    def init_layer(key):
        cell_key, up_key, down_key = jax.random.split(key, 3)
        up = matrix(up_key, (units, 2 * units))
        down = matrix(down_key, (2 * units, units))
        return {"cell": cell.init(cell_key, one_step), "up": up, "down": down}

    return {
        # The last row is the start symbol.
        "embedding": jax.random.normal(embed_key, (symbols + 1, units)),
        "layers": [init_layer(key) for key in keys],
        "head": matrix(head_key, (units, states)),
    }


def rms_norm(x):
    """Divides vectors by the root mean square of their elements."""
    return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6)


def compute_logits(params, cell, symbols, noise=0.0, key=None):
    """Logits `[steps, sequences, states]`; with noise if there is a key."""
    start = jnp.full_like(symbols[:1], len(params["embedding"]) - 1)
    x = params["embedding"][jnp.concatenate([start, symbols])]
    for n, layer in enumerate(params["layers"]):
        bound = cell.bind(layer["cell"])
        y, _ = jaxrnn.dynamic_rnn(bound, rms_norm(x), dtype=x.dtype, time_major=True)
        if key is not None:
            y += noise * jax.random.normal(jax.random.fold_in(key, n), y.shape)
        x += y
        x += jax.nn.gelu(rms_norm(x) @ layer["up"]) @ layer["down"]
    return rms_norm(x[1:]) @ params["head"]


# Training


def make_optimizer(config):
    """Adam with clipped gradients; its rate rises at first, then decays to zero."""
    warm_up = config.updates // 20
    rate = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, warm_up, config.updates
    )
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))


def train_and_test(config, cell_name, task, key):
    """Trains one network; returns losses `[updates]` and accuracies `[test_steps]`."""
    cell = CELLS[cell_name](config.units)
    optimizer = make_optimizer(config)
    init_key, train_key, test_key = jax.random.split(key, 3)

    def compute_loss(params, key):
        data_key, noise_key = jax.random.split(key)
        symbols, states = draw(data_key, task, config.batch, config.steps)
        logits = compute_logits(params, cell, symbols, config.noise, noise_key)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, states)
        return jnp.mean(losses)

    def update(training, key):
        params, state = training
        loss, gradient = jax.value_and_grad(compute_loss)(params, key)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, updates), state), loss

    params = init(config, cell, task, init_key)
    keys = jax.random.split(train_key, config.updates)
    training = params, optimizer.init(params)
    (params, _), losses = jax.lax.scan(update, training, keys)

    symbols, states = draw(test_key, task, TEST_SEQUENCES, config.test_steps)
    guesses = jnp.argmax(compute_logits(params, cell, symbols), axis=-1)
    return losses, jnp.mean(guesses == states, axis=1)


def compare(config, cells, tasks, jobs):
    """Accuracies `[seeds, test_steps]` by cell and task."""
    keys = jax.vmap(jax.random.key)(config.seed + jnp.arange(config.seeds))

    def run(pair):
        train = jax.jit(jax.vmap(functools.partial(train_and_test, config, *pair)))
        losses, accuracies = jax.device_get(train(keys))
        return losses, accuracies

    pairs = list(itertools.product(cells, tasks))
    found = {}
    with ThreadPoolExecutor(jobs) as pool, tqdm(total=len(pairs)) as bar:
        for pair, (losses, accuracies) in zip(pairs, pool.map(run, pairs), strict=True):
            found[pair] = accuracies
            last = losses[:, -20:].mean()
            text = f"{pair[0]}, {pair[1]}: loss {last:.3f}, accuracies at step "
            text += f"{config.steps} {accuracies[:, config.steps - 1].round(2)}, "
            text += f"{config.test_steps} {accuracies[:, -1].round(2)}"
            bar.write(text)
            bar.update()
    return found


# The results


def print_table(config, cells, tasks, found):
    """Prints the accuracies at the last step, the mean and the best of the seeds."""
    print(f"Accuracy at step {config.test_steps}: mean (best) of {config.seeds} seeds")
    print(f"{'':10}", *(f"{task:>14}" for task in tasks))
    for cell in cells:
        last = [found[cell, task][:, -1] for task in tasks]
        each = [f"{hits.mean():.2f} ({hits.max():.2f})" for hits in last]
        print(f"{cell:10}", *(f"{text:>14}" for text in each))
    chances = [f"{1 / len(TASKS[task]):.2f}" for task in tasks]
    print(f"{'guessing':10}", *(f"{chance:>14}" for chance in chances))


def draw_curves(path, config, cells, tasks, found):
    """Saves a figure: the mean accuracy at each step, a panel for each task."""
    figure = Figure(figsize=(3 * len(tasks) + 1, 3.2), dpi=150, layout="constrained")
    row = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    steps = np.arange(1, config.test_steps + 1)
    for axes, task in zip(row, tasks, strict=True):
        for cell in cells:
            axes.plot(steps, found[cell, task].mean(axis=0), label=cell, linewidth=1.2)
        axes.axvline(config.steps, color="0.6", linestyle="--", linewidth=1)
        axes.axhline(1 / len(TASKS[task]), color="0.6", linestyle=":", linewidth=1)
        axes.set(title=task, xlabel="step", ylim=(0, 1.03))
        axes.spines[["top", "right"]].set_visible(False)
    row[0].set_ylabel("accuracy, mean of the seeds")
    figure.legend(*row[0].get_legend_handles_labels(), loc="outside right center")
    figure.savefig(path)


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
def main(
    config: Config,
    cells: tuple[CellName, ...] = tuple(CELLS),
    tasks: tuple[TaskName, ...] = tuple(TASKS),
    jobs: Count = 2,
    figure: Picture = Path("state_tracking.png"),
):
    """Trains and tests all cells on all tasks; returns accuracies by cell and task.

    Args:
        config: The networks and their training.
        cells: The cells to compare.
        tasks: The tasks.
        jobs: Pairs of a cell and a task that run at the same time.
        figure: The file for the picture.
    """
    found = compare(config, cells, tasks, jobs)
    print_table(config, cells, tasks, found)
    draw_curves(figure, config, cells, tasks, found)
    print(f"Wrote {figure}.")
    return found


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
