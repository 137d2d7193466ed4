"""A language model of bytes: Gated DeltaNet and attention in turns, on packs.

Trains on Python's own documentation (`pydoc_data`), prints the bits per byte of topics
that training does not read, and continues a prompt. An LSTM of the same size does the
same. The attention needs no position embeddings, because the memories know the order.

    pip install -e '.[examples,flax]'
    python examples/hybrid_lm.py                  # about two minutes on two cores
    python examples/hybrid_lm.py --layer-scan     # one program for all groups of layers
"""

import dataclasses
import time
from pydoc_data.topics import topics
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from counts import check_counts
from tqdm import tqdm

try:
    from flax import nnx

    import jaxrnn.nnx
except ImportError as error:
    raise SystemExit(f"{error}. Try: pip install -e '.[examples,flax]'") from None


class Cache(NamedTuple):
    """The keys and values `[batch, size, heads, depth]` of the first `length` steps."""

    k: jax.Array
    v: jax.Array
    length: jax.Array


def steps_of(ids):
    """What tells a recurrent layer where documents begin, and where padding is."""
    if ids is None:
        return {}
    return {"resets": jaxrnn.resets_of_segments(ids), "mask": ids > 0}


class Attention(nnx.Module):
    """Causal attention within documents or, with a cache, to all earlier steps."""

    def __init__(self, depth, heads, *, rngs):
        self.heads = heads
        self.qkv = nnx.Linear(depth, 3 * depth, use_bias=False, rngs=rngs)
        self.out = nnx.Linear(depth, depth, use_bias=False, rngs=rngs)

    def __call__(self, x, cache, ids):
        """Returns the outputs and the cache; `ids` are of the documents, or None."""
        rows, time, depth = x.shape
        qkv = self.qkv(x).reshape(rows, time, 3 * self.heads, -1)
        q, k, v = jnp.split(qkv, 3, axis=2)
        if cache is None:
            reads = jnp.tril(ids[:, :, None] == ids[:, None])
        else:
            steps = cache.length + jnp.arange(time)
            k = jax.lax.dynamic_update_slice_in_dim(cache.k, k, cache.length, 1)
            v = jax.lax.dynamic_update_slice_in_dim(cache.v, v, cache.length, 1)
            cache = Cache(k, v, cache.length + time)
            reads = (jnp.arange(k.shape[1]) <= steps[:, None])[None]
        y = jax.nn.dot_product_attention(q, k, v, mask=reads[:, None])
        return self.out(y.reshape(rows, time, depth)), cache


class MLP(nnx.Module):
    """A gated layer of four times the depth."""

    def __init__(self, depth, *, rngs):
        self.into = nnx.Linear(depth, 8 * depth, use_bias=False, rngs=rngs)
        self.out = nnx.Linear(4 * depth, depth, use_bias=False, rngs=rngs)

    def __call__(self, x):
        """Maps each step by itself."""
        gate, value = jnp.split(self.into(x), 2, axis=-1)
        return self.out(jax.nn.silu(gate) * value)


class Group(nnx.Module):
    """A memory and an attention, each followed by an MLP."""

    def __init__(self, depth, heads, *, rngs):
        size = depth // heads
        self.memory = jaxrnn.nnx.GatedDeltaNet(depth, heads, size, size, rngs=rngs)
        self.attention = Attention(depth, heads, rngs=rngs)
        self.norms = nnx.List([nnx.RMSNorm(depth, rngs=rngs) for _ in range(4)])
        self.mlps = nnx.List([MLP(depth, rngs=rngs) for _ in range(2)])

    def __call__(self, x, state, ids):
        """Returns the outputs and the states of the memory and of the attention."""
        memory, cache = state
        y, memory = self.memory(self.norms[0](x), memory, **steps_of(ids))
        x = x + y
        x = x + self.mlps[0](self.norms[1](x))
        y, cache = self.attention(self.norms[2](x), cache, ids)
        x = x + y
        return x + self.mlps[1](self.norms[3](x)), (memory, cache)


class HybridLM(nnx.Module):
    """Groups of layers between an embedding and a head.

    With `layer_scan`, the groups are one stacked module, and XLA compiles one group.
    With `remat`, the backward pass computes each group again.
    """

    def __init__(self, config, *, rngs):
        self.config, depth = config, config.depth
        self.embed = nnx.Embed(256, depth, rngs=rngs)
        self.norm = nnx.RMSNorm(depth, rngs=rngs)
        self.head = nnx.Linear(depth, 256, use_bias=False, rngs=rngs)
        make = lambda rngs: Group(depth, config.heads, rngs=rngs)
        if config.layer_scan:
            make = nnx.split_rngs(splits=config.groups)(nnx.vmap(make))
            self.groups: Any = make(rngs)
        else:
            self.groups = nnx.List([make(rngs) for _ in range(config.groups)])

    def __call__(self, tokens, states=None, ids=None):
        """Returns the logits `[batch, time, 256]`, and the states of all groups."""

        def run(group, x, state):
            return group(x, state, ids)

        run = nnx.remat(run) if self.config.remat else run
        x = self.embed(tokens)
        if self.config.layer_scan:
            axes = {"in_axes": (0, nnx.Carry, 0), "out_axes": (nnx.Carry, 0)}
            x, states = nnx.scan(run, **axes)(self.groups, x, states or (None, None))
        else:
            states, given = [], states or [(None, None)] * self.config.groups
            for group, state in zip(self.groups, given, strict=True):
                x, state = run(group, x, state)
                states.append(state)
        return self.head(self.norm(x)), states

    def first_states(self, rows, size):
        """Empty memories, and caches for `size` steps."""
        heads, depth = self.config.heads, self.config.depth
        keys = jnp.zeros((rows, size, heads, depth // heads))
        cache = Cache(keys, keys, jnp.int32(0))
        layer = Group(depth, heads, rngs=nnx.Rngs(0)).memory
        state = layer.zero_state(rows, jnp.float32), cache
        if not self.config.layer_scan:
            return [state] * self.config.groups
        stack = lambda x: jnp.broadcast_to(x, (self.config.groups, *x.shape))
        return jax.tree.map(stack, state)


class LSTMLM(nnx.Module):
    """Two LSTMs between an embedding and a head."""

    def __init__(self, config, *, rngs):
        units = config.lstm_units
        scale = nnx.initializers.normal(1.0)  # As the norms of the other model.
        self.embed = nnx.Embed(256, units, embedding_init=scale, rngs=rngs)
        cell = jaxrnn.MultiRNNCell([jaxrnn.LSTMCell(units) for _ in range(2)])
        self.rnn = jaxrnn.nnx.RNN(cell, units, return_carry=True, rngs=rngs)
        self.head = nnx.Linear(units, 256, use_bias=False, rngs=rngs)

    def __call__(self, tokens, states=None, ids=None):
        """Returns the logits `[batch, time, 256]`, and the states."""
        x, options = self.embed(tokens), steps_of(ids)
        states, h = self.rnn(x, initial_state=states, **options)
        return self.head(h), states

    def first_states(self, rows, size):
        """None, for zeros."""


def load(row_length, held_out=0.1):
    """Packs to train and to test, `(tokens, ids)`, each `[rows, row_length]`.

    A topic is cut into documents of at most `row_length` bytes.
    """
    names = np.random.default_rng(0).permutation(sorted(topics))
    count = round(held_out * len(names))

    def pack(names):
        texts = [np.frombuffer(topics[name].encode(), np.uint8) for name in names]
        documents = [
            text[i : i + row_length]
            for text in texts
            for i in range(0, len(text), row_length)
        ]
        packed = jaxrnn.pack_sequences(documents, row_length=row_length)
        return packed.inputs.astype(np.int32), packed.segment_ids

    return pack(names[count:]), pack(names[:count])


def bits_per_byte(model, tokens, ids):
    """The mean loss of the bytes that follow a byte of their own document."""
    logits, _ = model(tokens, ids=ids)
    losses = optax.softmax_cross_entropy_with_integer_labels(
        logits[:, :-1], tokens[:, 1:]
    )
    follows = (ids[:, 1:] == ids[:, :-1]) & (ids[:, 1:] > 0)
    return jnp.mean(losses, where=follows) / jnp.log(2)


@nnx.jit
def update(model, optimizer, tokens, ids):
    """Updates the model with one batch; returns its bits per byte."""
    loss, gradient = nnx.value_and_grad(bits_per_byte)(model, tokens, ids)
    optimizer.update(model, gradient)
    return loss


@nnx.jit(static_argnames="count")
def generate(model, prompt, count, key, temperature=0.6):
    """Continues prompts `[rows, time]` by `count` bytes, in one compiled loop."""
    graph, params = nnx.split(model)
    states = model.first_states(prompt.shape[0], prompt.shape[1] + count)
    logits, states = model(prompt, states)

    def step(carry, key):
        params, logits, states = carry
        token = jax.random.categorical(key, logits[:, -1] / temperature)
        logits, states = nnx.merge(graph, params)(token[:, None], states)
        return (params, logits, states), token

    # The parameters are carried too, because Flax wants those of the loop's own trace.
    carry = params, logits[:, -1:], states
    _, tokens = jax.lax.scan(step, carry, jax.random.split(key, count))
    return tokens.T


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags of the program.

    Attributes:
        steps: Updates of each model.
        rows: The rows of a batch, of `row_length` bytes each.
        layer_scan: Whether `nnx.scan` runs the groups, which are compiled once.
        remat: Whether the backward pass computes each group again, to save memory.
        prompt: What the trained models continue.
    """

    steps: int = 250
    rows: int = 16
    row_length: int = 256
    groups: int = 2
    depth: int = 96
    heads: int = 4
    lstm_units: int = 188
    learning_rate: float = 3e-3
    lstm_learning_rate: float = 1e-2
    layer_scan: bool = False
    remat: bool = False
    prompt: str = "The statement "

    def __post_init__(self):
        counts = "steps", "rows", "row_length", "groups", "depth", "heads", "lstm_units"
        check_counts(self, *counts)
        if self.depth % self.heads:
            raise ValueError("--heads must divide --depth.")
        if not self.prompt:
            raise ValueError("--prompt must not be empty.")


def fit(make, learning_rate, tokens, ids, config):
    """Trains a model; returns it and the bits per byte of each batch."""
    model = make(config, rngs=nnx.Rngs(0))
    rate = optax.warmup_cosine_decay_schedule(
        0, learning_rate, config.steps // 10, config.steps
    )
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    rng, losses = np.random.default_rng(0), []
    with tqdm(range(config.steps), unit="update") as bar:
        for _ in bar:
            rows = rng.integers(len(tokens), size=config.rows)
            losses.append(update(model, optimizer, tokens[rows], ids[rows]).item())
            bar.set_postfix(bits=f"{np.mean(losses[-10:]):.2f}", refresh=False)
    return model, losses


def main(config: Config):
    """Trains both models, and prints what they reach and write."""
    train, test = load(config.row_length)
    prompt = np.frombuffer(config.prompt.encode(), np.uint8)[None].astype(np.int32)
    found = {}
    rates = {HybridLM: config.learning_rate, LSTMLM: config.lstm_learning_rate}
    for make, rate in rates.items():
        start = time.perf_counter()
        model, found[make.__name__] = fit(make, rate, *train, config)
        seconds = time.perf_counter() - start
        size = sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))
        bits = nnx.jit(bits_per_byte)(model, *test)
        written = generate(model, prompt, 300, jax.random.key(0))
        text = bytes(np.asarray(written[0], np.uint8)).decode(errors="replace")
        print(f"{make.__name__}, {size:,} parameters: {bits:.2f} bits per byte", end="")
        print(f" of the test topics, after {seconds:.0f} s\n{config.prompt}{text}\n")
    return found


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
