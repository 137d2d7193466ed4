"""A whole Qwen3-Next of `transformers`, with random weights, in float64.

Its linear layers are `jaxrnn.nnx.GatedDeltaNet`. The rest of the model is written here
in plain JAX: norms, attention with a cache, and a mixture of experts.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import largest_error, usual_promotion
from in_float64 import in_float64

import jaxrnn.nnx
from jaxrnn import convert

pytestmark = pytest.mark.slow
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
# Three linear layers, one with attention, and again a linear layer.
SIZES = {
    "num_hidden_layers": 5,
    "hidden_size": 32,
    "vocab_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 6,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 20,
}
TIME, COUNT, TOLERANCE = 70, 30, 1e-10


# The model in JAX: a tree of weights, with a `GatedDeltaNet` in each linear layer.


def load(state_dict, config):
    """The model, from all weights of the `state_dict`."""
    left = dict(state_dict)
    take = lambda at, *names: {name: left.pop(f"{at}.{name}.weight") for name in names}
    layers = []
    for i, kind in enumerate(config.layer_types):
        at = f"model.layers.{i}"
        layer = take(at, "input_layernorm", "post_attention_layernorm")
        if kind == "linear_attention":
            layer["memory"] = load_memory(left, f"{at}.linear_attn", config)
        else:
            names = [f"{name}_proj" for name in "qkvo"]
            layer["attention"] = take(f"{at}.self_attn", "q_norm", "k_norm", *names)
        names = [f"shared_expert.{name}_proj" for name in ("gate", "up", "down")]
        layer["mlp"] = take(f"{at}.mlp", "gate", "shared_expert_gate", *names)
        for name in "experts.gate_up_proj", "experts.down_proj":
            layer["mlp"][name] = left.pop(f"{at}.mlp.{name}")
        layers.append(layer)
    model = take("model", "embed_tokens", "norm") | {"layers": layers}
    model["head"] = left.pop("lm_head.weight")
    assert not left
    return jax.tree.map(jnp.asarray, model)


def load_memory(left, at, config):
    """Takes the weights of a linear layer out of `left`."""
    layer = jaxrnn.nnx.GatedDeltaNet(
        config.hidden_size,
        config.linear_num_value_heads,
        config.linear_key_head_dim,
        config.linear_value_head_dim,
        num_key_heads=config.linear_num_key_heads,
        norm_epsilon=config.rms_norm_eps,
        param_dtype=jnp.float64,
        rngs=nnx.Rngs(0),
    )
    layer = convert.from_transformers(left, layer, at=at, config=config)
    for name in convert.to_transformers(layer, at=at, config=config):
        del left[name]
    return layer


def forward(model, config, tokens, positions, mask, states):
    """Returns the logits `[batch, time, vocabulary]`, and the states of all layers.

    The states hold None for a linear layer at its start. `mask` is true at tokens and
    false at padding. Positions count the tokens of a row from 0.
    """
    x, last = model["embed_tokens"][tokens], []
    for layer, state in zip(model["layers"], states, strict=True):
        y = rms_norm(layer["input_layernorm"], x, config)
        if "memory" in layer:
            y, state = layer["memory"](y, state, mask=mask)
        else:
            y, state = attend(layer["attention"], y, positions, mask, state, config)
        x = x + y
        y = rms_norm(layer["post_attention_layernorm"], x, config)
        x = x + mix_experts(layer["mlp"], y, config)
        last.append(state)
    return rms_norm(model["norm"], x, config) @ model["head"].T, last


def rms_norm(weight, x, config):
    scale = jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + config.rms_norm_eps)
    return x * scale * (1 + weight)


def attend(weights, x, positions, mask, cache, config):
    """Gated attention to all tokens so far.

    The cache holds the key and the value of a token at its position, and no padding.
    """
    keys, values = cache
    heads = *x.shape[:2], -1, config.head_dim
    split = lambda name: (x @ weights[name].T).reshape(heads)
    # The rows of `q_proj` are q and the gate of the first head, then of the second, ...
    q, gate = split("q_proj")[:, :, ::2], split("q_proj")[:, :, 1::2]
    q = rotate(rms_norm(weights["q_norm"], q, config), positions, config)
    k = rotate(rms_norm(weights["k_norm"], split("k_proj"), config), positions, config)
    rows, size = jnp.arange(len(x))[:, None], keys.shape[1]
    at = rows, jnp.where(mask, positions, size)  # Padding is past the end: dropped.
    keys = keys.at[at].set(k, mode="drop")
    values = values.at[at].set(split("v_proj"), mode="drop")
    reads = jnp.arange(size) <= positions[..., None]
    # `jax.nn.dot_product_attention` rounds the scores to float32.
    groups = q.reshape(*x.shape[:2], keys.shape[2], -1, config.head_dim)
    scores = jnp.einsum("btkgd,bskd->btkgs", groups, keys) / config.head_dim**0.5
    weighted = jax.nn.softmax(scores, where=reads[:, :, None, None], axis=-1)
    y = jnp.einsum("btkgs,bskd->btkgd", weighted, values).reshape(q.shape)
    y = y * jax.nn.sigmoid(gate)
    return y.reshape(*x.shape[:2], -1) @ weights["o_proj"].T, (keys, values)


def rotate(x, positions, config):
    """Rotates pairs of the first entries of each head, as far as the config says."""
    options = config.rope_parameters
    half = int(config.head_dim * options["partial_rotary_factor"]) // 2
    angles = options["rope_theta"] ** (-jnp.arange(half) / half)
    angles = positions[..., None, None] * angles
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    a, b, rest = jnp.split(x, [half, 2 * half], axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin, rest], axis=-1)


def mix_experts(weights, x, config):
    """The chosen experts' weighted mean, plus the shared expert times its gate."""
    scores = jax.nn.softmax(x @ weights["gate"].T)
    top, chosen = jax.lax.top_k(scores, config.num_experts_per_tok)
    both = jnp.einsum("btd,efd->btef", x, weights["experts.gate_up_proj"])
    gate, up = jnp.split(both, 2, axis=-1)
    h = jax.nn.silu(gate) * up
    each = jnp.einsum("btef,edf->bted", h, weights["experts.down_proj"])
    picked = jnp.take_along_axis(each, chosen[..., None], axis=2)
    y = jnp.sum(top[..., None] * picked, axis=2) / jnp.sum(top, axis=-1, keepdims=True)
    linear = lambda name, x: x @ weights[name].T
    gate, up = linear("shared_expert.gate_proj", x), linear("shared_expert.up_proj", x)
    shared = linear("shared_expert.down_proj", jax.nn.silu(gate) * up)
    return y + jax.nn.sigmoid(linear("shared_expert_gate", x)) * shared


def generate(model, config, tokens, mask):
    """The prompt's logits, and the tokens and logits of `COUNT` greedy steps.

    Prompts are padded on the left.
    """
    rows, time = tokens.shape
    positions = jnp.cumsum(mask, axis=1) - 1
    cache = jnp.zeros((rows, time + COUNT, config.num_key_value_heads, config.head_dim))
    states = [None if "memory" in x else (cache, cache) for x in model["layers"]]
    logits, states = forward(model, config, tokens, positions, mask, states)

    def step(carry, _):
        logits, position, states = carry
        token = jnp.argmax(logits, axis=-1)
        given = token[:, None], position[:, None], jnp.full((rows, 1), True)
        after, states = forward(model, config, *given, states)
        return (after[:, 0], position + 1, states), (token, logits)

    carry = logits[:, -1], positions[:, -1] + 1, states
    _, (written, scores) = jax.lax.scan(step, carry, length=COUNT)
    return logits, written.T, jnp.swapaxes(scores, 0, 1)


@pytest.fixture(scope="module")
def both():
    """The model of `transformers`, and the same model in JAX."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # On busy cores, threads wait for each other.
    torch.manual_seed(0)
    options = {"experts_implementation": "eager"}  # The default one takes no float64.
    config = transformers.Qwen3NextConfig(**SIZES, **options)
    with in_float64(torch):
        theirs = transformers.Qwen3NextForCausalLM(config).double().eval()
        for weight in theirs.parameters():
            fan_in = weight.shape[-1] if weight.ndim > 1 else 4
            torch.nn.init.normal_(weight, std=1.5 * fan_in**-0.5)
        state_dict = {name: x.numpy() for name, x in theirs.state_dict().items()}
        with usual_promotion():
            yield theirs, load(state_dict, config)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("lengths", [[TIME], [TIME, 23]], ids=["one", "left_padded"])
def test_greedy_decoding(both, lengths, record_property):
    """The logits of prompts, thirty greedy tokens, and the logits of each step.

    At padding, logits are not compared. `transformers` multiplies the inputs of its
    linear layers by the mask. Keys and values have no biases there, so the states stay
    0 until the first token, as in jaxrnn, which skips padding.
    """
    theirs, model = both
    mask = np.arange(TIME) >= TIME - np.array(lengths)[:, None]
    tokens = np.random.default_rng(0).integers(SIZES["vocab_size"], size=mask.shape)
    prompts = torch.from_numpy(tokens)
    options = {"attention_mask": torch.from_numpy(mask.astype(int))}
    with torch.no_grad():
        want = theirs(prompts, **options).logits.numpy()
    options |= {"do_sample": False, "max_new_tokens": COUNT}
    options |= {"return_dict_in_generate": True, "output_logits": True}
    found = theirs.generate(prompts, **options)
    run = jax.jit(lambda model, *given: generate(model, theirs.config, *given))
    logits, written, scores = run(model, tokens, mask)
    np.testing.assert_array_equal(written, found.sequences[:, TIME:])
    pairs = [(logits[mask], want[mask]), (scores, torch.stack(found.logits, 1).numpy())]
    error = largest_error(pairs)
    record_property("error", error)
    assert error <= TOLERANCE
