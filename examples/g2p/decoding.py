"""Decoding with trained nets, and the attention weights of a net."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from jaxrnn import decode

from . import data, model


def writer(nets, params, letters, letter_count):
    """The arguments of `jaxrnn.decode` for an ensemble of nets that reads the words."""
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
    """The ids from greedy search, `[rows, phonemes]`."""
    given = writer(nets, params, letters, letter_count)
    return decode.greedy(**given, max_time=data.BUCKETS[-1]).ids


@functools.partial(jax.jit, static_argnums=(0, 4))
def beam_search(nets, params, letters, letter_count, beams):
    """The ids of the best beam, `[rows, phonemes]`."""
    given = writer(nets, params, letters, letter_count)
    time = data.BUCKETS[-1]
    return decode.beam_search(**given, max_time=time, beam_width=beams).ids[:, 0]


@functools.partial(jax.jit, static_argnums=0)
def alignments(net, params, batch):
    """Attention weights for the batch's phonemes, `[phonemes, rows, letters]`."""
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
    """A dict from each word to the phonemes that the nets write for it.

    Args:
        nets: A tuple of one or more nets.
        params: A tuple of their parameters.
        words: The words to pronounce.
        search: `greedy`, or any function with the same arguments.
        rows: The number of words in a batch.
    """
    found, buckets = {}, {}
    for word in words:
        buckets.setdefault(data.bucket_of(word), []).append(word)
    for size, members in buckets.items():
        for part in np.array_split(members, -(-len(members) // rows)):
            batch = data.make_batch([(str(word), ()) for word in part], size, rows)
            ids = search(nets, params, batch.letters, batch.letter_count)
            phonemes = map(data.to_phonemes, np.asarray(ids))
            found |= zip(map(str, part), phonemes, strict=False)
    return found
