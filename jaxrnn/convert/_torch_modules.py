"""Weights of PyTorch's recurrent modules; all layers of a module have the same kind."""

import re
from collections.abc import Sequence

import numpy as np

from .._base.arguments import check_one_of
from .._base.errors import InvalidValue, error_note
from .._base.math import is_traced
from ._bound_cells import Named
from ._layer_weights import Kind, LayerWeights, Library, kind_of
from ._weights import (
    Weight,
    Weights,
    as_mapping,
    check_directions,
    check_string,
    listed,
    reader,
)

LIBRARY = Library(
    "PyTorch",
    {Kind.RNN: "c", Kind.GRU_AFTER: "ruc", Kind.LSTM: "ifjo"},
    lacks=("peepholes", "clips"),
    activations={
        Kind.RNN: ("tanh", "relu"),
        Kind.GRU_AFTER: ("tanh",),
        Kind.LSTM: ("tanh",),
    },
)
_NAME = re.compile(r"(weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)_l(\d+)(_reverse)?")


def layers_of_module(
    state_dict: object, prefix: str, nonlinearity: str, directions: int
) -> list[tuple[LayerWeights, ...]]:
    """The weights of each layer: one `LayerWeights` per direction.

    Raises:
        TypeError: If `state_dict` is not a mapping, or a weight is not a floating
            array.
        ValueError: If a weight is missing, unknown, or has the wrong shape; if the
            module does not have this number of directions, or does not support
            `nonlinearity`.
    """
    state_dict = as_mapping("state_dict", state_dict, "Pass `module.state_dict()`.")
    check_string("prefix", prefix)
    for key in state_dict:
        check_string("key of state_dict", key)
    with_prefix = {k: v for k, v in state_dict.items() if k.startswith(prefix)}
    matches = _matches(with_prefix, prefix)
    first = f"{prefix}weight_ih_l0"
    if first not in with_prefix:
        raise InvalidValue(
            f"`{first}` is missing. Found: {listed(state_dict)}. `prefix` is what the "
            "names of the module's weights begin with."
        )
    check_directions("state_dict", 1 + any(match[3] for match in matches), directions)
    suffixes = ("", "_reverse")[:directions]
    kinds = {match[1] for match in matches}
    layers: list[tuple[LayerWeights, ...]] = []
    depth = None
    for k in range(1 + max(int(match[2]) for match in matches)):
        names = [f"{prefix}{{}}_l{k}{suffix}" for suffix in suffixes]
        layer = tuple(_layer(with_prefix, n, kinds, depth, nonlinearity) for n in names)
        depth = sum(direction.state_kernel.shape[0] for direction in layer)
        layers.append(layer)
    _check_alike([direction for layer in layers for direction in layer])
    return layers


def _matches(with_prefix: Weights, prefix: str) -> list[re.Match[str]]:
    """The names of this module's weights; names of other weights are left out."""
    matches = []
    for name in with_prefix:
        match = _NAME.fullmatch(name, len(prefix))
        if match:
            matches.append(match)
        elif re.match(r"(weight|bias)_[^.]*$", name[len(prefix) :]):
            raise InvalidValue(
                f"`{name}` is unknown. A layer has weight_ih, weight_hh, weight_hr, "
                "bias_ih and bias_hh, e.g. weight_ih_l0 or weight_ih_l0_reverse."
            )
    return matches


def _layer(
    weights: Weights, name: str, kinds: set[str], depth: int | None, nonlinearity: str
) -> LayerWeights:
    """One direction of a layer.

    `name` has a placeholder for the kind of weight, e.g. "weight_ih". `kinds` contains
    all kinds of weights that occur in the module.
    """
    read = reader(weights)

    def get(what: str, *shape: int | None) -> Weight:
        return read(name.format(what), *shape)

    state = get("weight_hh", None, None)
    projection = None
    rows, units = state.shape
    if "weight_hr" in kinds:
        projection = get("weight_hr", units, None).T
        units = projection.shape[0]
    kind = kind_of(name.format("weight_hh"), state, rows, units, Kind.GRU_AFTER)
    if projection is not None and kind != Kind.LSTM:
        raise InvalidValue(
            f"`{name.format('weight_hr')}` is only for an LSTM, got {_short(kind)}."
        )
    choices = LIBRARY.activations[kind]
    what = f"{' or '.join(choices)} for {_short(kind)}"
    check_one_of("nonlinearity", nonlinearity, choices, what)
    with error_note(f"The rows follow from `{name.format('weight_hh')}`."):
        inputs = get("weight_ih", rows, depth)
    biases = [np.zeros(rows, state.dtype)] * 2
    if kinds & {"bias_ih", "bias_hh"}:
        biases = [get("bias_ih", rows), get("bias_hh", rows)]
    return LIBRARY.layer(
        kind,
        inputs.T,
        state.T,
        *biases,
        projection=projection,
        activation=nonlinearity,
    )


def as_state_dict(
    layers: Sequence[tuple[Named, ...]], prefix: str
) -> dict[str, np.ndarray]:
    """The weights of all layers, by name; each layer has one or two named directions.

    Raises:
        TypeError: If `prefix` is not a string.
        ValueError: If the layers cannot form one module.
    """
    check_string("prefix", prefix)
    for each in layers:
        for name, layer in each:
            _check_projection(name, layer)
    _check_alike([layer for each in layers for _, layer in each])
    arrays: dict[str, np.ndarray] = {}
    for k, each in enumerate(layers):
        for suffix, (_, layer) in zip(("", "_reverse"), each, strict=False):
            for name, array in _weights(layer).items():
                # PyTorch requires writable arrays.
                own = array.T if is_traced(array) else np.array(array.T, order="C")
                arrays[f"{prefix}{name}_l{k}{suffix}"] = own
    return arrays


def _weights(layer: LayerWeights) -> dict[str, np.ndarray]:
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    weights: dict[str, np.ndarray] = {}
    weights |= zip(names, LIBRARY.arrays(layer), strict=True)
    if layer.projection is not None:
        weights["weight_hr"] = layer.projection
    return weights


def _check_projection(name: str, layer: LayerWeights) -> None:
    """Raises ValueError unless a projection is smaller than the number of units."""
    if layer.projection is not None and layer.projection.shape[1] >= layer.units:
        raise InvalidValue(
            f"`{name}` must have `num_proj` below `num_units`, as PyTorch requires for "
            f"`proj_size`, got {layer.projection.shape[1]} and {layer.units}."
        )


def _check_alike(layers: Sequence[LayerWeights]) -> None:
    """Raises ValueError for layers that cannot form one module."""
    seen = sorted({_description(layer) for layer in layers})
    if len(seen) > 1:
        raise InvalidValue(
            "all layers must have the same kind, sizes and activation to form one "
            f"module, got {' and '.join(seen)}. Convert each layer separately."
        )


def _description(layer: LayerWeights) -> str:
    text = f"{_short(layer.kind)} of {layer.units} units"
    if layer.projection is not None:
        text += f" projected to {layer.projection.shape[1]}"
    return f"{text} with {layer.activation_name}"


def _short(kind: Kind) -> str:
    return "GRU" if kind == Kind.GRU_AFTER else kind
