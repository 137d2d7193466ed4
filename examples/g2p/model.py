"""The net: two directions over the letters, and a decoder that attends to them."""

import dataclasses
import functools
import json
import zipfile
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flag_types import Count, Dropout, flag, read_file

import jaxrnn
from jaxrnn import contrib

from . import data

LETTERS = 1 + len(data.LETTERS)  # With the padding.
WRITTEN = 1 + len(data.PHONEMES)  # With END.
FED = 1 + WRITTEN  # With START.

COMMITTED = Path(__file__).with_name("model.npz")
"""The trained net."""


@dataclasses.dataclass(frozen=True)
class Net:
    """The sizes of the net; its parameters are a dict beside it."""

    embedding: Count = 64
    """Size of the vector of a letter, and of a phoneme."""
    units: Count = 184
    """Size of an LSTM of the encoder, in each direction."""
    layers: Count = 3
    """Bidirectional layers of the encoder."""
    decoder_units: Count = 256
    """Sizes of the decoder's LSTM and of its attention."""
    dropout: Dropout = 0.25
    """Share of the inputs of each layer that is dropped in training."""

    @functools.cached_property
    def encoder(self):
        """The cell of one layer and direction."""
        return jaxrnn.LSTMCell(self.units)

    @functools.cached_property
    def decoder(self):
        """An LSTM that attends to the encoder's outputs."""
        return self._decoder(alignment_history=False)

    @functools.cached_property
    def watched_decoder(self):
        """The same, and its state collects where it looks."""
        return self._decoder(alignment_history=True)

    def _decoder(self, alignment_history):
        size = self.decoder_units
        mechanism = contrib.LuongAttention(size, memory_depth=2 * self.units)
        return contrib.AttentionWrapper(
            jaxrnn.LSTMCell(size), mechanism, size, alignment_history
        )


def init(net, key):
    """Initial parameters."""
    of_read, of_written, of_layers, of_decoder, of_project = jax.random.split(key, 5)
    vector = lambda size: jax.ShapeDtypeStruct((1, size), jnp.float32)
    layers = []
    for n, key_n in enumerate(jax.random.split(of_layers, net.layers)):
        inputs = vector(2 * net.units if n else net.embedding)
        fw, bw = (net.encoder.init(key, inputs) for key in jax.random.split(key_n))
        layers.append({"fw": fw, "bw": bw})
    glorot = jax.nn.initializers.glorot_normal()
    return {
        # Vectors as large as what an LSTM puts out: with a tenth of it the loss falls
        # half as fast at first.
        "read": jax.random.normal(of_read, (LETTERS, net.embedding)),
        "written": jax.random.normal(of_written, (FED, net.embedding)),
        "encoder": layers,
        "decoder": net.decoder.init(of_decoder, vector(net.embedding)),
        "project": {
            "kernel": glorot(of_project, (net.decoder_units, WRITTEN)),
            "bias": jnp.zeros(WRITTEN),
        },
    }


def encode(net, params, letters, letter_count, drop=lambda x: x):
    """The memory `[rows, size, 2 * units]`: each letter in its context."""
    x = params["read"][letters]
    for layer in params["encoder"]:
        outputs, _ = jaxrnn.bidirectional_dynamic_rnn(
            net.encoder.bind(layer["fw"]),
            net.encoder.bind(layer["bw"]),
            drop(x),
            letter_count,
            dtype=jnp.float32,
        )
        x = jnp.concatenate(outputs, axis=-1)
    return drop(x)


def project(params, outputs):
    """Logits of END and the phonemes, for the decoder's outputs."""
    return outputs @ params["project"]["kernel"] + params["project"]["bias"]


# Training


def compute_logits(net, params, batch, key):
    """Logits `[rows, size, WRITTEN]` by teacher forcing, with dropout."""
    keys = iter(jax.random.split(key, net.layers + 3))
    drop = lambda x: dropped(next(keys), net.dropout, x)
    memory = encode(net, params, batch.letters, batch.letter_count, drop)
    fed = jnp.pad(batch.phonemes[:, :-1], [(0, 0), (1, 0)], constant_values=data.START)
    outputs, _ = jaxrnn.dynamic_rnn(
        net.decoder.bind(params["decoder"]),
        drop(params["written"][fed]),
        batch.phoneme_count,
        initial_state=net.decoder.initial_state(memory, batch.letter_count),
        dtype=jnp.float32,
    )
    return project(params, drop(outputs))


def cross_entropy(logits, batch, smoothing):
    """The mean of the phonemes and the ends, a share of each target smoothed."""
    targets = optax.smooth_labels(jax.nn.one_hot(batch.phonemes, WRITTEN), smoothing)
    losses = optax.softmax_cross_entropy(logits, targets)
    is_valid = jnp.arange(logits.shape[1]) < batch.phoneme_count[:, None]
    return jnp.sum(losses * is_valid) / jnp.sum(is_valid)


def dropped(key, rate, x):
    """Zeros for a share of the array, the rest scaled up."""
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


# Files


def save(path, net, params):
    """Writes sizes and parameters, as float16, to an npz file."""
    arrays: dict[str, Any] = {
        name_of(path): np.asarray(x, np.float16)
        for path, x in jax.tree_util.tree_leaves_with_path(params)
    }
    np.savez_compressed(path, net=json.dumps(dataclasses.asdict(net)), **arrays)


def read_net_file(word):
    """The path of a file that `save` wrote whole."""
    path = read_file(word)
    names = zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else ()
    if "net.npy" not in names:
        raise ValueError(f"{path} is not a whole file of g2p.train")
    return path


NetFile = Annotated[Path, flag(Path, read_net_file)]


def load(path):
    """`(net, params)` from the file, the parameters as float32."""
    with np.load(path) as file:
        net = Net(**json.loads(file["net"].item()))
        like = jax.eval_shape(functools.partial(init, net), jax.random.key(0))
        read = lambda path, _: jnp.asarray(file[name_of(path)], jnp.float32)
        return net, jax.tree_util.tree_map_with_path(read, like)


def name_of(path):
    """A name such as `encoder/0/fw/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")
