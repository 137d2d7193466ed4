"""Reads dates as people write them, and shows where it looks.

A decoder writes "2026-11-20" for "Friday, 20 November 2026", or "11/20/2026". It
starts from zeros, so that all it knows of the input comes through its attention. The
weights are collected in a `TensorArray` in the loop state of `raw_rnn` and drawn.

    pip install -e '.[examples]'
    python examples/attention.py                   # writes attention.png
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from attention_data import CHARACTERS, ISO, START, Dates, draw_dates
from attention_figure import draw
from loop_training import flags, train

import jaxrnn

BATCH, HELD_OUT = 64, 2000
EMBEDDING, UNITS = 32, 64  # The encoder has half of the units in each direction.
PyTree = Any


# The net


def init(key: jax.Array) -> PyTree:
    """Fresh parameters of the encoder, of the attention and of the decoder."""
    keys = jax.random.split(key, 7)
    normal = functools.partial(jax.random.normal, dtype=jnp.float32)
    letter = jax.ShapeDtypeStruct((1, EMBEDDING), jnp.float32)
    fed = jax.ShapeDtypeStruct((1, EMBEDDING + UNITS), jnp.float32)
    reader, letters = jaxrnn.GRUCell(UNITS // 2), len(CHARACTERS)
    return {
        "forward": reader.init(keys[0], letter, jnp.float32),
        "backward": reader.init(keys[1], letter, jnp.float32),
        "writer": jaxrnn.GRUCell(UNITS).init(keys[2], fed, jnp.float32),
        "embed_read": normal(keys[3], (letters, EMBEDDING)),
        "embed_written": normal(keys[4], (letters, EMBEDDING)),
        "attention": normal(keys[5], (UNITS, UNITS)) / UNITS**0.5,
        "project": normal(keys[6], (2 * UNITS, letters)) / UNITS**0.5,
    }


def read(params: PyTree, dates: Dates) -> jax.Array:
    """The memory `[batch, time, depth]`: each character as it stands in the text."""
    cell = jaxrnn.GRUCell(UNITS // 2)
    outputs, _ = jaxrnn.bidirectional_dynamic_rnn(
        cell.bind(params["forward"]),
        cell.bind(params["backward"]),
        params["embed_read"][dates.written],
        dates.lengths,
        dtype=jnp.float32,
    )
    return jnp.concatenate(outputs, axis=-1)


def attend(
    params: PyTree, query: jax.Array, memory: jax.Array, lengths: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """What is found in the memory `[batch, depth]`, and where `[batch, time]`."""
    scores = jnp.einsum("bd,btd->bt", query @ params["attention"], memory)
    places = jnp.arange(memory.shape[1], dtype=jnp.int32)
    valid = places[None] < lengths[:, None]
    weights = jax.nn.softmax(jnp.where(valid, scores, -jnp.inf), axis=-1)
    return jnp.einsum("bt,btd->bd", weights, memory), weights


def transcribe(
    params: PyTree, dates: Dates, teach: bool
) -> tuple[jax.Array, jax.Array]:
    """Logits `[10, batch, letters]`, and the attention `[10, batch, time]`.

    The decoder is fed what it should have written if `teach`, else what it wrote.
    """
    memory, batch = read(params, dates), len(dates.lengths)
    cell = jaxrnn.GRUCell(UNITS).bind(params["writer"])

    def feed(token: jax.Array, found: jax.Array) -> jax.Array:
        return jnp.concatenate([params["embed_written"][token], found], axis=-1)

    def loop_fn(time, cell_output, cell_state, weights_ta):
        finished = jnp.full(batch, time >= ISO)
        if cell_output is None:  # Time 0.
            start = jnp.full(batch, START, jnp.int32)
            next_input = feed(start, jnp.zeros_like(memory[:, 0]))
            state = cell.zero_state(batch, jnp.float32)
            logits = jnp.zeros(len(CHARACTERS), jnp.float32)  # Of one row.
            weights_ta = jaxrnn.TensorArray(jnp.float32, size=ISO)
            return finished, next_input, state, logits, weights_ta
        found, weights = attend(params, cell_output, memory, dates.lengths)
        logits = jnp.concatenate([cell_output, found], axis=-1) @ params["project"]
        weights_ta = weights_ta.write(time - 1, weights)
        token = dates.iso[:, time - 1] if teach else jnp.argmax(logits, axis=-1)
        return finished, feed(token, found), cell_state, logits, weights_ta

    logits_ta, _, weights_ta = jaxrnn.raw_rnn(cell, loop_fn, max_time=ISO)
    return logits_ta.stack(), weights_ta.stack()


# The program


def loss(params: PyTree, key: jax.Array, _: jax.Array, data: Dates) -> jax.Array:
    """The mean cross-entropy of a character, of rows drawn at random."""
    batch = data.take(jax.random.randint(key, (BATCH,), 0, len(data.iso), jnp.int32))
    logits, _ = transcribe(params, batch, teach=True)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.iso.T)
    return jnp.mean(losses)


@jax.jit
def answer(params: PyTree, dates: Dates) -> tuple[jax.Array, jax.Array]:
    """What is written, `[batch, 10]`, and the attention `[batch, 10, time]`."""
    logits, weights = transcribe(params, dates, teach=False)
    return jnp.argmax(logits, axis=-1).T, jnp.swapaxes(weights, 0, 1)


def main(steps: int = 1500, output: str = "attention.png") -> dict[str, Any]:
    """Trains the net, tests it on days that it never saw, and draws its attention.

    Args:
        steps: Steps of training.
        output: Where to draw.
    """
    data, test, shown = draw_dates(HELD_OUT)
    init_key, key = jax.random.split(jax.random.key(0))
    params, losses = train(
        "", loss, init(init_key), key, data, steps=steps, learning_rate=0.005
    )
    written, weights = jax.device_get(answer(params, test))
    accuracy = np.all(written == test.iso, axis=1).mean()
    print(f"{100 * accuracy:.2f} % of {HELD_OUT} days it never saw are right.")
    draw(output, shown, *jax.device_get(answer(params, shown)))
    print(f"Wrote {output}.")
    return {"losses": losses, "accuracy": accuracy, "weights": weights, "test": test}


if __name__ == "__main__":
    main(**flags(main, __doc__))
