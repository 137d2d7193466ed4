"""The network of g2p_en: a GRU reads letters, and another one writes phonemes.

A network is a dict of bound cells and arrays. `load` reads it from a file of the
package, `save` writes such a file, and `init` draws random parameters.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import package_files

import jaxrnn
from jaxrnn import convert, decode

from . import data

EMBEDDING, UNITS, LONGEST = 64, 256, data.BUCKETS[-1]
CELLS = {"encoder": "enc", "decoder": "dec"}
NAMES = {"weight_ih_l0": "w_ih", "weight_hh_l0": "w_hh"}
NAMES |= {"bias_ih_l0": "b_ih", "bias_hh_l0": "b_hh"}
"""The names of PyTorch, and those of the file after the name of the cell."""


package_file = functools.partial(
    package_files.package_file, "g2p_en==2.1.0", "g2p_en/checkpoint20.npz"
)


def load(file):
    """A trained network; the weights of the GRUs have PyTorch's layout."""
    with np.load(file) as arrays:
        weights = dict(arrays)
    network = {
        "read": weights["enc_emb"],
        "written": weights["dec_emb"],
        "kernel": weights["fc_w"].T,
        "bias": weights["fc_b"],
    }
    for cell, short in CELLS.items():
        own = {name: weights[f"{short}_{given}"] for name, given in NAMES.items()}
        network[cell] = convert.from_torch(own)
    return network


def save(file, network):
    """Writes a file that `load` reads, and g2p_en too."""
    weights = {
        "enc_emb": network["read"],
        "dec_emb": network["written"],
        "fc_w": network["kernel"].T,
        "fc_b": network["bias"],
    }
    for cell, short in CELLS.items():
        own = convert.to_torch(network[cell])
        weights |= {f"{short}_{given}": own[name] for name, given in NAMES.items()}
    np.savez(file, **weights)


def init(key):
    """A network with random parameters."""
    keys = iter(jax.random.split(key, 5))
    size, normal = len(data.PHONEMES), jax.random.normal
    network = {
        "read": normal(next(keys), (len(data.LETTERS), EMBEDDING)),
        "written": normal(next(keys), (size, EMBEDDING)),
        "kernel": normal(next(keys), (UNITS, size)) / UNITS**0.5,
        "bias": jnp.zeros(size),
    }
    gru = jaxrnn.CudnnCompatibleGRUCell(UNITS)  # PyTorch's.
    for cell in CELLS:
        network[cell] = gru.bind(gru.init(next(keys), jnp.zeros((1, EMBEDDING))))
    return network


def encode(network, letters, letter_count):
    """The state after the last letter and the end, `[words, 256]`."""
    x = network["read"][letters]
    _, state = jaxrnn.dynamic_rnn(network["encoder"], x, letter_count, dtype=x.dtype)
    return state


def project(network, outputs):
    """The logits of all phonemes."""
    return outputs @ network["kernel"] + network["bias"]


@jax.jit
def greedy(network, letters, letter_count):
    """The ids of the phonemes, `[words, 29]`."""
    model = decode.Model(
        network["decoder"],
        embed=lambda ids: network["written"][ids],
        project=lambda outputs: project(network, outputs),
        initial_state=encode(network, letters, letter_count),
        start_ids=jnp.full(len(letters), data.START, jnp.int32),
        eos_id=data.END,
    )
    return decode.greedy(model, max_length=LONGEST).ids


def pronounce(network, words):
    """A dict from each word to the phonemes that the network writes."""
    words = list(words)
    batch = data.make_batch([(word, ()) for word in words], LONGEST, len(words))
    ids = greedy(network, batch.letters, batch.letter_count)
    return dict(zip(words, map(data.to_phonemes, np.asarray(ids)), strict=True))
