"""The attributes of ONNX's recurrent operators that jaxrnn's cells can express."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._base.arguments import check_instance, check_one_of
from .._base.errors import InvalidType, InvalidValue, describe
from ._layer_weights import LSTM, RNN
from ._weights import listed

# The activations that jaxrnn and ONNX share.
ACTIVATIONS = {
    "Elu": "elu",
    "HardSigmoid": "hard_sigmoid",
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Tanh": "tanh",
}
_SPELLINGS = {name.lower(): name for name in ACTIVATIONS}
# ONNX's defaults, which the functions of jaxrnn have.
_DEFAULTS = {
    "activation_alpha": {"Elu": 1.0, "HardSigmoid": 0.2},
    "activation_beta": {"HardSigmoid": 0.5},
}
# These are constant for large inputs of either sign.
_SATURATING = {"HardSigmoid", "Sigmoid", "Tanh"}


def read_activations(
    name: str, node: Mapping[str, Any], kind: str, w: np.ndarray
) -> list[str]:
    """The activation of each direction.

    Args:
        name: The name of the node, for messages.
        node: The attributes, with strings in place of byte strings.
        kind: The kind of layer.
        w: The node's W, whose first axis holds the directions.

    Raises:
        TypeError: If `activations` is not a list.
        ValueError: If a gate does not use the sigmoid, an activation has no equivalent
            in jaxrnn, or `activation_alpha`, `activation_beta` or `clip` would change
            the results.
    """
    given = _names(name, node, kind, len(w))
    size = len(spelled(kind, "Tanh"))
    what = f"`{name}['activations']`"
    if len(given) != size * len(w):
        raise InvalidValue(
            f"the number of names in {what} must be {size * len(w)}, {size} per "
            f"direction of {kind}, got {given}."
        )
    own = given[size - 1 :: size]
    for i, activation in enumerate(own):
        _check_direction(what, kind, given[i * size : (i + 1) * size], activation)
    for key, defaults in _DEFAULTS.items():
        _check_defaults(f"{name}['{key}']", node.get(key), given, defaults)
    _check_clip(f"{name}['clip']", node.get("clip"), given, w.dtype)
    return [ACTIVATIONS[one] for one in own]


def _check_direction(what: str, kind: str, given: list[str], activation: str) -> None:
    """Raises ValueError unless a cell has the activations of one direction."""
    fix = "Write the step as a FunctionCell."
    if kind != RNN and given[0] != "Sigmoid":
        raise InvalidValue(f"{what}: the gates must be Sigmoid, got {given[0]}. {fix}")
    if activation not in ACTIVATIONS:
        known = " or ".join(ACTIVATIONS)
        raise InvalidValue(f"{what} must be {known}, got {activation}. {fix}")
    if given != spelled(kind, activation):
        raise InvalidValue(
            f"{what}: the second and third name must be equal, got {given[1]} and "
            f"{activation}. {fix}"
        )


def spelled(kind: str, activation: str) -> list[str]:
    """The entries of the attribute `activations` for one direction."""
    gates = [] if kind == RNN else ["Sigmoid"]
    return gates + [activation] * (2 if kind == LSTM else 1)


def _names(name: str, node: Mapping[str, Any], kind: str, count: int) -> list[str]:
    """The activations by ONNX's names; onnxruntime accepts them in any case."""
    given = node.get("activations")
    if given is None:
        return spelled(kind, "Tanh") * count
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise InvalidType(
            f"`{name}['activations']` must be a list of names, got {describe(given)}."
        )
    given = [one.decode() if isinstance(one, bytes) else one for one in given]
    return [_SPELLINGS.get(str(one).lower(), one) for one in given]


def _check_defaults(
    name: str, values: Any, activations: list[str], defaults: Mapping[str, float]
) -> None:
    """Raises ValueError if an activation reads a value other than its default.

    Each activation that has the parameter reads the next value. An activation without a
    value has the default, and values that no activation reads have no effect.
    """
    values = iter(() if values is None else np.atleast_1d(values).tolist())
    for one in activations:
        default = defaults.get(one)
        got = default if default is None else next(values, default)
        if default is not None and np.float32(got) != np.float32(default):
            raise InvalidValue(
                f"`{name}` must be {default} for {one}, the default, got {got}. "
                "Remove the attribute, load the node, and bind the parameters to the "
                "same cell with your own `activation`."
            )


def _check_clip(name: str, clip: Any, activations: list[str], dtype: np.dtype) -> None:
    """Raises ValueError unless the clip of the activations' inputs has no effect."""
    if clip is None or not np.size(clip):
        return
    check_instance(name, clip, int | float | np.number, "a number")
    info = jnp.finfo(dtype)
    # The sigmoid of a larger number rounds to 1, and of its negative to 0.
    flat = math.log(2) - math.log(float(info.smallest_subnormal))
    least = flat if set(activations) <= _SATURATING else float(info.max)
    if not clip >= least:
        raise InvalidValue(
            f"`{name}` must be at least {least:.4g}, so that it has no effect in "
            f"{dtype} on {listed(dict.fromkeys(activations))}, got {clip!r}. No cell "
            "clips the inputs of its activations, and without the clip, the results "
            "would differ. Write the step as a FunctionCell."
        )


def is_coupled(name: str, node: Mapping[str, Any], kind: str) -> bool:
    """Whether the forget gate of an LSTM is 1 minus the input gate.

    Raises:
        ValueError: If `input_forget` is neither 0 nor 1, or is 1 in another operator.
    """
    value = node.get("input_forget") or 0
    check_one_of(f"{name}['input_forget']", value, (0, 1), "0 or 1")
    if value and kind != LSTM:
        raise InvalidValue(f"`{name}['input_forget']` is only for {LSTM}, got {kind}.")
    return bool(value)
