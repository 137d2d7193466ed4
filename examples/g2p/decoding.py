"""What trained nets write for words that they read, and where one looks."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from jaxrnn import decode

from . import data, model
from .ensemble import decoder_arguments


@functools.partial(jax.jit, static_argnums=0)
def greedy(nets, params, letters, letter_count):
    """The ids that are written, `[rows, phonemes]`."""
    return decode.greedy(**decoder_arguments(nets, params, letters, letter_count)).ids


@functools.partial(jax.jit, static_argnums=(0, 4))
def beam_search(nets, params, letters, letter_count, beams):
    """The ids of the best sequence, `[rows, phonemes]`."""
    arguments = decoder_arguments(nets, params, letters, letter_count)
    return decode.beam_search(**arguments, beam_width=beams).ids[:, 0]


@functools.partial(jax.jit, static_argnums=0)
def alignments(net, params, batch):
    """Where the net looks as it writes these phonemes, `[phonemes, rows, letters]`."""
    memory = model.encode(net, params, batch.letters, batch.letter_count)
    fed = jnp.pad(batch.phonemes[:, :-1], [(0, 0), (1, 0)], constant_values=data.START)
    cell = net.watched_decoder
    _, state = jaxrnn.dynamic_rnn(
        cell.bind(params["decoder"]),
        params["written"][fed],
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
