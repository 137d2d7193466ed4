"""Writes `tests/golden/rg_lru.npz` from the live package, in float64.

It needs recurrentgemma 1.0.1 with PyTorch, for the CPU, and NumPy:

    python tests/golden/generate/make_rg_lru.py

Two runs on one machine write the same arrays. The keys are a case's name and then

- `weights/...`: the `state_dict`;
- `x`, `h0`: inputs `[batch, time, width]`, and the state before them, if any;
- `outputs`, `h`: what the layer gives;
- `grads/...`, `grads/x`, `grads/h0`: gradients of the sum of the squares of both.
"""

import functools
import pathlib

import numpy as np
import torch
from recurrentgemma.torch import layers

GOLDEN = pathlib.Path(__file__).resolve().parents[1]
BATCH, TIME, WIDTH = 2, 5, 4


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
    arrays = {
        **{f"weights/{k}": v for k, v in layer.state_dict().items()},
        "x": x,
        "h0": h0,
        "outputs": outputs,
        "h": h,
        **{f"grads/{k}": v.grad for k, v in layer.named_parameters()},
        "grads/x": x.grad,
        "grads/h0": h0.grad,
    }
    return {name: value.detach().numpy() for name, value in arrays.items()}


def save(file: str, cases: dict[str, dict[str, np.ndarray]]) -> None:
    """One file of several cases."""
    arrays = {f"{case}/{k}": v for case, run in cases.items() for k, v in run.items()}
    GOLDEN.mkdir(exist_ok=True)
    np.savez_compressed(GOLDEN / file, **arrays)


def make_rg_lru() -> None:
    """The RG-LRU, which the package sums in float32 unless told otherwise."""
    layers.rnn_scan = functools.partial(layers.rnn_scan, acc_dtype=torch.float64)
    torch.manual_seed(0)
    save(
        "rg_lru.npz",
        {
            "one_head": rg_lru(1, position=1),
            "two_heads": rg_lru(2, position=1),
            "reset": rg_lru(2, position=0),
        },
    )


if __name__ == "__main__":
    make_rg_lru()
