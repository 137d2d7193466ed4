"""The attributes of ONNX's recurrent nodes, and which of them cells can express."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .._base.errors import describe
from .._cells.activations import ACTIVATIONS, resolve_activation
from ._layer_weights import GRU, GRU_AFTER, LSTM, RNN, LayerWeights, kind_of
from ._weights import check_mapping

# The activations of ONNX that cells have too, as long as alpha and beta are not given.
_ACTIVATIONS = {
    "Elu": "elu",
    "HardSigmoid": "hard_sigmoid",
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Tanh": "tanh",
}
_DIRECTIONS = {"forward": 1, "bidirectional": 2}
_KNOWN = (
    *("op_type", "W", "R", "B", "P", "direction", "activations", "activation_alpha"),
    *("activation_beta", "clip", "input_forget", "linear_before_reset"),
    *("hidden_size", "layout"),  # W, R and B suffice without them.
)


def check_node(name: str, node: Any) -> None:
    """Raises TypeError for what is not a dict, ValueError for unknown attributes."""
    check_mapping(name, node)
    operator = _text(node.get("op_type", "LSTM"))
    if operator not in ("LSTM", "GRU", "RNN"):
        raise ValueError(
            f"`{name}['op_type']` must be LSTM, GRU or RNN, got {describe(operator)}."
        )
    for key in node:
        if key not in _KNOWN:
            raise ValueError(
                f"`{name}[{key!r}]` is not known. A node may have {', '.join(_KNOWN)}."
            )
    for key in ("clip", "input_forget", "activation_alpha", "activation_beta"):
        value = node.get(key)
        is_default = not np.size(value) or (key == "input_forget" and not value)
        if value is not None and not is_default:
            raise ValueError(
                f"`{name}['{key}']` must be left out, got {value!r}. No cell can do "
                "that."
            )


def check_direction(
    name: str, node: Mapping[str, Any], w: np.ndarray, wanted: str, other: str
) -> None:
    """Raises ValueError for another direction than `wanted`; names `other` for it."""
    by_shape = "bidirectional" if len(w) == 2 else "forward"
    direction = _text(node.get("direction", by_shape))
    if direction not in tuple(_DIRECTIONS):
        fix = " Load it as 'forward', and reverse its inputs and outputs."
        raise ValueError(
            f"`{name}['direction']` must be forward or bidirectional, got "
            f"{describe(direction)}.{fix if direction == 'reverse' else ''}"
        )
    if len(w) != _DIRECTIONS[direction]:
        raise ValueError(
            f"`{name}['W']` must have {_DIRECTIONS[direction]} as its first axis, for "
            f"the direction {direction!r}, got {describe(w)}."
        )
    if direction != wanted:
        raise ValueError(f"`{name}` must be {wanted}, got {direction}. Use `{other}`.")


def kind_of_node(name: str, node: Mapping[str, Any], r: np.ndarray) -> str:
    """The `kind` of a `LayerWeights`, from the shape of R and the attributes."""
    _, rows, units = r.shape
    kind = kind_of(f"{name}['R']", r, rows, units)
    wanted = _text(node.get("op_type", kind))
    if wanted != kind:
        raise ValueError(
            f"`{name}['R']` must be of the operator {wanted}, got that of {kind}, "
            f"{describe(r)}."
        )
    for key, owner in (("P", LSTM), ("linear_before_reset", GRU)):
        if node.get(key) is not None and kind != owner:
            raise ValueError(
                f"`{name}['{key}']` belongs to the operator {owner}, and this node's "
                f"is {kind}."
            )
    if node.get("hidden_size", units) != units:
        raise ValueError(
            f"`{name}['hidden_size']` must be {units}, as `R` has it, got "
            f"{node['hidden_size']}."
        )
    after = node.get("linear_before_reset") or 0
    if after not in (0, 1):
        raise ValueError(
            f"`{name}['linear_before_reset']` must be 0 or 1, got {after!r}."
        )
    return GRU_AFTER if after else kind


def read_activations(
    name: str, node: Mapping[str, Any], kind: str, count: int
) -> list[str]:
    """The activation of each direction; those of the gates must be sigmoids."""
    given = node.get("activations")
    if given is None:
        return ["tanh"] * count
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise TypeError(
            f"`{name}['activations']` must be a list of names, got {describe(given)}."
        )
    given = list(map(_text, given))
    size = len(spell(kind, "Tanh"))
    own = given[size - 1 :: size]
    spelled = [each for one in own for each in spell(kind, one)]
    if given != spelled or len(own) != count or not set(own) <= set(_ACTIVATIONS):
        raise ValueError(
            f"`{name}['activations']` must be {', '.join(spell(kind, 'activation'))} "
            f"for each direction, with one activation of {', '.join(_ACTIVATIONS)}, "
            f"got {given}."
        )
    return [_ACTIVATIONS[one] for one in own]


def spell(kind: str, activation: str) -> list[str]:
    """The attribute `activations` of one direction."""
    gates = [] if kind == RNN else ["Sigmoid"]
    return gates + [activation] * (2 if kind == LSTM else 1)


def activation_name(name: str, layer: LayerWeights) -> str:
    """ONNX's name of a layer's activation."""
    activation = resolve_activation("convert", layer.activation)
    for theirs, ours in _ACTIVATIONS.items():
        if ACTIVATIONS[ours] is activation:
            return theirs
    raise ValueError(
        f"`{name}` must have an activation of ONNX, "
        f"{', '.join(_ACTIVATIONS.values())}, got {layer.activation_name}."
    )


def _text(value: Any) -> Any:
    """A string attribute; protocol buffers hold bytes."""
    return value.decode() if isinstance(value, bytes) else value
