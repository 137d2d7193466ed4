"""The net of `model.py` in Flax only: Flax's RNNs, and attention written by hand."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

import jaxrnn
from jaxrnn.convert import linen

from . import model


class Attending(nn.Module):
    """One step of an LSTM with attention, which also reads the previous attention."""

    units: int

    @nn.compact
    def __call__(self, carry, x, memory, keys, is_letter):
        """Runs the step; returns `((state, attention), attention)`."""
        state, attention = carry
        x = jnp.concatenate([x, attention], axis=-1)
        state, query = nn.OptimizedLSTMCell(self.units, name="cell")(state, x)
        score = jnp.einsum("bd,btd->bt", query, keys)
        weights = nn.softmax(jnp.where(is_letter, score, -jnp.inf))
        context = jnp.einsum("bt,btd->bd", weights, memory)
        layer = nn.Dense(self.units, use_bias=False, name="attention")
        attention = layer(jnp.concatenate([query, context], axis=-1))
        return (state, attention), attention


class FlaxNet(nn.Module):
    """The net, which computes logits `[rows, size, WRITTEN]` with teacher forcing."""

    net: model.Net

    @nn.compact
    def __call__(self, batch, *, train):
        """Computes logits; applies dropout to the layers' inputs if `train` is True."""
        net, units = self.net, self.net.decoder_units
        drop = nn.Dropout(net.dropout, deterministic=not train)
        x = nn.Embed(model.LETTERS, net.embedding, name="read")(batch.letters)
        for _ in range(net.layers):
            fw, bw = (nn.RNN(nn.OptimizedLSTMCell(net.units)) for _ in range(2))
            both = nn.Bidirectional(fw, bw)
            x = both(drop(x), seq_lengths=batch.letter_count)
        memory = drop(x)
        keys = nn.Dense(units, use_bias=False, name="memory")(memory)
        is_letter = jnp.arange(batch.letters.shape[1]) < batch.letter_count[:, None]
        fed = model.shifted(batch.phonemes)
        x = nn.Embed(model.FED, net.embedding, name="written")(fed)
        over_time: Any = (1, nn.broadcast, nn.broadcast, nn.broadcast)
        steps = nn.scan(
            Attending,
            variable_broadcast="params",
            split_rngs={"params": False},
            in_axes=over_time,
            out_axes=1,
        )
        zeros = jnp.zeros((len(fed), units))
        carry = (zeros, zeros), zeros
        decoder = steps(units, name="decoder")
        _, outputs = decoder(carry, drop(x), memory, keys, is_letter)
        return nn.Dense(model.WRITTEN, name="project")(drop(outputs))


def from_ours(net, params):
    """The parameters of a `FlaxNet` that computes the same logits as our net."""
    decoder, cell = params["decoder"], jaxrnn.LSTMCell(net.decoder_units)
    encoder = jaxrnn.LSTMCell(net.units)
    directions = [layer[name] for layer in params["encoder"] for name in ("fw", "bw")]
    cells = {
        f"OptimizedLSTMCell_{n}": linen.save(encoder.bind(direction))
        for n, direction in enumerate(directions)
    }
    return {
        "read": {"embedding": params["read"]},
        "written": {"embedding": params["written"]},
        **cells,
        "memory": decoder["memory_layer"],
        "decoder": {
            "cell": linen.save(cell.bind(decoder["lstm_cell"])),
            "attention": decoder["attention_layer"],
        },
        "project": params["project"],
    }
