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
    return all_beams(nets, params, letters, letter_count, beams)[:, 0]


@functools.partial(jax.jit, static_argnums=(0, 4))
def all_beams(nets, params, letters, letter_count, beams):
    """The ids of the beams, `[rows, beams, phonemes]`, the best first."""
    given = writer(nets, params, letters, letter_count)
    time = data.BUCKETS[-1]
    return decode.beam_search(**given, max_time=time, beam_width=beams).ids


@functools.partial(jax.jit, static_argnums=0)
def score(nets, params, letters, letter_count, ids):
    """Log-probabilities `[rows, n]` of the ids `[rows, n, phonemes]`."""
    return decode.score(**writer(nets, params, letters, letter_count), ids=ids)


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
    run = lambda batch, _: search(nets, params, batch.letters, batch.letter_count)
    ids = in_batches(run, words, rows)
    return {word: data.to_phonemes(ids[word]) for word in words}


def in_batches(run, words, rows=256):
    """A dict of the words, each with its row of the results of `run`.

    Args:
        run: `run(batch, words)`, an array with one row for each of these words.
        words: What to read.
        rows: How many words are read at once.
    """
    found, buckets = {}, {}
    for word in words:
        buckets.setdefault(data.bucket_of(word), []).append(word)
    for size, members in buckets.items():
        for part in np.array_split(members, -(-len(members) // rows)):
            part = list(map(str, part))
            batch = data.make_batch([(word, ()) for word in part], size, rows)
            found |= zip(part, np.asarray(run(batch, part)), strict=False)
    return found
