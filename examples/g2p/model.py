"""The network of g2p_en: a GRU reads letters, and another one writes phonemes.

The parameters are a dict, of which `load` takes all from the package's file, and `init`
draws others of the same shapes.
"""

import importlib.metadata

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from jaxrnn import convert, decode

from . import data

CELL = jaxrnn.CudnnCompatibleGRUCell(256)
EMBEDDING, LONGEST = 64, data.BUCKETS[-1]


def package_file():
    """The file of the package, which is not imported."""
    try:
        package = importlib.metadata.distribution("g2p_en")
    except importlib.metadata.PackageNotFoundError:
        raise SystemExit("Run `pip install --no-deps g2p_en==2.1.0` first.") from None
    return str(package.locate_file("g2p_en/checkpoint20.npz"))


def load(file):
    """The trained parameters; the GRUs have PyTorch's layout, under short names."""
    with np.load(file) as arrays:
        weights = dict(arrays)

    def gru(part):
        short = {"weight_ih": "w_ih", "weight_hh": "w_hh"}
        short |= {"bias_ih": "b_ih", "bias_hh": "b_hh"}
        own = {name: weights[f"{part}_{given}"] for name, given in short.items()}
        return convert.torch.load(own).params

    return {
        "read": weights["enc_emb"],
        "encoder": gru("enc"),
        "written": weights["dec_emb"],
        "decoder": gru("dec"),
        "kernel": weights["fc_w"].T,
        "bias": weights["fc_b"],
    }


def init(key):
    """Random parameters."""
    keys = iter(jax.random.split(key, 5))
    size, normal = len(data.PHONEMES), jax.random.normal
    x = jnp.zeros((1, EMBEDDING))
    return {
        "read": normal(next(keys), (len(data.LETTERS), EMBEDDING)),
        "encoder": CELL.init(next(keys), x),
        "written": normal(next(keys), (size, EMBEDDING)),
        "decoder": CELL.init(next(keys), x),
        "kernel": normal(next(keys), (CELL.output_size, size)) / 16,
        "bias": jnp.zeros(size),
    }


def encode(params, letters, letter_count):
    """The state after the last letter and the end, `[words, 256]`."""
    cell, x = CELL.bind(params["encoder"]), params["read"][letters]
    _, state = jaxrnn.dynamic_rnn(cell, x, letter_count, dtype=x.dtype)
    return state


def project(params, outputs):
    """The logits of all phonemes."""
    return outputs @ params["kernel"] + params["bias"]


@jax.jit
def greedy(params, letters, letter_count):
    """The ids of the phonemes, `[words, 29]`."""
    return decode.greedy(
        CELL.bind(params["decoder"]),
        embed=lambda ids: params["written"][ids],
        project=lambda outputs: project(params, outputs),
        initial_state=encode(params, letters, letter_count),
        start_ids=jnp.full(len(letters), data.START, jnp.int32),
        end_id=data.END,
        max_time=LONGEST,
    ).ids


def pronounce(params, words):
    """A dict from each word to the phonemes that the network writes."""
    words = list(words)
    batch = data.make_batch([(word, ()) for word in words], LONGEST, len(words))
    ids = greedy(params, batch.letters, batch.letter_count)
    return dict(zip(words, map(data.to_phonemes, np.asarray(ids)), strict=True))
