"""The net: a bidirectional encoder of letters, and a decoder with attention."""

import dataclasses
import functools
import json
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxrnn
from jaxrnn import contrib

from . import data

LETTERS = 1 + len(data.LETTERS)  # Includes padding.
WRITTEN = 1 + len(data.PHONEMES)  # Includes END.
FED = 1 + WRITTEN  # Includes START.

COMMITTED = Path(__file__).with_name("model.npz")
"""The trained net."""


def check(config, accepted, accepts, *names):
    """Exits with the reason unless `accepts` is true of all named fields."""
    for name in names:
        value = getattr(config, name)
        if not accepts(value):
            flag = name.replace("_", "-")
            raise SystemExit(f"--{flag} must be {accepted}, got {value}")


def check_counts(config, *names):
    """Exits with the reason unless all named fields are at least 1."""
    check(config, "at least 1", lambda n: n >= 1, *names)


@dataclasses.dataclass(frozen=True)
class Net:
    """The hyperparameters of the net; its parameters are in a separate dict."""

    embedding: int = 64
    """The size of letter and phoneme embeddings."""
    units: int = 184
    """The size of the encoder's LSTMs, in each direction."""
    layers: int = 3
    """The number of bidirectional encoder layers."""
    decoder_units: int = 256
    """The size of the decoder's LSTM and of its attention."""
    dropout: float = 0.25
    """The fraction of each layer's inputs that is dropped in training."""

    def __post_init__(self):
        check_counts(self, "embedding", "units", "layers", "decoder_units")
        check(self, "from 0 to below 1", lambda x: 0 <= x < 1, "dropout")

    @functools.cached_property
    def encoder(self):
        """One direction's cells, with dropout before each layer and after the last."""
        keep, cell = 1 - self.dropout, jaxrnn.LSTMCell(self.units)
        first = jaxrnn.DropoutWrapper(cell, input_keep_prob=keep, output_keep_prob=keep)
        other = jaxrnn.DropoutWrapper(cell, output_keep_prob=keep)
        return [first] + [other] * (self.layers - 1)

    @functools.cached_property
    def attention(self):
        """The decoder's LSTM, which attends to the encoder's outputs."""
        return self._attention(alignment_history=False)

    @functools.cached_property
    def watched_attention(self):
        """The same cell, with a state that collects attention weights."""
        return self._attention(alignment_history=True)

    @functools.cached_property
    def decoder(self):
        """The attention cell with dropout, which needs a key to take effect."""
        keep = 1 - self.dropout
        return jaxrnn.DropoutWrapper(self.attention, keep, keep)

    def _attention(self, alignment_history):
        size = self.decoder_units
        mechanism = contrib.LuongAttention(size, memory_depth=2 * self.units)
        return contrib.AttentionWrapper(
            jaxrnn.LSTMCell(size), mechanism, size, alignment_history
        )


def init(net, key):
    """Initial parameters of the net."""
    of_read, of_written, of_layers, of_decoder, of_project = jax.random.split(key, 5)
    vector = lambda size: jax.ShapeDtypeStruct((1, size), jnp.float32)
    layers = jaxrnn.init_stack_bidirectional(
        net.encoder, net.encoder, of_layers, vector(net.embedding)
    )
    glorot = jax.nn.initializers.glorot_normal()
    return {
        # The entries of embeddings are about as large as the outputs of an LSTM. With
        # entries a tenth as large, the loss falls half as fast at first.
        "read": jax.random.normal(of_read, (LETTERS, net.embedding)),
        "written": jax.random.normal(of_written, (FED, net.embedding)),
        "encoder": [{"fw": fw, "bw": bw} for fw, bw in zip(*layers, strict=True)],
        "decoder": net.decoder.init(of_decoder, vector(net.embedding)),
        "project": {
            "kernel": glorot(of_project, (net.decoder_units, WRITTEN)),
            "bias": jnp.zeros(WRITTEN),
        },
    }


def encode(net, params, letters, letter_count, key=None):
    """The memory `[rows, size, 2 * units]`: each letter in its context.

    Without a key, there is no dropout.
    """
    bind = lambda name, i: [
        cell.bind(
            layer[name], key if key is None else jax.random.fold_in(key, 2 * n + i)
        )
        for n, (cell, layer) in enumerate(
            zip(net.encoder, params["encoder"], strict=True)
        )
    ]
    memory, _, _ = jaxrnn.stack_bidirectional_dynamic_rnn(
        bind("fw", 0),
        bind("bw", 1),
        params["read"][letters],
        dtype=jnp.float32,
        sequence_length=letter_count,
    )
    return memory


def project(params, outputs):
    """Logits of END and the phonemes, for the decoder's outputs."""
    return outputs @ params["project"]["kernel"] + params["project"]["bias"]


def shifted(phonemes):
    """The decoder's inputs for these targets: START, then all phonemes but the last."""
    return jnp.pad(phonemes[:, :-1], [(0, 0), (1, 0)], constant_values=data.START)


# Training


def compute_logits(net, params, batch, key):
    """Logits `[rows, size, WRITTEN]`, with teacher forcing and dropout."""
    of_encoder, of_decoder = jax.random.split(key)
    memory = encode(net, params, batch.letters, batch.letter_count, of_encoder)
    outputs, _ = jaxrnn.dynamic_rnn(
        net.decoder.bind(params["decoder"], of_decoder),
        params["written"][shifted(batch.phonemes)],
        batch.phoneme_count,
        initial_state=net.attention.initial_state(memory, batch.letter_count),
        dtype=jnp.float32,
    )
    return project(params, outputs)


def cross_entropy(logits, batch, smoothing):
    """The mean cross-entropy over phonemes and END, with label smoothing."""

    def smoothed(labels, logits):
        targets = optax.smooth_labels(jax.nn.one_hot(labels, WRITTEN), smoothing)
        return optax.softmax_cross_entropy(logits, targets)

    is_valid = jnp.arange(logits.shape[1]) < batch.phoneme_count[:, None]
    weights = is_valid.astype(logits.dtype)
    return contrib.sequence_loss(
        logits, batch.phonemes, weights, softmax_loss_function=smoothed
    )


# Files


def save(path, net, params):
    """Writes hyperparameters, and parameters as float16, to an npz file."""
    arrays: dict[str, Any] = {
        name_of(path): np.asarray(x, np.float16)
        for path, x in jax.tree_util.tree_leaves_with_path(params)
    }
    np.savez_compressed(path, net=json.dumps(dataclasses.asdict(net)), **arrays)


def load(path):
    """`(net, params)` from a file that `save` wrote, with parameters as float32."""
    if not Path(path).is_file():
        raise SystemExit(f"{path} is not a file; pass a file that g2p.train wrote")
    try:
        with zipfile.ZipFile(path), np.load(path) as file:
            net = Net(**json.loads(file["net"].item()))
            like = jax.eval_shape(functools.partial(init, net), jax.random.key(0))
            read = lambda path, _: jnp.asarray(file[name_of(path)], jnp.float32)
            return net, jax.tree_util.tree_map_with_path(read, like)
    except (KeyError, zipfile.BadZipFile):
        raise SystemExit(f"{path} is not a complete file from g2p.train") from None


def load_all(paths):
    """`(nets, params)`, two tuples, from one or more files."""
    if not paths:
        raise SystemExit("--paths must name one or more files, got none")
    return tuple(zip(*map(load, paths), strict=True))


def name_of(path):
    """A name such as `encoder/0/fw/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")
