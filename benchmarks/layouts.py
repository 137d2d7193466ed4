"""Conversions between TensorFlow's weights and a peer's parameters."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

Layers = list[dict[str, np.ndarray]]

# The order of the gates in each kernel, by the prefix of the kernel's name.
BLOCKS = {
    "lstm": {"": "igfo"},
    "peephole": {"": "igfo"},
    "gru": {"gates/": "ru", "candidate/": "c"},
    "gru_after": {"": "ruc"},
}


@dataclasses.dataclass(frozen=True)
class Gates:
    """One layer's weights: dicts by gate of `x` `[D, H]`, `h` `[H, H]`, `b` `[H]`."""

    x: dict[str, np.ndarray]
    h: dict[str, np.ndarray]
    b: dict[str, np.ndarray]


def to_gates(cell: str, weights: dict[str, np.ndarray], forget_bias: float) -> Gates:
    """TensorFlow's weights by gate, with `forget_bias` added to an LSTM's forget gate.

    TensorFlow adds 1 at run time. Pass 0 for a peer that does too, otherwise 1.
    """
    gates = Gates({}, {}, {})
    for prefix, names in BLOCKS[cell].items():
        kernels = np.split(weights[f"{prefix}kernel"], len(names), axis=1)
        biases = np.split(weights[f"{prefix}bias"], len(names))
        for name, kernel, bias in zip(names, kernels, biases, strict=True):
            depth = len(kernel) - len(bias)
            gates.x[name], gates.h[name] = kernel[:depth], kernel[depth:]
            gates.b[name] = bias
    if cell == "lstm":
        gates.b["f"] = gates.b["f"] + np.float32(forget_bias)
    return gates


def side_by_side(gates: Gates, order: str) -> tuple[np.ndarray, ...]:
    """The blocks, concatenated in this order: `[D, nH]`, `[H, nH]` and `[nH]`."""
    return tuple(
        np.concatenate([blocks[name] for name in order], axis=-1)
        for blocks in (gates.x, gates.h, gates.b)
    )


def reader(
    to_params: Callable[[Layers], Any], layers: Layers
) -> Callable[[Any], Layers]:
    """The inverse of `to_params`, for parameters and for their gradients.

    `to_params` may reorder numbers, flip their signs, and add constants. To find where
    each weight ends up, we pass it the numbers 1, 2, ... instead of the weights. The
    inverse ignores parameters that do not come from a weight, for example a second
    bias. It does not subtract constants such as an added forget bias.
    """
    count = sum(_sizes(layers))
    numbered = _unflatten(np.arange(1.0, count + 1), layers)
    constants = _flatten(to_params(_unflatten(np.zeros(count), layers)))
    places = _flatten(to_params(numbered)) - constants
    indices, signs = np.abs(places).astype(int), np.sign(places)

    def read(params):
        values = np.zeros(count + 1)  # Index 0 collects what is not a weight.
        values[indices] = signs * _flatten(params)
        return _unflatten(values[1:], layers)

    return read


def _flatten(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf).astype(float) for leaf in _leaves(tree)])


def _leaves(tree: Any) -> Iterator[Any]:
    """The arrays in nested dicts, lists and tuples; dicts are sorted by key."""
    if isinstance(tree, Mapping):
        tree = [tree[key] for key in sorted(tree)]
    if isinstance(tree, list | tuple):
        for child in tree:
            yield from _leaves(child)
    else:
        yield tree


def _unflatten(values: np.ndarray, layers: Layers) -> Layers:
    """The values as arrays with the names and shapes of `layers`."""
    values_left = iter(np.split(values, np.cumsum(_sizes(layers))))
    return [
        {name: next(values_left).reshape(array.shape) for name, array in layer.items()}
        for layer in layers
    ]


def _sizes(layers: Layers) -> list[int]:
    return [array.size for layer in layers for array in layer.values()]
