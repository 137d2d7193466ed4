"""The weights of one layer, in the layout that all converters share.

Libraries differ in the order of gates, the orientation of kernels, the number of
biases, and what is added to a forget gate at run time. A converter makes a
`LayerWeights` from its library's arrays, or these from a `LayerWeights`. A `Library`
reorders the gates, and refuses what the library cannot express.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from .._base.errors import describe
from .._cells.activations import ACTIVATIONS, resolve_activation

# Kinds of layers, as messages name them.
RNN, GRU, GRU_AFTER, LSTM = "RNN", "GRU", "GRU that resets after the product", "LSTM"
# The gates in TensorFlow's order, into which every converter reorders.
GATES = {RNN: "c", GRU: "ruc", GRU_AFTER: "ruc", LSTM: "ijfo"}


@dataclasses.dataclass(frozen=True)
class LayerWeights:
    """A layer of one direction: NumPy arrays, gates in TensorFlow's order.

    Attributes:
        kind: `RNN`, `GRU`, `GRU_AFTER` or `LSTM`.
        input_kernel: `[depth, gates * units]`.
        state_kernel: `[size of the output, gates * units]`.
        bias: `[gates * units]`.
        state_bias: `[units]`, only for `GRU_AFTER`: the bias that the reset gate
            multiplies.
        peepholes: None, or those of i, f and o, each `[units]`.
        projection: None, or `[units, size of the output]`.
        forget_bias: What is added to the forget gate at run time.
        activation: The `activation` of the cell; None for tanh.
        clips: The clips of the cell that are not None, by the names of its fields.
    """

    kind: str
    input_kernel: np.ndarray
    state_kernel: np.ndarray
    bias: np.ndarray
    state_bias: np.ndarray | None = None
    peepholes: tuple[np.ndarray, ...] | None = None
    projection: np.ndarray | None = None
    forget_bias: float = 0.0
    activation: Any = None
    clips: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def units(self) -> int:
        """The number of units."""
        return self.bias.shape[0] // len(GATES[self.kind])

    @property
    def activation_name(self) -> str:
        """The name of the activation, for messages."""
        activation = resolve_activation("convert", self.activation)
        return getattr(activation, "__name__", str(activation))

    @property
    def activation_key(self) -> str:
        """The name by which cells take the activation; "" if they have none for it."""
        activation = resolve_activation("convert", self.activation)
        return next((k for k, v in ACTIVATIONS.items() if v is activation), "")

    def bias_for(self, added: float = 0.0) -> np.ndarray:
        """The bias for a library that adds `added` to the forget gate at run time."""
        missing = self.forget_bias - added
        if self.kind != LSTM or not missing:
            return self.bias
        bias = self.bias.copy()
        f = GATES[LSTM].index("f") * self.units
        bias[f : f + self.units] += missing
        return bias


@dataclasses.dataclass(frozen=True)
class Library:
    """The layers that a library has.

    Attributes:
        name: Its name, for messages.
        orders: For each kind of layer its order of gates, in the letters of `GATES`.
        lacks: The fields of a `LayerWeights` that its layers cannot have.
        activations: For a kind of layer the activations that it can have; all that a
            cell can have for a kind that is left out.
        modules: For a kind its name in the library, for messages.
        forget_bias: What the library adds to the forget gate at run time.
    """

    name: str
    orders: Mapping[str, str]
    lacks: tuple[str, ...] = ("peepholes", "projection")
    activations: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    modules: Mapping[str, str] = dataclasses.field(default_factory=dict)
    forget_bias: float = 0.0

    def check(self, name: str, layer: LayerWeights) -> None:
        """Raises ValueError for a layer that the library cannot express."""
        if layer.kind not in self.orders:
            self._raise_kind(name, layer.kind)
        for field in self.lacks:
            if getattr(layer, field) is not None:
                raise ValueError(
                    f"`{name}` must have no {field}, which the LSTM of {self.name} "
                    "does not have, got an LSTMCell with such. Train one without."
                )
        wanted = self.activations.get(layer.kind, ())
        if wanted and layer.activation_key not in wanted:
            module = self.modules.get(layer.kind, "cells")
            raise ValueError(
                f"`{name}` must have the activation {' or '.join(wanted)}, which is "
                f"that of {self.name}'s {module}, got {layer.activation_name}."
            )

    def _raise_kind(self, name: str, kind: str) -> NoReturn:
        if kind == RNN:
            raise ValueError(
                f"`{name}` must be an LSTM or a GRU, as {self.name} has no plain RNN, "
                "got a BasicRNNCell."
            )
        cells = {GRU: "GRUCell", GRU_AFTER: "CudnnCompatibleGRUCell"}
        got, when = cells.pop(kind), "before" if kind == GRU_AFTER else "after"
        (wanted,) = cells.values()
        raise ValueError(
            f"`{name}` must be a {wanted}, as the GRU of {self.name} resets {when} the "
            f"product, got a {got}. Its weights do not fit: train a {wanted}."
        )

    def arrays(self, layer: LayerWeights) -> tuple[np.ndarray, ...]:
        """The kernels of inputs and state and two biases, in the library's order.

        The second bias is zero, except where a reset gate multiplies it.
        """
        of_state = np.zeros_like(layer.bias)
        if layer.state_bias is not None:
            of_state[2 * layer.units :] = layer.state_bias
        bias = layer.bias_for(self.forget_bias)
        ours = layer.input_kernel, layer.state_kernel, bias, of_state
        old, new = GATES[layer.kind], self.orders[layer.kind]
        return tuple(reordered(array, old, new) for array in ours)

    def layer(self, kind: str, *arrays: np.ndarray, **fields: Any) -> LayerWeights:
        """The layer of two kernels and one or two biases in the library's order."""
        ours = lambda array: reordered(array, self.orders[kind], GATES[kind])
        of_inputs, of_state, bias, *others = map(ours, arrays)
        for other in others:
            if kind == GRU_AFTER:  # The reset gate multiplies the last block.
                at = 2 * len(other) // 3
                fields["state_bias"] = other[at:]
                bias = np.concatenate([bias[:at] + other[:at], bias[at:]])
            else:
                bias = bias + other
        fields["forget_bias"] = self.forget_bias
        return LayerWeights(kind, of_inputs, of_state, bias, **fields)


def reordered(array: np.ndarray, old: str, new: str) -> np.ndarray:
    """The array with the blocks of its last axis in another order.

    Args:
        array: `[..., blocks * units]`.
        old: Its gates, a letter each.
        new: The same letters in the new order.
    """
    blocks = dict(zip(old, np.split(array, len(old), axis=-1), strict=True))
    return np.concatenate([blocks[name] for name in new], axis=-1)


def kind_of(name: str, got: np.ndarray, gates: int, units: int, gru: str = GRU) -> str:
    """`RNN`, `gru` or `LSTM`: 1, 3 or 4 blocks of `units`.

    Raises:
        ValueError: If `gates` is another multiple.
    """
    for number, kind in {1: RNN, 3: gru, 4: LSTM}.items():
        if gates == number * units:
            return kind
    raise ValueError(
        f"`{name}` must have 1, 3 or 4 blocks of {units} units, for RNN, GRU or LSTM, "
        f"got {describe(got)}."
    )
