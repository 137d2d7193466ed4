"""Convert written dates to ISO dates: a TensorFlow 1 script, line by line in JAX.

Task, data and training are the same as in `attention.py`. Here the decoder is built as
in TensorFlow scripts, from `AttentionWrapper`, `BasicDecoder` and `BeamSearchDecoder`.
docs/guide/seq2seq.md compares the names of both libraries. Run it from the folder
`examples`:

    pip install -e '..[examples]'
    python -m seq2seq.dates
"""

from typing import Any

import attention as dates
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flag_types import Count

import jaxrnn
from jaxrnn import contrib

HELD_OUT = dates.HELD_OUT
EMBEDDING, UNITS, BEAMS = 32, 64, 4
LETTERS = len(dates.CHARACTERS)
START, END = dates.START, dates.PADDING
LONGEST = dates.ISO + 1  # Includes the end token.

ENCODER = jaxrnn.GRUCell(UNITS // 2)  # One direction; both have `UNITS` together.
MECHANISM = contrib.LuongAttention(UNITS, memory_depth=UNITS, scale=True)
DECODER = contrib.AttentionWrapper(
    jaxrnn.GRUCell(UNITS), MECHANISM, attention_layer_size=UNITS
)


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
    rows = len(batch.iso)
    targets = jnp.pad(batch.iso, [(0, 0), (0, 1)], constant_values=END)
    fed = jnp.pad(batch.iso, [(0, 0), (1, 0)], constant_values=START)
    lengths = jnp.full(rows, LONGEST, jnp.int32)
    helper = contrib.TrainingHelper(params["embed_written"][fed], lengths)
    decoder = make_decoder(params, encode(params, batch), helper)
    outputs, _, _ = contrib.dynamic_decode(decoder)
    weights = jnp.ones((rows, LONGEST), jnp.float32)
    return contrib.sequence_loss(outputs.rnn_output, targets, weights)


@jax.jit
def infer_greedily(params, batch):
    """The ids from greedy search, `[batch, 11]`."""
    start = jnp.full(len(batch.iso), START, jnp.int32)
    helper = contrib.GreedyEmbeddingHelper(params["embed_written"], start, END)
    decoder = make_decoder(params, encode(params, batch), helper)
    outputs, _, _ = contrib.dynamic_decode(
        decoder, impute_finished=True, maximum_iterations=LONGEST
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
    outputs, _, _ = contrib.dynamic_decode(decoder, maximum_iterations=LONGEST)
    scores = outputs.beam_search_decoder_output.scores
    return outputs.predicted_ids, scores[:, -1]


# TensorFlow's session


def right(ids: Any, iso: Any) -> float:
    """The fraction of rows that are right, including the end token."""
    targets = np.pad(iso, [(0, 0), (0, 1)], constant_values=END)
    return np.all(np.asarray(ids) == targets, axis=1).mean().item()


def main(steps: Count = 1000):
    """Trains the net, and tests it on held-out days.

    Args:
        steps: The number of training steps.
    """
    data, test, drawn = dates.split_dates(HELD_OUT)
    key = jax.random.key(0)
    params, losses = dates.train(key, data, steps, init, compute_loss)
    greedily = right(infer_greedily(params, test), test.iso)
    beams, _ = infer_by_beams(params, test)
    by_beams = right(beams[..., 0], test.iso)
    print(f"Of {HELD_OUT} held-out days, {100 * greedily:.2f} % are right,")
    print(f"and {100 * by_beams:.2f} % with beam search.")
    beams, scores = infer_by_beams(params, drawn)
    for written, ids, score in zip(drawn.written, beams, scores, strict=True):
        print(f"\n{dates.to_text(written)}")
        for k in range(BEAMS):
            print(f"  {dates.to_text(ids[:, k])}  {np.exp(score[k]):.4f}")
    return {"losses": losses, "greedily": greedily, "by_beams": by_beams}


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
