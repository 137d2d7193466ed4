"""Records `rg_lru.npz` and `recurrentgemma.npz` from that package, in float64.

It needs `recurrentgemma[full]` 1.0.1, which brings PyTorch, JAX and Flax:

    python -m tests.golden.record.recurrentgemma

Two runs on one machine write the same arrays. `rg_lru.npz` is from the package's layer
in PyTorch. Its keys are a case's name and then

- `weights/...`: the `state_dict`;
- `x`, `h0`: inputs `[batch, time, width]`, and the state before them, if any;
- `outputs`, `h`: what the layer gives;
- `grads/...`, `grads/x`, `grads/h0`: gradients of the sum of the squares of both.

`recurrentgemma.npz` is from the package's module in JAX. Its keys are `conv1d` and then

- `params/...`: its parameters;
- `x`: what it is given, `[batch, time, size]`;
- `outputs`, `cache`: what it gives; the cache is what it reads of the past;
- `next_x`, `next_outputs`, `next_cache`: one more step, from that cache;
- `packed_outputs`: outputs for rows that hold two sequences, of 2 and 3 steps;
- `grads/...`, `grads/x`: gradients of the sum of the squares of `outputs`.
"""

import functools
import pathlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import torch
from recurrentgemma.jax import layers as jax_layers
from recurrentgemma.torch import layers

GOLDEN = pathlib.Path(__file__).resolve().parents[1]
BATCH, TIME, WIDTH, SIZE = 2, 5, 4, 3


def draw(*shape: int) -> torch.Tensor:
    """Normal numbers."""
    return torch.randn(*shape, dtype=torch.float64).requires_grad_()


def rg_lru(heads: int, position: int) -> dict[str, np.ndarray]:
    """An RG-LRU whose first step has this position; at position 0 it starts anew."""
    layer = layers.RGLRU(WIDTH, heads, dtype=torch.float64)
    for gate in (layer.input_gate, layer.a_gate):
        gate.b.data = draw(*gate.b.shape).data
    x, h0 = draw(BATCH, TIME, WIDTH), draw(BATCH, WIDTH)
    positions = torch.arange(TIME).expand(BATCH, TIME) + position
    outputs, h = layer(x, positions, h0)
    (outputs.square().sum() + h.square().sum()).backward()
    arrays = {f"weights/{k}": v for k, v in layer.state_dict().items()}
    arrays |= {"x": x, "h0": h0, "outputs": outputs, "h": h}
    arrays |= {f"grads/{k}": v.grad for k, v in layer.named_parameters()}
    arrays |= {"grads/x": x.grad, "grads/h0": h0.grad}
    return {name: value.detach().numpy() for name, value in arrays.items()}


def conv1d() -> dict[str, np.ndarray]:
    """A convolution over time."""
    module = jax_layers.Conv1D(SIZE, 4, dtype=jnp.float64)
    rng = np.random.default_rng(zlib.crc32(b"conv1d"))
    draw = lambda *shape: jnp.asarray(0.7 * rng.normal(size=shape))
    positions = jnp.tile(jnp.arange(TIME), (BATCH, 1))
    packed = jnp.tile(jnp.asarray([0, 1, 0, 1, 2]), (BATCH, 1))
    x, next_x = draw(BATCH, TIME, SIZE), draw(BATCH, 1, SIZE)
    params = module.init(jax.random.key(0), x, positions)["params"]
    params = jax.tree.map(lambda p: draw(*p.shape), params)
    apply = lambda params, *given: module.apply({"params": params}, *given)

    def loss(params, x):
        outputs, cache = apply(params, x, positions)
        return jnp.sum(outputs**2), {"outputs": outputs, "cache": cache}

    (d_params, d_x), found = jax.grad(loss, (0, 1), has_aux=True)(params, x)
    more = apply(params, next_x, positions[:, -1:] + 1, found["cache"])
    arrays = {**{f"params/{k}": v for k, v in params.items()}, "x": x, **found}
    arrays |= {"next_x": next_x, "next_outputs": more[0], "next_cache": more[1]}
    arrays |= {"packed_outputs": apply(params, x, packed)[0]}
    return arrays | {f"grads/{k}": v for k, v in d_params.items()} | {"grads/x": d_x}


def save(file: str, cases: dict[str, dict[str, np.ndarray]]) -> None:
    """Writes a file of several cases."""
    arrays = {f"{case}/{k}": v for case, run in cases.items() for k, v in run.items()}
    np.savez_compressed(GOLDEN / file, **arrays)


def main() -> None:
    """Writes both files."""
    jax.config.update("jax_enable_x64", True)
    # The package sums in float32 unless told otherwise.
    layers.rnn_scan = functools.partial(layers.rnn_scan, acc_dtype=torch.float64)
    torch.manual_seed(0)
    cases = {"one_head": (1, 1), "two_heads": (2, 1), "reset": (2, 0)}
    save("rg_lru.npz", {name: rg_lru(*case) for name, case in cases.items()})
    save("recurrentgemma.npz", {"conv1d": conv1d()})


if __name__ == "__main__":
    main()
