"""Learn to add two numbers that are thousands of steps apart.

In a sequence of 10,000 random numbers, two are marked, one in each half. A GRU reads
the numbers one by one and predicts the sum of the marked numbers. The gradient needs
all steps in between, and `swap_memory=True` limits the memory for the gradient. A table
compares the memory that a compiled training step needs with several strategies; these
steps are not run.

    pip install -e '.[examples]'
    python examples/long_memory.py                     # writes long_memory.png
    python examples/long_memory.py --strategy keep     # stores every step
    python examples/long_memory.py --strategy keep --steps 100000      # is rejected
    python examples/long_memory.py --updates 5 --steps 100000          # runs

On 2 cores, the first command takes about 2 minutes, and the last command takes 15
seconds. All sequences have the full length, and no batch is used twice, so each loss is
measured on new data. For several hundred updates, the loss equals the loss of a
constant guess; then it falls. The seed determines when the loss falls: with seeds 0 and
1 within 600 updates, with seed 2 within 1,000. With the usual bias of the update gate
(see `init`) and seed 0, the loss did not fall within 600 updates, even over only 5,000
steps.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flag_types import Count, Picture, Positive, Seed, number
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator
from tqdm import tqdm

import jaxrnn
from jaxrnn import memory

FEATURES = 2
CONSTANT_GUESS = 1 / 6
"""The mean squared error of always guessing 1: twice a number's variance, 1/12."""
STRATEGIES: dict[str, bool | memory.Strategy] = {
    "keep": False,
    "recompute": memory.Recompute(),
    "nested": memory.Nested(),
    "offload": True,  # The same as "recompute" on the CPU.
}
COMPARED = {"keep": "tab:red", "recompute": "tab:blue", "nested": "tab:green"}
LENGTHS = (100, 1_000, 10_000, 100_000)
AVERAGED = 20  # The loss of a single update is noisy.
Steps = Annotated[int, number(int, "an integer, at least 2", lambda n: n >= 2)]


@dataclasses.dataclass(frozen=True)
class Config:
    """The task, the net and its training; each field is a flag."""

    steps: Steps = 10_000
    """The length of a sequence."""
    updates: Count = 600
    """Updates of the parameters, each on a new batch."""
    batch: Count = 32
    """Sequences in a batch."""
    units: Count = 16
    """The size of the cell."""
    learning_rate: Positive = 0.02
    """Adam's initial learning rate."""
    strategy: Literal["keep", "recompute", "nested", "offload"] = "offload"
    """How states for the gradient are stored. "offload" is `swap_memory=True`; on the
    CPU, it is the same as "recompute"."""
    seed: Seed = 0
    """The seed of parameters and data."""


# The task


def adding_problem(key, batch, steps):
    """Inputs `[steps, batch, 2]`, and the sums `[batch]` of the two marked numbers.

    The first feature is uniform in [0, 1). The second feature is the mark: it is 1 at
    one step of each half, drawn uniformly, and otherwise 0.

    Source: Hochreiter and Schmidhuber, 1997; one mark per half as in arXiv:1511.06464.
    """
    number_key, first_key, second_key = jax.random.split(key, 3)
    numbers = jax.random.uniform(number_key, (steps, batch), jnp.float32)
    rows, half = jnp.arange(batch), steps // 2
    first = jax.random.randint(first_key, (batch,), 0, half)
    second = jax.random.randint(second_key, (batch,), half, steps)
    marks = jnp.zeros((steps, batch), jnp.float32)
    marks = marks.at[first, rows].set(1).at[second, rows].set(1)
    return jnp.stack([numbers, marks], axis=-1), jnp.sum(numbers * marks, axis=0)


def batch_of(config, n):
    """The batch of update n."""
    key = jax.random.fold_in(jax.random.key(config.seed), n)
    return adding_problem(key, config.batch, config.steps)


# The net


def init(config, key):
    """Initial parameters of the cell and of the head on its final state.

    The initial bias of the update gate makes units forget over 1 to T steps, where T is
    the number of steps. With the usual bias, all units forget within a few steps, and
    no gradient reaches earlier steps.

    Source: the chrono initialization of Tallec and Ollivier, arXiv:1804.11188.
    """
    cell_key, span_key, head_key = jax.random.split(key, 3)
    units = config.units
    one_step = jax.ShapeDtypeStruct((1, FEATURES), jnp.float32)
    cell = jaxrnn.GRUCell(units).init(cell_key, one_step, jnp.float32)
    spans = jax.random.uniform(span_key, (units,), minval=1, maxval=config.steps - 1)
    cell["gates"]["bias"] = jnp.concatenate([jnp.zeros(units), jnp.log(spans)])
    head = jax.random.normal(head_key, (units,)) / units**0.5
    return {"cell": cell, "head": {"kernel": head, "bias": jnp.ones(())}}


def compute_loss(params, config, inputs, sums):
    """The mean squared error of the predicted sums."""
    _, state = jaxrnn.dynamic_rnn(
        jaxrnn.GRUCell(config.units).bind(params["cell"]),
        inputs,
        dtype=jnp.float32,
        swap_memory=STRATEGIES[config.strategy],
        time_major=True,
    )
    guesses = state @ params["head"]["kernel"] + params["head"]["bias"]
    return jnp.mean((guesses - sums) ** 2)


# Training


def make_optimizer(config):
    """Adam with clipped gradients and a learning rate with cosine decay to zero."""
    rate = optax.cosine_decay_schedule(config.learning_rate, config.updates)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))


def start(config):
    """Initial parameters and optimizer state."""
    params = init(config, jax.random.key(config.seed))
    return params, make_optimizer(config).init(params)


def compile_update(config):
    """Compiles `(params, state, inputs, sums) -> (params, state, loss)`."""

    @jax.jit
    def update(params, state, inputs, sums):
        loss, gradient = jax.value_and_grad(compute_loss)(params, config, inputs, sums)
        updates, state = make_optimizer(config).update(gradient, state)
        return optax.apply_updates(params, updates), state, loss

    shapes = jax.eval_shape(lambda: (*start(config), *batch_of(config, 0)))
    return update.lower(*shapes).compile()


def fit(config, update):
    """Trains the net; returns its parameters and the loss of every update."""
    (params, state), losses = start(config), []
    next_batch = jax.jit(lambda n: batch_of(config, n))
    with tqdm(range(config.updates), unit="update") as bar:
        for n in bar:
            params, state, loss = update(params, state, *next_batch(n))
            losses.append(loss.item())
            bar.set_postfix(loss=f"{np.mean(losses[-AVERAGED:]):.4f}")
    return params, np.array(losses)


# Memory


def temporary_bytes(update):
    """The temporary memory of an update, in bytes, without arguments and results."""
    analysis = update.memory_analysis()
    if analysis is None:
        raise SystemExit(
            f"The backend {jax.default_backend()} does not report memory use."
        )
    return analysis.temp_size_in_bytes


def compare(config, lengths):
    """The temporary bytes of an update, by strategy and number of steps."""
    needed = {name: [] for name in COMPARED}
    pairs = [(name, steps) for steps in lengths for name in COMPARED]
    for name, steps in tqdm(pairs, desc="memory", unit="program"):
        other = dataclasses.replace(config, strategy=name, steps=steps)
        needed[name].append(temporary_bytes(compile_update(other)))
    return needed


def format_bytes(count):
    """A number of bytes to three digits, in a suitable unit: "1.44 GB", "25 MB"."""
    return EngFormatter("B")(float(f"{count:.3g}"))


def check_limit(config, needed, limit):
    """Refuses to train if an update would need more memory than the limit."""
    if needed > limit:
        keeps = config.strategy == "keep"
        other = "--strategy offload" if keeps else "a smaller --batch"
        raise SystemExit(
            f"--strategy {config.strategy} would need {format_bytes(needed)} for "
            f"{config.steps:,} steps, but --limit-gb allows {format_bytes(limit)}. "
            f"Try {other}."
        )


# The picture


def draw_memory(axes, lengths, needed):
    """Draws a line for each strategy, labeled at its end."""
    axes.set(xscale="log", yscale="log", xlabel="steps of a sequence")
    axes.set_title("Temporary memory of a training step,\nas compiled, by strategy")
    for name, line in needed.items():
        style = {"color": COMPARED[name]}
        axes.plot(lengths, line, marker="o", markersize=3.5, **style)
        text = f"  {name}: {format_bytes(line[-1])}"
        axes.annotate(text, (lengths[-1], line[-1]), va="center", **style)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter(EngFormatter("B"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_locator(NullLocator())


def draw_losses(axes, steps, losses):
    """Draws the losses, their running mean, and the loss of a constant guess."""
    updates = np.arange(1, len(losses) + 1)
    axes.plot(updates, losses, color="tab:blue", alpha=0.3, linewidth=0.8)
    window = min(AVERAGED, len(losses))
    mean = np.convolve(losses, np.full(window, 1 / window), mode="valid")
    axes.plot(updates[window // 2 :][: len(mean)], mean, color="tab:blue")
    axes.axhline(CONSTANT_GUESS, color="0.3", linestyle="--", linewidth=1)
    text, end = "always saying 1: 1/6\n", (len(losses), CONSTANT_GUESS)
    axes.annotate(text, end, ha="right", va="center", color="0.3")
    axes.set(yscale="log", xlabel="update")
    axes.set_title(
        f"Adding two numbers out of {steps:,}:\nmean squared error of each update"
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())


def draw(path, lengths, needed, steps, losses):
    """Saves a figure of the memory and the losses."""
    figure = Figure(figsize=(11, 4.4), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_memory(left, lengths, needed)
    draw_losses(right, steps, losses)
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


# The program


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
def main(
    config: Config, limit_gb: Positive = 0.5, figure: Picture = Path("long_memory.png")
):
    """Compares the memory of the strategies, trains the net, and draws.

    Args:
        config: The task, the net and its training.
        limit_gb: The limit in GB; a training step that needs more is rejected.
        figure: The file for the picture.
    """
    update = compile_update(config)
    check_limit(config, temporary_bytes(update), 1e9 * limit_gb)
    # The figure also shows other lengths, which are compiled but not run.
    lengths = sorted({*LENGTHS, config.steps})
    needed = compare(config, lengths)
    print(f"Temporary memory of an update over {config.steps:,} steps:")
    for name, line in needed.items():
        print(f"  {name:10}{format_bytes(line[lengths.index(config.steps)]):>8}")

    params, losses = fit(config, update)
    final = losses[-AVERAGED:].mean()
    print(f"Mean squared error {final:.4f}; always guessing 1: {CONSTANT_GUESS:.4f}.")
    draw(figure, lengths, needed, config.steps, losses)
    print(f"Wrote {figure}.")
    return {"losses": losses, "needed": needed, "params": params}


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
