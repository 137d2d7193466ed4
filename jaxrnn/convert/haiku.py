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
from ._counterparts import (
    bias_without,
    check_activation,
    check_names,
    check_plain,
    check_resets,
)
from ._layer_weights import GATES, GRU, LSTM, RNN, LayerWeights, bind, reordered, unbind
from ._weights import Read, check_mapping, check_string, reader

__all__ = ["as_cell", "load", "save"]

_NAMES = {LSTM: "lstm", GRU: "gru", RNN: "vanilla_rnn"}
_MODULE = re.compile(rf"((?:.*/)?(?:{'|'.join(_NAMES.values())}))(?:_(\d+))?")
_ORDER = "urc"  # z, r and a; u is 1 - z.


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
        TypeError: If `params` are no nested dicts, or a weight is not a floating array.
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
    where = "convert.haiku.load"
    check_mapping(where, "params", params)
    names = _found(where, params) if name is None else _as_names(where, name)
    return bind(where, [_layer(where, params, each) for each in names])


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
    where = "convert.haiku.save"
    layers = unbind(where, "cell", cell)
    for layer in layers:
        check_plain(where, "cell", layer, "Haiku")
        check_resets(where, "cell", layer, "Haiku", GRU)
        core = {LSTM: "LSTM", GRU: "GRU", RNN: "VanillaRNN"}[layer.kind]
        wanted = "relu" if layer.kind == RNN else "tanh"
        check_activation(where, "cell", layer, f"Haiku's {core}", wanted)
    names = _given(layers) if name is None else _as_names(where, name)
    if len(set(names)) != len(layers):
        raise ValueError(
            f"{where}: `name` must be one for each of {len(layers)} layers, got "
            f"{', '.join(names)}."
        )
    pairs = zip(names, layers, strict=True)
    return {k: v for pair in pairs for k, v in _weights(*pair).items()}


def _as_names(where: str, name: Any) -> list[str]:
    names = [name] if isinstance(name, str) else name
    if not isinstance(names, Sequence) or not names:
        raise TypeError(
            f"{where}: `name` must be a module's name or a list of at least one, got "
            f"{describe(name)}."
        )
    for each in names:
        check_string(where, "name", each)
    return list(names)


def _found(where: str, params: Mapping[str, Any]) -> list[str]:
    """The cores with Haiku's own names, from the inputs upwards."""
    own = [re.sub(r"/linear(_1)?$", "", str(module)) for module in params]
    found = {name: match for name in own if (match := _MODULE.fullmatch(name))}
    if len({match[1] for match in found.values()}) != 1:
        got = found or params
        raise ValueError(
            f"{where}: `name` must be given unless the cores are lstm, lstm_1 and so "
            "on, or gru, or vanilla_rnn, of one module: their order is not clear. "
            f"There is: {', '.join(map(str, got)) or 'nothing'}."
        )
    return sorted(found, key=lambda name: int(found[name][2] or 0))


def _layer(where: str, params: Mapping[str, Any], name: str) -> LayerWeights:
    first, second = f"{name}/linear", f"{name}/linear_1"
    if name in params:
        return _gru(where, name, params[name])
    if first not in params:
        there = ", ".join(map(str, params)) or "nothing"
        raise ValueError(
            f"{where}: `{name}` (of a GRU) or `{first}` (of an LSTM or VanillaRNN) is "
            f"missing. There is: {there}."
        )
    if second in params:
        return _rnn(where, first, params[first], second, params[second])
    if re.fullmatch(rf"(.*/)?{_NAMES[RNN]}(_\d+)?", name):
        raise ValueError(f"{where}: `{second}` is missing, which a VanillaRNN has.")
    w, b = _linear(where, reader(where), first, params[first])
    units, rest = divmod(w.shape[1], 4)
    if rest or w.shape[0] <= units:
        raise ValueError(
            f"{where}: `{first}/w` must have shape [depth + units, 4 * units], as that "
            f"of an LSTM, got {describe(w)}."
        )
    return LayerWeights(LSTM, w[:-units], w[-units:], b, forget_bias=1.0)


def _rnn(where: str, first: str, own: Any, second: str, recurrent: Any) -> LayerWeights:
    read = reader(where)
    inputs, bias = _linear(where, read, first, own)
    units = bias.shape[0]
    check_mapping(where, second, recurrent)
    if "b" in recurrent:
        state, more = _linear(where, read, second, recurrent, units, units)
        bias = bias + more
    else:
        check_names(where, second, recurrent, ["w"])
        state = read(f"{second}/w", recurrent["w"], (units, units))
    return LayerWeights(RNN, inputs, state, bias, activation="relu")


def _linear(
    where: str, read: Read, name: str, weights: Any, *shape: int
) -> tuple[np.ndarray, np.ndarray]:
    check_mapping(where, name, weights)
    check_names(where, name, weights, ["w", "b"])
    w = read(f"{name}/w", weights["w"], shape or (None, None))
    return w, read(f"{name}/b", weights["b"], w.shape[1:])


def _gru(where: str, name: str, weights: Any) -> LayerWeights:
    check_mapping(where, name, weights)
    check_names(where, name, weights, ["w_i", "w_h", "b"])
    read = reader(where)
    get = lambda key, *shape: read(f"{name}/{key}", weights[key], shape)
    units = get("w_h", None, None).shape[0]
    shapes = {"w_i": (None, 3 * units), "w_h": (units, 3 * units), "b": (3 * units,)}
    ours = lambda key: _flipped(get(key, *shapes[key]), _ORDER, GATES[GRU])
    return LayerWeights(GRU, ours("w_i"), ours("w_h"), ours("b"))


def _flipped(array: np.ndarray, order: str, names: str) -> np.ndarray:
    """The blocks reordered, z negated: sigmoid(-z) = 1 - sigmoid(z)."""
    array = reordered(array, order, _ORDER)
    units = array.shape[-1] // len(_ORDER)
    array[..., :units] *= -1
    return reordered(array, _ORDER, names)


def _given(layers: Sequence[LayerWeights]) -> list[str]:
    """The names that Haiku gives: lstm, lstm_1, gru, lstm_2."""
    names, count = [], dict.fromkeys(_NAMES, 0)
    for layer in layers:
        number, name = count[layer.kind], _NAMES[layer.kind]
        names.append(f"{name}_{number}" if number else name)
        count[layer.kind] += 1
    return names


def _weights(name: str, layer: LayerWeights) -> dict[str, dict[str, np.ndarray]]:
    bias = bias_without(layer, 1.0)
    if layer.kind == GRU:
        arrays = {"w_i": layer.inputs, "w_h": layer.state, "b": bias}
        theirs = lambda array: _flipped(array, GATES[GRU], _ORDER)
        return {name: {key: theirs(array) for key, array in arrays.items()}}
    first, second = f"{name}/linear", f"{name}/linear_1"
    if layer.kind == LSTM:
        return {first: {"w": np.concatenate([layer.inputs, layer.state]), "b": bias}}
    return {
        first: {"w": layer.inputs, "b": bias},
        second: {"w": layer.state, "b": np.zeros_like(bias)},
    }
