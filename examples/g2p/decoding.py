"""What trained nets write for words that they read, and where one looks."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from jaxrnn import decode

from . import data, model


def writer(nets, params, letters, letter_count):
    """What `jaxrnn.decode` needs for nets to write the phonemes of words together."""
    models = []
    for net, own in zip(nets, params, strict=True):
        memory = model.encode(net, own, letters, letter_count)
        parts = {
            "cell": net.attention.bind(own["decoder"]),
            "embed": lambda ids, own=own: own["written"][ids],
            "project": functools.partial(model.project, own),
            "initial_state": net.attention.initial_state(memory, letter_count),
        }
        models.append(parts)
    start_ids = jnp.full(len(letters), data.START, jnp.int32)
    return decode.ensemble(models) | {"start_ids": start_ids, "end_id": data.END}


@functools.partial(jax.jit, static_argnums=0)
def greedy(nets, params, letters, letter_count):
    """The ids that are written, `[rows, phonemes]`."""
    given = writer(nets, params, letters, letter_count)
    return decode.greedy(**given, max_time=data.BUCKETS[-1]).ids


@functools.partial(jax.jit, static_argnums=(0, 4))
def beam_search(nets, params, letters, letter_count, beams):
    """The ids of the best sequence, `[rows, phonemes]`."""
    given = writer(nets, params, letters, letter_count)
    return decode.beam_search(**given, max_time=data.BUCKETS[-1], beam_width=beams).ids[
        :, 0
    ]


@functools.partial(jax.jit, static_argnums=0)
def alignments(net, params, batch):
    """Where the net looks as it writes these phonemes, `[phonemes, rows, letters]`."""
    memory = model.encode(net, params, batch.letters, batch.letter_count)
    cell = net.watched_attention
    _, state = jaxrnn.dynamic_rnn(
        cell.bind(params["decoder"]),
        params["written"][model.shifted(batch.phonemes)],
        initial_state=cell.initial_state(memory, batch.letter_count),
        dtype=jnp.float32,
    )
    return state.alignment_history.stack()


def pronounce(nets, params, words, search: Callable = greedy, rows=256):
    """A dict of the words, each with the phonemes that the nets write for it.

    Args:
        nets: The sizes of one net or more, a tuple.
        params: Their parameters, a tuple.
        words: What to read.
        search: `greedy`, or any function with its arguments.
        rows: How many words are read at once.
    """
    found, buckets = {}, {}
    for word in words:
        buckets.setdefault(data.bucket_of(word), []).append(word)
    for size, members in buckets.items():
        for part in np.array_split(members, -(-len(members) // rows)):
            batch = data.make_batch([(str(w), ()) for w in part], size, rows)
            ids = np.asarray(search(nets, params, batch.letters, batch.letter_count))
            for word, row in zip(part, ids, strict=False):
                found[str(word)] = data.to_phonemes(row)
    return {word: found[word] for word in words}
