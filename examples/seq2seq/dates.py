"""Convert written dates to ISO dates: a TensorFlow 1 script, line by line in JAX.

The net reads "Friday, 20 November 2026" or "11/20/2026", and writes "2026-11-20". Its
decoder is built as in TensorFlow scripts, from `AttentionWrapper`, `BasicDecoder` and
`BeamSearchDecoder`. docs/guide/seq2seq.md compares the names of both libraries. Run it
from the folder `examples`:

    pip install -e '..[examples]'
    python -m seq2seq.dates
"""

import datetime
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from tqdm import tqdm

import jaxrnn
from jaxrnn import contrib

BATCH, HELD_OUT, LEARNING_RATE = 64, 2000, 0.005
EMBEDDING, UNITS, BEAMS = 32, 64, 4

ENCODER = jaxrnn.GRUCell(UNITS // 2)  # One direction; both have `UNITS` together.
MECHANISM = contrib.LuongAttention(UNITS, memory_depth=UNITS, scale=True)
DECODER = contrib.AttentionWrapper(
    jaxrnn.GRUCell(UNITS), MECHANISM, attention_layer_size=UNITS
)

# The data

END, START = 0, 1  # The end token is also the padding.
CHARACTERS = "\n>" + "".join(map(chr, range(ord(" "), ord("z") + 1)))
LETTERS = len(CHARACTERS)
READ, WRITTEN = 28, 11
"""The lengths of "Wednesday, 20 September 2026", and of "2026-09-20" with its end."""

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


class Dates(NamedTuple):
    """Rows of character ids."""

    written: Any  # [batch, 28], with padding at the end
    lengths: Any  # [batch], the lengths of the written dates
    iso: Any  # [batch, 11], with an end token

    def take(self, rows):
        """The dates in the given rows."""
        return Dates(*(field[rows] for field in self))


def write(date, form):
    """The date as text in one of the `FORMATS`."""
    teens = 10 < date.day < 20
    ordinal = {1: "st", 2: "nd", 3: "rd"}.get(0 if teens else date.day % 10, "th")
    return form.format(date=date, ordinal=ordinal)


def split_dates(held_out):
    """All days of a hundred years, each in a random format: training and test dates."""
    random = np.random.default_rng(0)
    days = [FIRST + datetime.timedelta(int(n)) for n in random.permutation(DAYS)]
    forms = random.choice(FORMATS, DAYS)
    texts = [write(day, form) for day, form in zip(days, forms, strict=True)]
    dates = Dates(
        np.stack([to_ids(text, READ) for text in texts]),
        np.array([len(text) for text in texts], np.int32),
        np.stack([to_ids(day.isoformat(), WRITTEN) for day in days]),
    )
    return dates.take(slice(held_out, None)), dates.take(slice(held_out))


def to_ids(text, length):
    """One row of ids, int32."""
    ids = np.full(length, END, np.int32)
    ids[: len(text)] = [CHARACTERS.index(c) for c in text]
    return ids


def to_text(ids):
    """The text of a row, without end tokens."""
    return "".join(CHARACTERS[i] for i in ids if i != END)


# TensorFlow's variables


def init(key):
    """Initial parameters of the encoder and the decoder."""
    keys = jax.random.split(key, 6)
    letter = jax.ShapeDtypeStruct((1, EMBEDDING), jnp.float32)
    return {
        "embed_read": jax.random.normal(keys[0], (LETTERS, EMBEDDING), jnp.float32),
        "embed_written": jax.random.normal(keys[1], (LETTERS, EMBEDDING), jnp.float32),
        "forward": ENCODER.init(keys[2], letter),
        "backward": ENCODER.init(keys[3], letter),
        "decoder": DECODER.init(keys[4], letter),
        "project": jax.random.normal(keys[5], (UNITS, LETTERS), jnp.float32) / 8,
    }


# TensorFlow's graph


def encode(params, batch):
    """The initial state of the decoder, with the encoder's outputs as memory."""
    outputs, states = jaxrnn.bidirectional_dynamic_rnn(
        ENCODER.bind(params["forward"]),
        ENCODER.bind(params["backward"]),
        params["embed_read"][batch.written],
        batch.lengths,
        dtype=jnp.float32,
    )
    memory = jnp.concatenate(outputs, axis=-1)
    cell_state = jnp.concatenate(states, axis=-1)
    return DECODER.initial_state(memory, batch.lengths, cell_state)


def make_decoder(params, state, helper):
    """A decoder that outputs logits."""
    project = lambda outputs: outputs @ params["project"]
    cell = DECODER.bind(params["decoder"])
    return contrib.BasicDecoder(cell, helper, state, output_layer=project)


def compute_loss(params, batch):
    """The mean cross-entropy per letter, with teacher forcing."""
    fed = jnp.pad(batch.iso[:, :-1], [(0, 0), (1, 0)], constant_values=START)
    lengths = jnp.full(len(fed), WRITTEN, jnp.int32)
    helper = contrib.TrainingHelper(params["embed_written"][fed], lengths)
    decoder = make_decoder(params, encode(params, batch), helper)
    outputs, _, _ = contrib.dynamic_decode(decoder)
    weights = jnp.ones(fed.shape, jnp.float32)
    return contrib.sequence_loss(outputs.rnn_output, batch.iso, weights)


@jax.jit
def infer_greedily(params, batch):
    """The ids from greedy search, `[batch, 11]`."""
    start = jnp.full(len(batch.iso), START, jnp.int32)
    helper = contrib.GreedyEmbeddingHelper(params["embed_written"], start, END)
    decoder = make_decoder(params, encode(params, batch), helper)
    outputs, _, _ = contrib.dynamic_decode(
        decoder, impute_finished=True, maximum_iterations=WRITTEN
    )
    return outputs.sample_id


@jax.jit
def infer_by_beams(params, batch):
    """The ids from beam search, `[batch, 11, beam]`, and the scores of the beams."""
    start = jnp.full(len(batch.iso), START, jnp.int32)
    decoder = contrib.BeamSearchDecoder(
        DECODER.bind(params["decoder"]),
        params["embed_written"],
        start,
        END,
        contrib.tile_batch(encode(params, batch), BEAMS),
        BEAMS,
        output_layer=lambda outputs: outputs @ params["project"],
    )
    outputs, _, _ = contrib.dynamic_decode(decoder, maximum_iterations=WRITTEN)
    scores = outputs.beam_search_decoder_output.scores
    return outputs.predicted_ids, scores[:, -1]


# TensorFlow's session


def train(key, data, steps):
    """Trains a net; returns its parameters and every 50th loss."""
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


def right(ids: Any, iso: Any) -> float:
    """The fraction of rows that are right, including the end token."""
    return np.all(np.asarray(ids) == iso, axis=1).mean().item()


def main(steps: int = 1000):
    """Trains the net, and tests it on held-out days.

    Args:
        steps: The number of training steps.
    """
    data, test = split_dates(HELD_OUT)
    params, losses = train(jax.random.key(0), data, steps)
    greedily = right(infer_greedily(params, test), test.iso)
    beams, scores = infer_by_beams(params, test)
    by_beams = right(beams[..., 0], test.iso)
    print(f"Of {HELD_OUT} held-out days, {100 * greedily:.2f} % are right,")
    print(f"and {100 * by_beams:.2f} % with beam search.")
    for written, ids, score in zip(test.written[:4], beams, scores, strict=False):
        print(f"\n{to_text(written)}")
        for k in range(BEAMS):
            print(f"  {to_text(ids[:, k])}  {np.exp(score[k]):.4f}")
    return {"losses": losses, "greedily": greedily, "by_beams": by_beams}


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
