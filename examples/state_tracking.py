"""Which recurrences can track a state over sequences longer than those in training?

Each task is a finite automaton, which reads random symbols. The label of each step is
the state that the automaton reaches. Networks with different cells train on sequences
of 40 steps. On test sequences of 256 steps, some networks still predict the state, and
others guess. All tasks and seeds of a cell train at the same time, with `jax.vmap`.

    pip install -e '.[examples]'
    python examples/state_tracking.py                      # writes state_tracking.png
    python examples/state_tracking.py --tasks parity --networks LSTM LRU

The first command needs about 13 minutes of processor time, divided among the cores.
"""

import dataclasses
import functools
import itertools
import os
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from counts import check_counts
from matplotlib.figure import Figure
from tqdm import tqdm

import jaxrnn

NetworkName = Literal[
    "LSTM",
    "sLSTM",
    "mLSTM",
    "minGRU",
    "LRU",
    "DeltaNet",
    "DeltaNet-neg",
    "DeltaNet-neg-2",
]
TaskName = Literal["parity", "cycle", "swaps", "S3"]
TEST_SEQUENCES = 512
UNITS, HEADS = 32, 4
PICTURE = "state_tracking.png"


class Network(NamedTuple):
    """The cell of each layer, and how the network is trained."""

    cell: jaxrnn.RNNCell
    layers: int = 1
    noise: float = 0.5
    """The standard deviation of the noise added to the cells' outputs in training."""


def delta_net(largest):
    """A DeltaNet whose rate beta is at most `largest`."""
    size = UNITS // HEADS

    def init(key, inputs, dtype):
        shape = inputs.shape[-1], 3 * UNITS + HEADS
        return {"kernel": jax.nn.initializers.glorot_uniform()(key, shape, dtype)}

    def step(params, x, state, key=None):
        *qkv, beta = jnp.split(x @ params["kernel"], [UNITS, 2 * UNITS, 3 * UNITS], -1)
        q, k, v = (jax.nn.silu(y).reshape(-1, HEADS, size) for y in qkv)
        q, k = (y / jnp.linalg.norm(y + 1e-6, axis=-1, keepdims=True) for y in (q, k))
        beta = largest * jax.nn.sigmoid(beta)
        inputs = jaxrnn.DeltaInputs(q, k, v, jnp.zeros_like(beta), beta)
        h, state = memory.apply({}, inputs, state)
        return rms_norm(h).reshape(-1, UNITS), state

    memory = jaxrnn.DeltaMemoryCell(HEADS, size, size)
    return jaxrnn.FunctionCell(step, memory.state_size, UNITS, init)


# The memories are small (8 by 8 for each head), so a loop over steps is faster than
# chunks of steps.
NETWORKS: dict[NetworkName, Network] = {
    # Noise delays or prevents the learning of the nonlinear recurrences.
    "LSTM": Network(jaxrnn.LSTMCell(UNITS), noise=0),
    "sLSTM": Network(jaxrnn.SLSTMCell(UNITS, HEADS), noise=0),
    "mLSTM": Network(jaxrnn.MLSTMCell(UNITS, HEADS, chunk_size=1)),
    "minGRU": Network(jaxrnn.MinGRUCell(UNITS)),
    "LRU": Network(jaxrnn.LRUCell(UNITS)),
    "DeltaNet": Network(delta_net(1)),
    "DeltaNet-neg": Network(delta_net(2)),
    "DeltaNet-neg-2": Network(delta_net(2), layers=2),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """The networks and their training; each field is a flag."""

    steps: int = 40
    """The length of the sequences in training."""
    test_steps: int = 256
    """The length of the sequences in the test."""
    updates: int = 1000
    """Updates of the parameters, each on a new batch."""
    batch: int = 32
    """Sequences in a batch."""
    learning_rate: float = 0.01
    """Adam's highest learning rate."""
    seeds: int = 3
    """The number of networks of each kind for each task."""
    seed: int = 0
    """The first network's seed."""

    def __post_init__(self):
        check_counts(self, "steps", "test_steps", "updates", "batch", "seeds")


# The tasks


def permutation_table(moves):
    """The table of an automaton that rearranges three objects, from order to order."""
    after = lambda order, move: tuple(order[place] for place in move)
    return [[ORDERS.index(after(order, move)) for move in moves] for order in ORDERS]


ORDERS = list(itertools.permutations(range(3)))
# The swaps of two objects, and the identity.
SWAPS = [move for move in ORDERS if any(np.equal(move, range(3)))]
TASKS: dict[TaskName, list[list[int]]] = {
    "parity": [[0, 1], [1, 0]],
    "cycle": [[n, (n + 1) % 5, (n - 1) % 5] for n in range(5)],
    "swaps": permutation_table(SWAPS),
    "S3": permutation_table(ORDERS),
}
"""The new state `table[state][symbol]` of each task's automaton, which starts at 0."""
STATES = SYMBOLS = 6  # The largest numbers, so that all tables have one shape.


class Automaton(NamedTuple):
    """A task's padded table `[STATES, SYMBOLS]`, and the number of its symbols."""

    table: jax.Array | np.ndarray
    symbols: jax.Array | int


def make_automaton(task):
    """The automaton of a task."""
    table = np.array(TASKS[task])
    states, symbols = table.shape
    padding = [(0, STATES - states), (0, SYMBOLS - symbols)]
    return Automaton(np.pad(table, padding), symbols)


def draw(key, automaton, sequences, steps):
    """Random symbols and the states after them, each `[steps, sequences]`."""
    symbols = jax.random.randint(key, (steps, sequences), 0, automaton.symbols)
    table = jnp.asarray(automaton.table)

    def move(state, symbol):
        state = table[state, symbol]
        return state, state

    _, states = jax.lax.scan(move, jnp.zeros(sequences, table.dtype), symbols)
    return symbols, states


# The network


def init(network, key):
    """Initial parameters of a network."""
    one_step = jax.ShapeDtypeStruct((1, UNITS), jnp.float32)
    matrix = jax.nn.initializers.lecun_normal()

    def init_layer(key):
        cell_key, up_key, down_key = jax.random.split(key, 3)
        up = matrix(up_key, (UNITS, 2 * UNITS))
        down = matrix(down_key, (2 * UNITS, UNITS))
        return {"up": up, "down": down, "cell": network.cell.init(cell_key, one_step)}

    embed_key, head_key, *keys = jax.random.split(key, 2 + network.layers)
    return {
        # The last row is the start symbol.
        "embedding": jax.random.normal(embed_key, (SYMBOLS + 1, UNITS)),
        "layers": [init_layer(key) for key in keys],
        "head": matrix(head_key, (UNITS, STATES)),
    }


def rms_norm(x):
    """Divides vectors by the root mean square of their elements."""
    return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6)


def compute_logits(network, params, symbols, key=None):
    """Logits `[steps, sequences, states]`; with noise if there is a key."""
    start = jnp.full_like(symbols[:1], SYMBOLS)
    x = params["embedding"][jnp.concatenate([start, symbols])]
    for n, layer in enumerate(params["layers"]):
        x += jax.nn.gelu(rms_norm(x) @ layer["up"]) @ layer["down"]
        bound, inputs = network.cell.bind(layer["cell"]), rms_norm(x)
        y, _ = jaxrnn.dynamic_rnn(bound, inputs, dtype=x.dtype, time_major=True)
        if key is not None:
            y += network.noise * jax.random.normal(jax.random.fold_in(key, n), y.shape)
        x += y
    return rms_norm(x[1:]) @ params["head"]


# Training


def make_optimizer(config):
    """Adam with clipped gradients; its rate rises at first, then decays to zero."""
    warm_up = config.updates // 20
    rate = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, warm_up, config.updates
    )
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))


def train_and_test(config, network, automaton, key):
    """Trains one network; returns losses `[updates]` and accuracies `[test_steps]`."""
    optimizer = make_optimizer(config)
    init_key, train_key, test_key = jax.random.split(key, 3)

    def compute_loss(params, key):
        data_key, noise_key = jax.random.split(key)
        symbols, states = draw(data_key, automaton, config.batch, config.steps)
        logits = compute_logits(network, params, symbols, noise_key)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, states)
        return jnp.mean(losses)

    def update(training, key):
        params, state = training
        loss, gradient = jax.value_and_grad(compute_loss)(params, key)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, updates), state), loss

    params = init(network, init_key)
    keys = jax.random.split(train_key, config.updates)
    (params, _), losses = jax.lax.scan(update, (params, optimizer.init(params)), keys)

    symbols, states = draw(test_key, automaton, TEST_SEQUENCES, config.test_steps)
    guesses = jnp.argmax(compute_logits(network, params, symbols), axis=-1)
    return losses, jnp.mean(guesses == states, axis=1)


def compare(config, networks, tasks):
    """Accuracies `[tasks, seeds, test_steps]` of each network."""
    automata = jax.tree.map(lambda *a: np.stack(a), *map(make_automaton, tasks))
    keys = jax.vmap(jax.random.key)(config.seed + jnp.arange(config.seeds))
    running, found = {}, {}
    devices = itertools.cycle(jax.local_devices())
    for name, device in zip(tqdm(networks, "compiling"), devices, strict=False):
        train = functools.partial(train_and_test, config, NETWORKS[name])
        of_seeds = jax.vmap(train, in_axes=(None, 0))
        of_tasks = jax.vmap(of_seeds, in_axes=(0, None))
        # The call returns at once, so the program runs while the next is compiled.
        running[name] = jax.jit(of_tasks)(*jax.device_put((automata, keys), device))
    for name in tqdm(networks, "training"):
        losses, found[name] = jax.device_get(running[name])
        last = losses[..., -20:].mean(axis=(1, 2))
        each = [f"{task} {loss:.3f}" for task, loss in zip(tasks, last, strict=True)]
        tqdm.write(f"{name}: final losses: {', '.join(each)}")
    return found


# The results


def print_table(config, tasks, found):
    """Prints the accuracies at the last step, the mean and the best of the seeds."""
    print(f"Accuracy at step {config.test_steps}: mean (best) of {config.seeds} seeds")
    print(f"{'':15}", *(f"{task:>12}" for task in tasks))
    for name, accuracies in found.items():
        last = [f"{hits.mean():.2f} ({hits.max():.2f})" for hits in accuracies[..., -1]]
        print(f"{name:15}", *(f"{text:>12}" for text in last))
    guesses = [f"{1 / len(TASKS[task]):.2f}" for task in tasks]
    print(f"{'guessing':15}", *(f"{text:>12}" for text in guesses))


def draw_curves(config, tasks, found):
    """Saves a figure: the mean accuracy at each step, one panel for each task."""
    figure = Figure(figsize=(2.7 * len(tasks) + 1.6, 3), dpi=150, layout="constrained")
    row = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    steps = np.arange(1, config.test_steps + 1)
    for n, (axes, task) in enumerate(zip(row, tasks, strict=True)):
        for name, accuracies in found.items():
            axes.plot(steps, accuracies[n].mean(axis=0), label=name, linewidth=1.2)
        axes.axvline(config.steps, color="0.6", linestyle="--", linewidth=1)
        axes.axhline(1 / len(TASKS[task]), color="0.6", linestyle=":", linewidth=1)
        axes.set(title=task, xlabel="step", ylim=(0, 1.03))
        axes.spines[["top", "right"]].set_visible(False)
    row[0].set_ylabel("accuracy, mean of the seeds")
    figure.legend(*row[0].get_legend_handles_labels(), loc="outside right center")
    figure.savefig(PICTURE)


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
def main(
    config: Config,
    networks: tuple[NetworkName, ...] = tuple(NETWORKS),
    tasks: tuple[TaskName, ...] = tuple(TASKS),
):
    """Trains and tests networks on tasks; returns their accuracies.

    Args:
        config: The networks and their training.
        networks: The networks to compare.
        tasks: The tasks.
    """
    found = compare(config, networks, tasks)
    print_table(config, tasks, found)
    draw_curves(config, tasks, found)
    print(f"Wrote {PICTURE}.")
    return found


if __name__ == "__main__":
    # A device runs one program at a time, so each core is a device.
    jax.config.update("jax_num_cpu_devices", os.cpu_count())
    tyro.cli(main, description=__doc__)
