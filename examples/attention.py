"""Convert written dates to ISO dates with attention, and draw the attention weights.

A decoder writes "2026-11-20" for "Friday, 20 November 2026" or for "11/20/2026". The
decoder's initial state is zeros, so all information about the input comes from
attention. A `TensorArray` in the loop state of `raw_rnn` collects the weights.

    pip install -e '.[examples]'
    python examples/attention.py                   # writes attention.png
"""

import datetime
import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flag_types import Count, Picture
from matplotlib.figure import Figure
from tqdm import tqdm

import jaxrnn

BATCH, HELD_OUT, LEARNING_RATE = 64, 2000, 0.005
EMBEDDING, UNITS = 32, 64
ENCODER = jaxrnn.GRUCell(UNITS // 2)  # `UNITS` for both directions.
DECODER = jaxrnn.GRUCell(UNITS)

# The data

PADDING, START = 0, 1
CHARACTERS = "\n>" + "".join(map(chr, range(ord(" "), ord("z") + 1)))
LONGEST, ISO = 28, 10
"""The lengths of "Wednesday, 20 September 2026" and of "2026-09-20"."""

FORMATS = (
    "{date:%A}, {date.day} {date:%B} {date.year}",
    "{date:%a}, {date:%b} {date.day}, {date.year}",
    "the {date.day}{ordinal} of {date:%B} {date.year}",
    "{date:%B} {date.day}, {date.year}",
    "{date.day} {date:%b} {date.year}",
    "{date.day}.{date.month}.{date.year}",
    "{date.month}/{date.day}/{date.year}",
)
FIRST = datetime.date(1950, 1, 1)
DAYS = 36_525  # A hundred years.
DRAWN = {
    datetime.date(2026, 11, 20): FORMATS[0],
    datetime.date(1987, 3, 3): FORMATS[2],
    datetime.date(2004, 12, 9): FORMATS[1],
    datetime.date(1976, 7, 14): FORMATS[6],
}


class Dates(NamedTuple):
    """Rows of character ids."""

    written: Any  # [batch, 28], with padding at the end
    lengths: Any  # [batch], the lengths of the written dates
    iso: Any  # [batch, 10]

    def take(self, rows):
        """The dates in the given rows."""
        return Dates(*(field[rows] for field in self))


def write(date, form):
    """The date as text in one of the `FORMATS`."""
    teens = 10 < date.day < 20
    ordinal = {1: "st", 2: "nd", 3: "rd"}.get(0 if teens else date.day % 10, "th")
    return form.format(date=date, ordinal=ordinal)


def split_dates(held_out):
    """All days of a hundred years, each in a random format.

    Returns:
        Training dates, test dates, and four of the test dates for the picture.
    """
    random = np.random.default_rng(0)
    days = [FIRST + datetime.timedelta(int(n)) for n in random.permutation(DAYS)]
    days = [*DRAWN, *(day for day in days if day not in DRAWN)]
    forms = [FORMATS[i] for i in random.integers(len(FORMATS), size=DAYS)]
    forms[: len(DRAWN)] = DRAWN.values()
    texts = [write(day, form) for day, form in zip(days, forms, strict=True)]
    dates = Dates(
        np.stack([to_ids(text, LONGEST) for text in texts]),
        np.array([len(text) for text in texts], np.int32),
        np.stack([to_ids(day.isoformat(), ISO) for day in days]),
    )
    parts = slice(held_out, None), slice(held_out), slice(len(DRAWN))
    return tuple(dates.take(part) for part in parts)


def to_ids(text, length):
    """One row of ids, int32."""
    ids = np.full(length, PADDING, np.int32)
    ids[: len(text)] = [CHARACTERS.index(c) for c in text]
    return ids


def to_text(ids):
    """The text of a row, without padding."""
    return "".join(CHARACTERS[i] for i in ids if i != PADDING)


# The net


def init(key):
    """Initial parameters of the encoder, the attention and the decoder."""
    keys = jax.random.split(key, 7)
    normal = functools.partial(jax.random.normal, dtype=jnp.float32)
    letters = len(CHARACTERS)
    letter = jax.ShapeDtypeStruct((1, EMBEDDING), jnp.float32)
    letter_and_context = jax.ShapeDtypeStruct((1, EMBEDDING + UNITS), jnp.float32)
    return {
        "forward": ENCODER.init(keys[0], letter),
        "backward": ENCODER.init(keys[1], letter),
        "decoder": DECODER.init(keys[2], letter_and_context),
        "embed_read": normal(keys[3], (letters, EMBEDDING)),
        "embed_written": normal(keys[4], (letters, EMBEDDING)),
        "attention": normal(keys[5], (UNITS, UNITS)) / UNITS**0.5,
        "project": normal(keys[6], (2 * UNITS, letters)) / UNITS**0.5,
    }


def encode(params, dates):
    """The memory `[batch, time, depth]`, with an entry for each character."""
    outputs, _ = jaxrnn.bidirectional_dynamic_rnn(
        ENCODER.bind(params["forward"]),
        ENCODER.bind(params["backward"]),
        params["embed_read"][dates.written],
        dates.lengths,
        dtype=jnp.float32,
    )
    return jnp.concatenate(outputs, axis=-1)


def attend(params, query, memory, lengths):
    """The context `[batch, depth]` from the memory, and the weights `[batch, time]`."""
    scores = jnp.einsum("bd,btd->bt", query @ params["attention"], memory)
    places = jnp.arange(memory.shape[1], dtype=jnp.int32)
    valid = places[None] < lengths[:, None]
    weights = jax.nn.softmax(jnp.where(valid, scores, -jnp.inf), axis=-1)
    return jnp.einsum("bt,btd->bd", weights, memory), weights


def transcribe(params, dates, teacher_forcing):
    """Logits `[10, batch, letters]`, and attention weights `[10, batch, time]`.

    With teacher forcing, the decoder's next input is the right character. Otherwise,
    the next input is the character that the decoder wrote.
    """
    memory, batch = encode(params, dates), len(dates.lengths)
    cell = DECODER.bind(params["decoder"])

    def embed(token, context):
        return jnp.concatenate([params["embed_written"][token], context], axis=-1)

    def loop_fn(time, cell_output, cell_state, weights_ta):
        finished = jnp.full(batch, time >= ISO)
        if cell_output is None:  # Time 0.
            start = jnp.full(batch, START, jnp.int32)
            next_input = embed(start, jnp.zeros_like(memory[:, 0]))
            state = cell.zero_state(batch, jnp.float32)
            logits = jnp.zeros(len(CHARACTERS), jnp.float32)  # Of one row.
            weights_ta = jaxrnn.TensorArray(jnp.float32, size=ISO)
            return finished, next_input, state, logits, weights_ta
        context, weights = attend(params, cell_output, memory, dates.lengths)
        logits = jnp.concatenate([cell_output, context], axis=-1) @ params["project"]
        weights_ta = weights_ta.write(time - 1, weights)
        written = jnp.argmax(logits, axis=-1)
        token = dates.iso[:, time - 1] if teacher_forcing else written
        return finished, embed(token, context), cell_state, logits, weights_ta

    logits_ta, _, weights_ta = jaxrnn.raw_rnn(cell, loop_fn, max_time=ISO)
    return logits_ta.stack(), weights_ta.stack()


# Training


def compute_loss(params, dates):
    """The mean cross-entropy per character."""
    logits, _ = transcribe(params, dates, teacher_forcing=True)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, dates.iso.T)
    return jnp.mean(losses)


def train(key, data, steps, init=init, compute_loss=compute_loss):
    """Trains a net (default: the net above); returns parameters and every 50th loss."""
    rate = optax.cosine_decay_schedule(LEARNING_RATE, steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    init_key, key = jax.random.split(key)
    params, data, losses = init(init_key), jax.device_put(data), []
    state = optimizer.init(params)

    @jax.jit
    def update(params, state, data, n):
        key_n = jax.random.fold_in(key, n)
        rows = jax.random.randint(key_n, (BATCH,), 0, len(data.iso), jnp.int32)
        loss, gradient = jax.value_and_grad(compute_loss)(params, data.take(rows))
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, loss

    with tqdm(range(steps), unit="step") as bar:
        for n in bar:
            params, state, loss = update(params, state, data, np.int32(n))
            if n % 50 == 0 or n == steps - 1:
                losses.append(loss.item())
                bar.set_postfix(loss=f"{losses[-1]:.3f}")
    return params, losses


@jax.jit
def answer(params, dates):
    """The dates that the net writes, `[batch, 10]`, and weights `[batch, 10, time]`."""
    logits, weights = transcribe(params, dates, teacher_forcing=False)
    return jnp.argmax(logits, axis=-1).T, jnp.swapaxes(weights, 0, 1)


# The picture

GREY = "#d8d4cc"
NOTE = (
    "Read from left to right, written downwards. Each row: where the net looks as it "
    "writes that character. Grey: padding, weight 0."
)


def draw(file, dates, written, weights):
    """Draws a panel for each date: input from left to right, output downwards."""
    figure = Figure(figsize=(11, 5), dpi=130, layout="constrained")
    figure.suptitle(NOTE, fontsize=10.5)
    panels = figure.subplots(2, 2).flat
    for axes, *row in zip(panels, dates.written, written, weights, strict=True):
        draw_panel(axes, *row)
    image = figure.axes[0].images[0]  # All panels share a scale.
    figure.colorbar(image, ax=figure.axes, aspect=40, fraction=0.02, pad=0.01)
    figure.savefig(file)


def draw_panel(axes, read, written, weights):
    """Draws the weights `[written, read]` between written and read characters."""
    axes.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    ends = np.array([len(to_text(read)), len(read)]) - 0.5
    axes.axvspan(*ends, color=GREY, zorder=2)
    for axis, ids in ((axes.xaxis, read), (axes.yaxis, written)):
        characters = list(to_text(ids))
        places = np.arange(len(characters))
        axis.set_ticks(places, characters, family="monospace", fontsize=11)
        axis.set_ticks(places - 0.5, minor=True)
    axes.grid(which="minor", color="0.9", linewidth=0.6)
    axes.tick_params(which="both", length=0, labeltop=True, labelbottom=False)


# The program


def main(steps: Count = 1500, output: Picture = Path("attention.png")):
    """Trains the net, tests it on held-out days, and draws its attention.

    Args:
        steps: The number of training steps.
        output: The file for the picture.
    """
    data, test, drawn = split_dates(HELD_OUT)
    params, losses = train(jax.random.key(0), data, steps)
    written, weights = jax.device_get(answer(params, test))
    accuracy = np.all(written == test.iso, axis=1).mean()
    print(f"{100 * accuracy:.2f} % of {HELD_OUT} held-out days are right.")
    draw(output, drawn, *jax.device_get(answer(params, drawn)))
    print(f"Wrote {output}.")
    return {"losses": losses, "accuracy": accuracy, "weights": weights, "test": test}


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
