"""Weights of PyTorch's `nn.LSTM`, `nn.GRU` and `nn.RNN`.

    lstm = torch.nn.LSTM(3, 5, num_layers=2, batch_first=True)
    cell = jaxrnn.convert.torch.load(lstm.state_dict())
    outputs, states = jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)

PyTorch's state of an LSTM is (h, c), all layers in one array; here it is (c, h) for
each layer. PyTorch adds two biases; here is their sum.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._base.errors import describe
from .._cells.activations import resolve_activation
from .._cells.bound import BoundCell
from ._counterparts import check_resets
from ._layer_weights import (
    GATES,
    GRU,
    GRU_AFTER,
    LSTM,
    RNN,
    LayerWeights,
    bind,
    reordered,
)
from ._pairs import (
    bind_both,
    kind_of,
    merge_biases,
    split_biases,
    unbind_both,
    unbind_named,
)
from ._weights import check_mapping, check_string, pick, reader

__all__ = ["load", "load_bidirectional", "save", "save_bidirectional"]

# The blocks of rows, under the names of `GATES`.
_ORDER = {RNN: "c", GRU_AFTER: "ruc", LSTM: "ifjo"}
_NAME = re.compile(r"((?:weight_(?:ih|hh|hr)|bias_(?:ih|hh))_l)(\d+)(_reverse)?")


def load(
    state_dict: Mapping[str, Any], prefix: str = "", nonlinearity: str = "tanh"
) -> BoundCell:
    """The bound cell of a module with one direction.

    The kind of module (LSTM, GRU or RNN), its layers and its projection are inferred
    from names and shapes. Modules without biases get biases of zeros.

    Args:
        state_dict: That of the module or of a whole model; tensors or NumPy arrays.
        prefix: The prefix of the names of the module's weights, with the dot:
            `"encoder.rnn."`.
        nonlinearity: That of an `nn.RNN`, "tanh" or "relu".

    Returns:
        A bound `LSTMCell` with `forget_bias=0`, `CudnnCompatibleGRUCell` or
        `BasicRNNCell`; of several layers a bound `MultiRNNCell`.

    Raises:
        TypeError: If `state_dict` is not a mapping, or a weight is not a floating
            array.
        ValueError: If a weight is missing, not known, or of the wrong shape; if there
            are two directions; if the module cannot have that `nonlinearity`.

    Example:
        >>> import numpy as np, jaxrnn.convert.torch
        >>> shapes = {"weight_ih_l0": (20, 3), "weight_hh_l0": (20, 5)}
        >>> state_dict = {k: np.ones(v, np.float32) for k, v in shapes.items()}
        >>> cell = jaxrnn.convert.torch.load(state_dict)
        >>> type(cell.cell).__name__, cell.state_size
        ('LSTMCell', LSTMStateTuple(c=5, h=5))
        >>> list(jaxrnn.convert.torch.save(cell, "rnn."))[:3]
        ['rnn.weight_ih_l0', 'rnn.weight_hh_l0', 'rnn.bias_ih_l0']
    """
    where = "convert.torch.load"
    layers = _layers(where, state_dict, prefix, nonlinearity)
    if len(layers[0]) > 1:
        raise ValueError(
            f"{where}: `state_dict` must be of one direction, got "
            f"`{prefix}weight_ih_l0_reverse`. Use `load_bidirectional`."
        )
    return bind(where, [layer for (layer,) in layers])


def load_bidirectional(
    state_dict: Mapping[str, Any], prefix: str = "", nonlinearity: str = "tanh"
) -> tuple[tuple[BoundCell, ...], tuple[BoundCell, ...]]:
    """The bound cells of a module with two directions.

    Args:
        state_dict: As in `load`.
        prefix: As in `load`.
        nonlinearity: As in `load`.

    Returns:
        `(cells_fw, cells_bw)`, each with a cell for each layer, as
        `stack_bidirectional_dynamic_rnn` takes them.

    Raises:
        TypeError: As in `load`.
        ValueError: If there is one direction; as in `load`.
    """
    where = "convert.torch.load_bidirectional"
    layers = _layers(where, state_dict, prefix, nonlinearity)
    if len(layers[0]) == 1:
        raise ValueError(
            f"{where}: `state_dict` must be of two directions, got no "
            f"`{prefix}weight_ih_l0_reverse`. Use `load`."
        )
    return bind_both(where, layers)


def save(cell: BoundCell, prefix: str = "") -> dict[str, np.ndarray]:
    """The `state_dict` of a cell, as NumPy arrays.

    `module.load_state_dict({k: torch.from_numpy(v) for k, v in save(cell).items()})`
    takes them, for a module with biases; cast arrays of bfloat16 to float32 first. An
    `nn.RNN` needs the `nonlinearity` of the cell, and so does `load`. Biases are in
    `bias_ih`, including the forget bias; the bias that a reset gate multiplies is in
    `bias_hh`.

    Args:
        cell: A bound `BasicRNNCell`, `BasicLSTMCell`, `LSTMCell` or
            `CudnnCompatibleGRUCell`, or a bound `MultiRNNCell` of equal ones.
        prefix: The prefix of all names.

    Raises:
        TypeError: If `cell` is not such a bound cell.
        ValueError: For what PyTorch does not have: a `GRUCell`, peepholes, clips, other
            activations, a projection not smaller than the units, layers that differ.
    """
    where = "convert.torch.save"
    layers = [(each,) for each in unbind_named(where, "cell", cell)]
    return _state_dict(where, layers, prefix)


def save_bidirectional(
    cells_fw: Sequence[BoundCell], cells_bw: Sequence[BoundCell], prefix: str = ""
) -> dict[str, np.ndarray]:
    """The `state_dict` of the cells of both directions; see `save`.

    Args:
        cells_fw: A cell for each layer, each as in `save`.
        cells_bw: The cells of the backward direction, likewise.
        prefix: As in `save`.

    Raises:
        TypeError: As in `save`.
        ValueError: If both do not have the same number of layers; as in `save`.
    """
    where = "convert.torch.save_bidirectional"
    layers = [
        ((f"cells_fw[{i}]", fw), (f"cells_bw[{i}]", bw))
        for i, (fw, bw) in enumerate(unbind_both(where, cells_fw, cells_bw))
    ]
    return _state_dict(where, layers, prefix)


def _layers(
    where: str, state_dict: Any, prefix: str, nonlinearity: str
) -> list[tuple[LayerWeights, ...]]:
    """The one or two directions of each layer."""
    check_mapping(where, "state_dict", state_dict)
    check_string(where, "prefix", prefix)
    for key in state_dict:
        check_string(where, "key of state_dict", key)
    own = {k: v for k, v in state_dict.items() if k.startswith(prefix)}
    found = _matches(where, own, prefix)
    if not found:
        pick(where, own or state_dict, f"{prefix}weight_ih_l0")
    suffixes = ("", "_reverse") if any(match[3] for match in found) else ("",)
    given = {match[1] for match in found}
    layers, depth = [], None
    for k in range(1 + max(int(match[2]) for match in found)):
        names = [(f"{prefix}{{}}_l{k}{suffix}", given) for suffix in suffixes]
        layer = tuple(_layer(where, own, *each, depth, nonlinearity) for each in names)
        depth = sum(direction.state.shape[0] for direction in layer)
        layers.append(layer)
    _check_alike(where, [direction for layer in layers for direction in layer])
    return layers


def _matches(where: str, own: dict[str, Any], prefix: str) -> list[re.Match[str]]:
    """The names of the module's weights; those of other modules are ignored."""
    found = []
    for name in own:
        match = _NAME.fullmatch(name, len(prefix))
        if match:
            found.append(match)
        elif re.match(r"(weight|bias)_[^.]*$", name[len(prefix) :]):
            raise ValueError(
                f"{where}: `{name}` is not known. A module has weight_ih_l0, "
                "weight_hh_l0, bias_ih_l0, bias_hh_l0, weight_hr_l0, and so on for "
                "each layer, with _reverse for the backward direction."
            )
    return found


def _layer(
    where: str,
    own: dict[str, Any],
    name: str,
    given: set[str],
    depth: int | None,
    nonlinearity: str,
) -> LayerWeights:
    """One direction of a layer.

    `name` has a placeholder for "weight_ih" and so on; `given` are the names that any
    layer has, up to its number.
    """
    read = reader(where)

    def get(what: str, *shape: int | None) -> np.ndarray:
        full = name.format(what)
        return read(full, pick(where, own, full), shape)

    state, projection = get("weight_hh", None, None), None
    rows, units = state.shape
    if "weight_hr_l" in given:
        projection = get("weight_hr", units, None).T
        units = projection.shape[0]
    kind = kind_of(where, name.format("weight_hh"), rows, units, state)
    if projection is not None and kind != LSTM:
        raise ValueError(
            f"{where}: `{name.format('weight_hr')}` is of LSTM, got it of {kind}."
        )
    kind = GRU_AFTER if kind == GRU else kind
    inputs = get("weight_ih", rows, depth)
    biases = np.zeros((2, rows), state.dtype)
    if given & {"bias_ih_l", "bias_hh_l"}:
        biases = get("bias_ih", rows), get("bias_hh", rows)
    ours = lambda array: reordered(array.T, _ORDER[kind], GATES[kind])
    bias, state_bias = merge_biases(kind, *map(ours, biases))
    return LayerWeights(
        kind,
        ours(inputs),
        ours(state),
        bias,
        state_bias,
        projection=projection,
        activation=_activation(where, kind, nonlinearity),
    )


def _activation(where: str, kind: str, nonlinearity: str) -> str:
    names = ("tanh", "relu") if kind == RNN else ("tanh",)
    if nonlinearity not in names:
        raise ValueError(
            f"{where}: `nonlinearity` of {kind} must be {' or '.join(names)}, got "
            f"{describe(nonlinearity)}."
        )
    return nonlinearity


def _state_dict(
    where: str, layers: Sequence[tuple[tuple[str, LayerWeights], ...]], prefix: str
) -> dict[str, np.ndarray]:
    """All weights of layers; a layer is one or two directions with their names."""
    check_string(where, "prefix", prefix)
    for pair in layers:
        for name, layer in pair:
            _check(where, name, layer)
    _check_alike(where, [layer for pair in layers for _, layer in pair])
    arrays = {}
    for k, pair in enumerate(layers):
        for suffix, (_, layer) in zip(("", "_reverse"), pair, strict=False):
            for name, array in _weights(layer).items():
                # PyTorch requires writable arrays.
                arrays[f"{prefix}{name}_l{k}{suffix}"] = np.array(array.T, order="C")
    return arrays


def _weights(layer: LayerWeights) -> dict[str, np.ndarray]:
    of_inputs, of_state = split_biases(layer)
    arrays = {
        "weight_ih": layer.inputs,
        "weight_hh": layer.state,
        "bias_ih": of_inputs,
        "bias_hh": of_state,
    }
    order = GATES[layer.kind], _ORDER[layer.kind]
    weights = {name: reordered(array, *order) for name, array in arrays.items()}
    if layer.projection is not None:
        weights["weight_hr"] = layer.projection
    return weights


def _check(where: str, name: str, layer: LayerWeights) -> None:
    """Raises ValueError for what PyTorch's modules cannot express."""
    check_resets(where, name, layer, "PyTorch", GRU_AFTER)
    if layer.peepholes is not None:
        raise ValueError(
            f"{where}: `{name}` must have no peepholes, which PyTorch's LSTM does not "
            "have, got `use_peepholes=True`."
        )
    activation = resolve_activation(where, layer.activation)
    names = ("tanh", "relu") if layer.kind == RNN else ("tanh",)
    if activation not in [resolve_activation(where, one) for one in names]:
        raise ValueError(
            f"{where}: `{name}` must have the activation {' or '.join(names)}, as "
            f"PyTorch's modules, got {getattr(activation, '__name__', activation)}."
        )
    if layer.projection is not None and layer.projection.shape[1] >= layer.units:
        raise ValueError(
            f"{where}: `{name}` must have `num_proj` below `num_units`, as PyTorch's "
            f"`proj_size`, got {layer.projection.shape[1]} and {layer.units}."
        )


def _check_alike(where: str, layers: Sequence[LayerWeights]) -> None:
    """Raises ValueError for layers that cannot form one module."""
    seen = sorted({_description(layer) for layer in layers})
    if len(seen) > 1:
        raise ValueError(
            f"{where}: all layers must be alike, as those of a module are, got "
            f"{' and '.join(seen)}. Convert each by itself."
        )


def _description(layer: LayerWeights) -> str:
    kind = "GRU" if layer.kind == GRU_AFTER else layer.kind
    activation = resolve_activation("convert.torch", layer.activation)
    text = f"{kind} of {layer.units} units"
    if layer.projection is not None:
        text += f" projected to {layer.projection.shape[1]}"
    return text + f" with {getattr(activation, '__name__', activation)}"
