"""Weights of Haiku's `LSTM`, `GRU` and `VanillaRNN`.

    cell = jaxrnn.convert.haiku.load(params)  # What `hk.transform(...).init` gave.
    outputs, state = jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)

Haiku's state of an LSTM is (hidden, cell); here it is (c, h). Both add 1 to the forget
gate at run time, so the bias is the same; Haiku's update gate is one minus that here. A
`VanillaRNN` is a `BasicRNNCell` with the activation relu and the sum of its two biases.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._base.errors import describe
from .._cells.bound import BoundCell
from ._as_cell import of_haiku as as_cell
from ._cells import cell_of_layers, layers_of_cell
from ._layer_weights import (
    GATES,
    GRU,
    LSTM,
    RNN,
    LayerWeights,
    check_activation,
    check_lacks,
    check_resets,
    reordered,
)
from ._weights import (
    Read,
    check_mapping,
    check_names,
    check_string,
    flattened,
    public,
    reader,
)

__all__ = ["as_cell", "load", "save"]

_NAMES = {LSTM: "lstm", GRU: "gru", RNN: "vanilla_rnn"}
_CORES = {LSTM: "LSTM", GRU: "GRU", RNN: "VanillaRNN"}
_MODULE = re.compile(rf"((?:.*/)?(?:{'|'.join(_NAMES.values())}))(?:_(\d+))?")
_ORDER = "urc"  # z, r and a; u is 1 - z.


@public
def load(
    params: Mapping[str, Mapping[str, Any]], name: str | Sequence[str] | None = None
) -> BoundCell:
    """The bound cell of a core, or of stacked cores as in an `hk.DeepRNN`.

    Args:
        params: The parameters of the core or of a whole model.
        name: The name of the core's module, such as "encoder/~/lstm"; a sequence of
            names, from the inputs upwards, for several. None for all that are named
            lstm, lstm_1 and so on, or gru, or vanilla_rnn, if they are of one kind.

    Returns:
        A bound `LSTMCell`, `GRUCell` or `BasicRNNCell` with relu; of several layers a
        bound `MultiRNNCell`.

    Raises:
        TypeError: If `params` are not nested dicts, or a weight is not a floating
            array.
        ValueError: If a module or a weight is missing or not known, or has the wrong
            shape; if `name` is None and the order is not clear.

    Example:
        >>> import numpy as np, jaxrnn.convert.haiku
        >>> params = {"lstm/linear": {"w": np.ones((8, 20)), "b": np.ones(20)}}
        >>> cell = jaxrnn.convert.haiku.load(params)
        >>> cell.cell.forget_bias, cell.state_size
        (1.0, LSTMStateTuple(c=5, h=5))
        >>> list(jaxrnn.convert.haiku.save(cell, "net/lstm"))
        ['net/lstm/linear']
    """
    check_mapping("params", params)
    names = _found(params) if name is None else _as_names(name)
    return cell_of_layers([_layer(params, each) for each in names])


@public
def save(
    cell: BoundCell, name: str | Sequence[str] | None = None
) -> dict[str, dict[str, np.ndarray]]:
    """The parameters of a cell, as NumPy arrays in Haiku's two levels of dicts.

    The second bias of a `VanillaRNN` is zero; a core with `double_bias=False` ignores
    it.

    Args:
        cell: A bound `BasicRNNCell` with relu, `BasicLSTMCell`, `LSTMCell` or
            `GRUCell`, or a bound `MultiRNNCell` of these.
        name: The name of the module; a sequence of names for several layers. None for
            the names that Haiku gives to cores constructed in this order.

    Raises:
        TypeError: If `cell` is not such a bound cell.
        ValueError: For what Haiku does not have: a `CudnnCompatibleGRUCell`, peepholes,
            clips, a projection, another activation; if there is not one name for each
            layer.
    """
    layers = [layer for _, layer in layers_of_cell("cell", cell)]
    for layer in layers:
        check_lacks("cell", layer, "Haiku")
        check_resets("cell", layer, "Haiku", GRU)
        wanted = "relu" if layer.kind == RNN else "tanh"
        check_activation("cell", layer, f"Haiku's {_CORES[layer.kind]}", wanted)
    names = _given(layers) if name is None else _as_names(name)
    if len(set(names)) != len(layers):
        raise ValueError(
            f"`name` must be one for each of {len(layers)} layers, got "
            f"{', '.join(names)}."
        )
    pairs = zip(names, layers, strict=True)
    return {k: v for pair in pairs for k, v in _weights(*pair).items()}


def _as_names(name: Any) -> list[str]:
    names = [name] if isinstance(name, str) else name
    if not isinstance(names, Sequence) or not names:
        raise TypeError(
            f"`name` must be a module's name or a list of at least one, got "
            f"{describe(name)}."
        )
    for each in names:
        check_string("name", each)
    return list(names)


def _found(params: Mapping[str, Any]) -> list[str]:
    """The cores with default names, from the inputs upwards."""
    own = [re.sub(r"/linear(_1)?$", "", str(module)) for module in params]
    found = {name: match for name in own if (match := _MODULE.fullmatch(name))}
    if len({match[1] for match in found.values()}) != 1:
        raise ValueError(
            "`name` must be given unless the cores are lstm, lstm_1 and so on, or gru, "
            "or vanilla_rnn, of one module: their order is not clear. There is: "
            f"{', '.join(map(str, found or params)) or 'nothing'}."
        )
    return sorted(found, key=lambda name: int(found[name][2] or 0))


def _layer(params: Mapping[str, Any], name: str) -> LayerWeights:
    first, second = f"{name}/linear", f"{name}/linear_1"
    own = {each: params[each] for each in (name, first, second) if each in params}
    for each, weights in own.items():
        check_mapping(each, weights)
    read = reader(flattened(own))
    if name in own:
        check_names(name, own[name], ["w_i", "w_h", "b"])
        return _gru(name, read)
    if first not in own:
        there = ", ".join(map(str, params)) or "nothing"
        raise ValueError(
            f"`{name}` (of a GRU) or `{first}` (of an LSTM or VanillaRNN) is missing. "
            f"There is: {there}."
        )
    check_names(first, own[first], ["w", "b"])
    if second in own:
        has_bias = "b" in own[second]
        check_names(second, own[second], ["w", "b"] if has_bias else ["w"])
        return _rnn(first, second, read, has_bias)
    if re.fullmatch(rf"(.*/)?{_NAMES[RNN]}(_\d+)?", name):
        raise ValueError(f"`{second}` is missing, which a VanillaRNN has.")
    return _lstm(first, read)


def _lstm(name: str, read: Read) -> LayerWeights:
    w = read(f"{name}/w", None, None)
    units, rest = divmod(w.shape[1], 4)
    bias = read(f"{name}/b", w.shape[1])
    if rest or w.shape[0] <= units:
        raise ValueError(
            f"`{name}/w` must have shape [depth + units, 4 * units], as that of an "
            f"LSTM, got {describe(w)}."
        )
    return LayerWeights(LSTM, w[:-units], w[-units:], bias, forget_bias=1.0)


def _rnn(first: str, second: str, read: Read, has_bias: bool) -> LayerWeights:
    inputs = read(f"{first}/w", None, None)
    units = inputs.shape[1]
    bias, state = read(f"{first}/b", units), read(f"{second}/w", units, units)
    if has_bias:
        bias = bias + read(f"{second}/b", units)
    return LayerWeights(RNN, inputs, state, bias, activation="relu")


def _gru(name: str, read: Read) -> LayerWeights:
    units = read(f"{name}/w_h", None, None).shape[0]
    shapes = {"w_i": (None, 3 * units), "w_h": (units, 3 * units), "b": (3 * units,)}
    get = lambda key: _flipped(read(f"{name}/{key}", *shapes[key]), _ORDER, GATES[GRU])
    return LayerWeights(GRU, get("w_i"), get("w_h"), get("b"))


def _flipped(array: np.ndarray, old: str, new: str) -> np.ndarray:
    """The blocks reordered, z negated: sigmoid(-z) = 1 - sigmoid(z)."""
    array = reordered(array, old, _ORDER)
    units = array.shape[-1] // len(_ORDER)
    array[..., :units] *= -1
    return reordered(array, _ORDER, new)


def _given(layers: Sequence[LayerWeights]) -> list[str]:
    """The names that Haiku gives: lstm, lstm_1, gru, lstm_2."""
    names = [_NAMES[layer.kind] for layer in layers]
    numbers = [names[:i].count(name) for i, name in enumerate(names)]
    pairs = zip(names, numbers, strict=True)
    return [f"{name}_{number}" if number else name for name, number in pairs]


def _weights(name: str, layer: LayerWeights) -> dict[str, dict[str, np.ndarray]]:
    bias = layer.bias_for(1.0)
    if layer.kind == GRU:
        arrays = {"w_i": layer.input_kernel, "w_h": layer.state_kernel, "b": bias}
        return {name: {k: _flipped(x, GATES[GRU], _ORDER) for k, x in arrays.items()}}
    first, second = f"{name}/linear", f"{name}/linear_1"
    if layer.kind == LSTM:
        return {
            first: {
                "w": np.concatenate([layer.input_kernel, layer.state_kernel]),
                "b": bias,
            }
        }
    return {
        first: {"w": layer.input_kernel, "b": bias},
        second: {"w": layer.state_kernel, "b": np.zeros_like(bias)},
    }
