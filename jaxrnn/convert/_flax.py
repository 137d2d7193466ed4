"""What the converters of Flax's two module systems share.

Both have `RNN`, with its cell in `cell`; `Bidirectional`, with two of those in
`forward_rnn` and `backward_rnn`; and `Sequential` for stacked layers.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np

from .._cells.bound import BoundCell
from ._counterparts import check_names, check_plain, check_resets
from ._layer_weights import GRU_AFTER, LSTM, RNN, LayerWeights, bind, unbind
from ._pairs import bind_both, unbind_both
from ._weights import check_mapping, flattened, pick, reader

# `to_layer(where, name, weights)` and its inverse, `to_weights(where, name, layer)`.
ToLayer = Callable[[str, str, Mapping[str, Any]], LayerWeights]
ToWeights = Callable[[str, str, LayerWeights], dict[str, Any]]

BOTH = ("forward_rnn", "backward_rnn")
# The letters of the gates in the order of `GATES`; whether the modules for the inputs
# (i) or those for the state (h) have the bias.
_LETTERS = {LSTM: "igfo", GRU_AFTER: "rzn", RNN: ("",)}
_SIDE = {LSTM: "h", GRU_AFTER: "i", RNN: "i"}


def load(where: str, params: Any, to_layer: ToLayer, activation: Any) -> BoundCell:
    """The bound cell of parameters of one direction."""
    layers = []
    for name, weights in _modules(where, params):
        if any(key in weights for key in BOTH):
            raise ValueError(
                f"{where}: `{name}` must be of one direction, got "
                f"{', '.join(map(str, weights))}. Use `load_bidirectional`."
            )
        layers.append(_layer(where, name, weights, to_layer, activation))
    return bind(where, layers)


def load_bidirectional(
    where: str, params: Any, to_layer: ToLayer, activation: Any
) -> tuple[tuple[BoundCell, ...], tuple[BoundCell, ...]]:
    """`(cells_fw, cells_bw)` of parameters of both directions."""
    pairs = []
    for name, weights in _modules(where, params):
        if not any(key in weights for key in BOTH):
            raise ValueError(
                f"{where}: `{name}` must be of two directions, forward_rnn and "
                f"backward_rnn, got {', '.join(map(str, weights)) or 'nothing'}. Use "
                "`load` for one direction."
            )
        check_names(where, name, weights, BOTH)
        fw, bw = (
            _layer(where, f"{name}/{key}", weights[key], to_layer, activation)
            for key in BOTH
        )
        pairs.append((fw, bw))
    return bind_both(where, pairs)


def save(where: str, cell: Any, to_weights: ToWeights) -> list[dict[str, Any]]:
    """The weights of each layer's cell."""
    layers = unbind(where, "cell", cell)
    return [_weights(where, "cell", layer, to_weights) for layer in layers]


def save_bidirectional(
    where: str, cells_fw: Any, cells_bw: Any, to_weights: ToWeights
) -> list[dict[str, Any]]:
    """The weights of each layer's `Bidirectional`."""
    return [
        {
            key: {"cell": _weights(where, name, layer, to_weights)}
            for key, name, layer in zip(
                BOTH, ("cells_fw", "cells_bw"), pair, strict=True
            )
        }
        for pair in unbind_both(where, cells_fw, cells_bw)
    ]


def from_separate(
    where: str, name: str, weights: Mapping[str, Any], input_to_f: str = "if"
) -> LayerWeights:
    """The layer of a cell that has a module for each gate.

    Args:
        where: The function that was called, for messages.
        name: The name of the cell's parameters in messages.
        weights: The parameters.
        input_to_f: The name of the module `if`, which is a keyword of Python.

    Raises:
        TypeError: If a weight is not a floating array.
        ValueError: If the names are not those of one kind of cell, or shapes differ.
    """
    flat = unboxed(weights)
    kind = _best_match(where, name, flat)
    own = lambda key: key.replace("if/", f"{input_to_f}/")
    check_names(where, name, flat, list(map(own, _names(kind))))
    read = reader(where)
    get = lambda key, *shape: read(f"{name}/{own(key)}", flat[own(key)], shape)
    letters, side = _LETTERS[kind], _SIDE[kind]
    units = get(f"h{letters[0]}/kernel", None, None).shape[1]
    depth = get(f"i{letters[0]}/kernel", None, None).shape[0]
    state_bias = get("hn/bias", units) if kind == GRU_AFTER else None
    join = lambda arrays: np.concatenate(list(arrays), axis=-1)
    return LayerWeights(
        kind,
        join(get(f"i{letter}/kernel", depth, units) for letter in letters),
        join(get(f"h{letter}/kernel", units, units) for letter in letters),
        join(get(f"{side}{letter}/bias", units) for letter in letters),
        state_bias,
    )


def to_separate(layer: LayerWeights) -> dict[str, dict[str, np.ndarray]]:
    """The weights of a cell that has a module for each gate."""
    letters, side = _LETTERS[layer.kind], _SIDE[layer.kind]
    weights: dict[str, dict[str, np.ndarray]] = {}
    for source, kernels in (("i", layer.inputs), ("h", layer.state)):
        split = np.split(kernels, len(letters), axis=-1)
        weights |= {
            f"{source}{k}": {"kernel": v} for k, v in zip(letters, split, strict=True)
        }
    biases = np.split(layer.whole_bias, len(letters))
    for letter, bias in zip(letters, biases, strict=True):
        weights[f"{side}{letter}"]["bias"] = bias
    if layer.state_bias is not None:
        weights["hn"]["bias"] = layer.state_bias
    return weights


def unboxed(weights: Mapping[str, Any]) -> dict[str, Any]:
    """The weights under names with slashes, out of their boxes."""
    return {name: _unboxed(value) for name, value in flattened(weights).items()}


def _unboxed(value: Any) -> Any:
    """The value of a linen `Partitioned` or an nnx `Param`."""
    if hasattr(value, "get_value"):
        return value.get_value()
    return value.value if hasattr(value, "unbox") else value


def _modules(where: str, params: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """The parameters of each layer, with its name in messages."""
    check_mapping(where, "params", params)
    if set(params) == {"params"}:
        params = params["params"]
        check_mapping(where, "params", params)
    names = [key for key in params if re.fullmatch(r"layers_\d+", str(key))]
    if names and len(names) == len(params):  # A `Sequential` of linen
        inner, names = params, [f"layers_{i}" for i in range(len(params))]
    elif set(params) == {"layers"}:  # or of nnx.
        check_mapping(where, "params/layers", params["layers"])
        inner = {f"layers/{key}": value for key, value in params["layers"].items()}
        names = [f"layers/{i}" for i in range(len(inner))]
    else:
        return [("params", params)]
    modules = [(f"params/{name}", pick(where, inner, name)) for name in names]
    for name, module in modules:
        check_mapping(where, name, module)
    if not modules:
        raise_unknown(where, "params", {})
    return modules


def _layer(
    where: str, name: str, weights: Any, to_layer: ToLayer, activation: Any
) -> LayerWeights:
    check_mapping(where, name, weights)
    if set(weights) == {"cell"}:
        name, weights = f"{name}/cell", weights["cell"]
        check_mapping(where, name, weights)
    return dataclasses.replace(to_layer(where, name, weights), activation=activation)


def _weights(
    where: str, name: str, layer: LayerWeights, to_weights: ToWeights
) -> dict[str, Any]:
    check_plain(where, name, layer, "Flax")
    check_resets(where, name, layer, "Flax", GRU_AFTER)
    return to_weights(where, name, layer)


def _names(kind: str) -> list[str]:
    letters, side = _LETTERS[kind], _SIDE[kind]
    kernels = [f"{source}{letter}/kernel" for source in "ih" for letter in letters]
    biases = [f"{side}{letter}/bias" for letter in letters]
    return kernels + biases + ["hn/bias"] * (kind == GRU_AFTER)


def _best_match(where: str, name: str, flat: Mapping[str, Any]) -> str:
    """The kind of cell that shares most names with these."""
    known = {kind: len(flat.keys() & set(_names(kind))) for kind in _LETTERS}
    if not any(known.values()):
        raise_unknown(where, name, flat)
    return max(known, key=lambda kind: known[kind])


def raise_unknown(where: str, name: str, flat: Mapping[str, Any]) -> NoReturn:
    """Raises ValueError for weights of an unknown cell."""
    raise ValueError(
        f"{where}: `{name}` must be the parameters of an LSTMCell, OptimizedLSTMCell, "
        "GRUCell or SimpleCell, of an RNN or Bidirectional of such, or of a Sequential "
        f"of these, got {', '.join(flat) or 'nothing'}."
    )
