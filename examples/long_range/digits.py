"""Classify digits from sequences of 8192 steps: an LRU and an LSTM in equal time.

A net reads the 64 pixels of a picture one after the other, each for 128 steps, and
classifies the digit after the last step. The LRU is trained for a fixed number of
updates, then the LSTM for the same time. Run it from the folder `examples`:

    pip install -e '..[examples]'
    python -m long_range.digits                        # writes long_range.png
    python -m long_range.digits --hold 1               # 64 steps

README.md shows the results.
"""

import dataclasses
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from counts import check_counts
from jax.nn.initializers import glorot_uniform
from matplotlib.figure import Figure
from tqdm import tqdm

import jaxrnn
from jaxrnn import initializers

FILE = Path(__file__).parents[1] / "data" / "digits.npz"
DIGITS, SIDE, DARKEST = 10, 8, 16
PIXELS = SIDE * SIDE
HELD_OUT = 500  # The number of test pictures, the last ones in the file.
EVALUATED = 50  # The number of pictures that are tested at once.
POINTS = 10  # The number of tests during training.
COLORS = {"LRU": "tab:blue", "LSTM": "tab:red"}
PICTURE = "long_range.png"


@dataclasses.dataclass(frozen=True)
class Config:
    """The task, the nets and their training; each field is a flag."""

    hold: int = 128
    """The number of steps for each of the 64 pixels."""
    updates: int = 300
    """The number of updates of the LRU."""
    batch: int = 16
    """Pictures in a batch."""
    units: int = 64
    """The size of the cells."""
    learning_rate: float = 0.01
    """Adam's initial learning rate, with cosine decay to zero."""
    chrono: bool = True
    """Whether the LSTM has biases for long sequences instead of the usual ones."""
    seed: int = 0
    """The seed of the parameters and the order of the pictures."""

    def __post_init__(self):
        check_counts(self, "hold", "updates", "batch", "units")

    @property
    def steps(self):
        """The length of a sequence."""
        return PIXELS * self.hold


# The task


class Pictures(NamedTuple):
    """Pixels `[pictures, 64]`, row by row, float32, and the digits, int32."""

    pixels: Any
    labels: Any

    def take(self, rows):
        """The pictures in the given rows."""
        return Pictures(self.pixels[rows], self.labels[rows])


def load():
    """The training pictures and the 500 test pictures."""
    with np.load(FILE) as file:
        pixels = file["images"].reshape(-1, PIXELS).astype(np.float32) / DARKEST
        labels = file["labels"].astype(np.int32)
    everything = Pictures(pixels - pixels[:-HELD_OUT].mean(), labels)
    return everything.take(slice(-HELD_OUT)), everything.take(slice(-HELD_OUT, None))


def as_sequences(config, pixels):
    """The inputs of a net, `[steps, batch, 1]`."""
    return jnp.repeat(pixels.T, config.hold, axis=0)[..., None]


# The nets


def make_cell(config, name):
    """The cell, with an initial memory that suits the sequence length.

    The LRU's states forget over 3 to 100 pixels, and rotate at most twice per row of
    the picture. With `chrono`, the LSTM's gates have initial biases for dependencies of
    all lengths, arXiv:1804.11188.
    """
    if name == "LRU":
        return jaxrnn.LRUCell(
            config.units,
            min_radius=math.exp(-1 / (3 * config.hold)),
            max_radius=math.exp(-1 / (100 * config.hold)),
            max_phase=2 * math.tau / (SIDE * config.hold),
        )
    if not config.chrono:
        return jaxrnn.LSTMCell(config.units)
    kernel, bias = glorot_uniform(), initializers.chrono(config.steps)
    initializer = initializers.by_part(kernel, kernel, bias)
    return jaxrnn.LSTMCell(config.units, forget_bias=0, initializer=initializer)


def init_dense(key, depth, units):
    """Initial parameters of an affine layer."""
    kernel = jax.random.normal(key, (depth, units)) / depth**0.5
    return {"kernel": kernel, "bias": jnp.zeros(units)}


def init(config, cell, key):
    """Initial parameters of a net."""
    keys, units = jax.random.split(key, 4), config.units
    encoded = jax.ShapeDtypeStruct((1, units), jnp.float32)
    return {
        "encoder": init_dense(keys[0], 1, units),
        "cell": cell.init(keys[1], encoded),
        "gated": init_dense(keys[2], units, 2 * units),
        "head": init_dense(keys[3], units, DIGITS),
    }


def dense(params, inputs):
    """Applies an affine layer."""
    return inputs @ params["kernel"] + params["bias"]


def compute_logits(params, cell, inputs):
    """Logits `[batch, 10]` from the last step of one residual block."""
    x = dense(params["encoder"], inputs)
    bound = cell.bind(params["cell"])
    outputs, _ = jaxrnn.dynamic_rnn(bound, x, dtype=jnp.float32, time_major=True)
    read = jax.nn.gelu(jax.nn.standardize(outputs[-1]))
    gated = jax.nn.glu(dense(params["gated"], read))
    return dense(params["head"], x[-1] + gated)


# Training


def fit(config, name, train, test, share_spent):
    """Trains a net until `share_spent(updates, seconds)` is 1.

    Returns:
        The curve, with `(seconds, accuracy)` for each test, and the number of updates.
        Seconds include only updates, not compilation and tests.
    """
    cell, key = make_cell(config, name), jax.random.key(config.seed)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam())
    params = init(config, cell, key)
    state, (train, test) = optimizer.init(params), jax.device_put((train, test))
    parts = [test.take(slice(i, i + EVALUATED)) for i in range(0, HELD_OUT, EVALUATED)]

    def compute_loss(params, batch):
        logits = compute_logits(params, cell, as_sequences(config, batch.pixels))
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels
        return jnp.mean(cross_entropy(logits, batch.labels))

    @jax.jit
    def update(params, state, n, rate):
        rows = jax.random.fold_in(key, n)
        rows = jax.random.randint(rows, (config.batch,), 0, len(train.labels))
        loss, gradient = jax.value_and_grad(compute_loss)(params, train.take(rows))
        updates, state = optimizer.update(gradient, state)
        return jax.tree.map(lambda p, u: p - rate * u, params, updates), state, loss

    @jax.jit
    def count_right(params, part):
        logits = compute_logits(params, cell, as_sequences(config, part.pixels))
        return jnp.sum(jnp.argmax(logits, axis=-1) == part.labels)

    def accuracy(params):
        return sum(count_right(params, part).item() for part in parts) / HELD_OUT

    compiled = update.lower(params, state, 0, 0.0).compile()
    curve, n, seconds, spent = [(0.0, accuracy(params))], 0, 0.0, 0.0
    layout = "{desc}: {percentage:3.0f}% |{bar}| {elapsed}{postfix}"
    with tqdm(total=1.0, desc=f"{name:4}", bar_format=layout) as bar:
        while spent < 1:
            start = time.perf_counter()
            rate = config.learning_rate * (1 + math.cos(math.pi * spent)) / 2
            params, state, loss = compiled(params, state, n, rate)
            loss = loss.item()
            n, seconds = n + 1, seconds + time.perf_counter() - start
            spent = min(1.0, share_spent(n, seconds))
            if spent >= len(curve) / POINTS:
                curve.append((seconds, accuracy(params)))
            bar.set_postfix(updates=n, loss=f"{loss:.3f}", right=f"{curve[-1][1]:.1%}")
            bar.update(spent - bar.n)
    return np.array(curve), n


# The picture


def draw_task(axes, config, picture):
    """Draws a picture, and the sequence that represents it."""
    pixels, label = picture
    steps = np.arange(config.steps)
    axes.fill_between(steps, np.repeat(pixels - pixels.min(), config.hold), color="0.3")
    axes.set(xlabel="step", ylabel="darkness", xlim=(0, config.steps), ylim=(0, 1.9))
    axes.set_yticks([0, 1])
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_title(f"A {label}, read as {config.steps:,} steps")
    inset = axes.inset_axes((0.36, 0.58, 0.28, 0.4))
    inset.imshow(pixels.reshape(SIDE, SIDE), cmap="gray_r")
    inset.set(xticks=[], yticks=[])


def draw_curves(axes, curves):
    """Draws the test accuracy of each net over its training time."""
    for name, curve in curves.items():
        seconds, right = curve.T
        style = {"color": COLORS[name]}
        axes.plot(seconds, 100 * right, marker="o", markersize=3.5, **style)
        text = f"  {name}: {right[-1]:.1%}"
        axes.annotate(text, (seconds[-1], 100 * right[-1]), va="center", **style)
    axes.axhline(100 / DIGITS, color="0.3", linestyle="--", linewidth=1)
    axes.set(xlabel="seconds of training", ylabel="right, %", ylim=(0, 100))
    axes.set_title(f"{HELD_OUT} pictures that the nets never saw")


def draw(config, picture, curves):
    """Saves a figure of the task and the curves."""
    figure = Figure(figsize=(11, 4), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_task(left, config, picture)
    draw_curves(right, curves)
    right.grid(alpha=0.25)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(PICTURE)


# The program


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
def main(config: Config):
    """Trains both nets, and draws their test accuracies.

    Args:
        config: The task, the nets and their training.
    """
    train, test = load()
    curves, updates = {}, {}
    share_spent = lambda n, seconds: n / config.updates
    for name in COLORS:
        curves[name], updates[name] = fit(config, name, train, test, share_spent)
        seconds, right = curves[name][-1]
        print(
            f"{name}: {updates[name]} updates in {seconds:.0f} s; of {HELD_OUT} test "
            f"pictures, {right:.1%} are right."
        )
        budget = curves["LRU"][-1][0]
        share_spent = lambda n, seconds, budget=budget: seconds / budget
    draw(config, (test.pixels[3], test.labels[3]), curves)
    print(f"Wrote {PICTURE}.")
    return {"curves": curves, "updates": updates}


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
