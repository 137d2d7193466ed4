"""From TensorFlow's weights to a peer's parameters, and back."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

Layers = list[dict[str, np.ndarray]]

# The blocks of each kernel, [inputs, state] x blocks, by the prefix of its name.
BLOCKS = {
    "lstm": {"": "igfo"},
    "peephole": {"": "igfo"},
    "gru": {"gates/": "ru", "candidate/": "c"},
    "gru_after": {"": "ruc"},
    "rnn": {"": "a"},
    "mgu": {"": "fn"},
}


@dataclasses.dataclass(frozen=True)
class Gates:
    """One layer's weights by gate: `x` `[D, H]`, `h` `[H, H]` and `b` `[H]` each."""

    x: dict[str, np.ndarray]
    h: dict[str, np.ndarray]
    b: dict[str, np.ndarray]


def to_gates(cell: str, weights: dict[str, np.ndarray], forget_bias: float) -> Gates:
    """TensorFlow's weights by gate, `forget_bias` added to the forget gate of an LSTM.

    TensorFlow adds 1 at run time. A peer that does the same passes 0, others 1.
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
    """`[D, nH]`, `[H, nH]` and `[nH]`: the blocks in this order."""
    return tuple(
        np.concatenate([blocks[name] for name in order], axis=-1)
        for blocks in (gates.x, gates.h, gates.b)
    )


def reader(
    to_params: Callable[[Layers], Any], layers: Layers
) -> Callable[[Any], Layers]:
    """The inverse of `to_params`, for parameters and for gradients by them.

    `to_params` may reorder numbers, flip their signs, and add constants. Where each
    weight ends up is found by passing the weights' numbers, 1, 2, ..., in their place.
    What is not a weight, such as a second bias, is not read. Of parameters, the
    constants (a forget bias that was added) are read with them.
    """
    count = sum(_sizes(layers))
    numbered = _unflatten(np.arange(1.0, count + 1), layers)
    constants = _flatten(to_params(_unflatten(np.zeros(count), layers)))
    places = _flatten(to_params(numbered)) - constants
    indices, signs = np.abs(places).astype(int), np.sign(places)

    def read(params):
        values = np.zeros(count + 1)  # The first is of what is not a weight.
        values[indices] = signs * _flatten(params)
        return _unflatten(values[1:], layers)

    return read


def _flatten(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf).astype(float) for leaf in _leaves(tree)])


def _leaves(tree: Any) -> Iterator[Any]:
    """The arrays of nested dicts, lists and tuples; dicts are sorted by key."""
    if isinstance(tree, Mapping):
        tree = [tree[key] for key in sorted(tree)]
    if isinstance(tree, list | tuple):
        for child in tree:
            yield from _leaves(child)
    else:
        yield tree


def _unflatten(values: np.ndarray, layers: Layers) -> Layers:
    """The values as arrays of the layers' names and shapes."""
    values_left = iter(np.split(values, np.cumsum(_sizes(layers))))
    return [
        {name: next(values_left).reshape(array.shape) for name, array in layer.items()}
        for layer in layers
    ]


def _sizes(layers: Layers) -> list[int]:
    return [array.size for layer in layers for array in layer.values()]
