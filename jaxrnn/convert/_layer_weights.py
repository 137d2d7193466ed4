"""The weights of one layer, in the layout that all converters share.

Libraries differ in the order of gates, the orientation of kernels, the number of
biases, and what is added to a forget gate at run time. A converter makes a
`LayerWeights` from its library's arrays, or these from a `LayerWeights`, and refuses
what its library cannot express.
"""

import dataclasses
from typing import Any

import numpy as np

from .._base.errors import describe
from .._cells.activations import resolve_activation

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

    @property
    def units(self) -> int:
        """The number of units."""
        return self.bias.shape[0] // len(GATES[self.kind])

    @property
    def activation_name(self) -> str:
        """The name of the activation, for messages."""
        activation = resolve_activation("convert", self.activation)
        return getattr(activation, "__name__", str(activation))

    def bias_for(self, added: float = 0.0) -> np.ndarray:
        """The bias for a library that adds `added` to the forget gate at run time."""
        missing = self.forget_bias - added
        if self.kind != LSTM or not missing:
            return self.bias
        bias = self.bias.copy()
        f = GATES[LSTM].index("f") * self.units
        bias[f : f + self.units] += missing
        return bias

    def in_order(self, order: str) -> tuple[np.ndarray, ...]:
        """The kernels of inputs and state and two biases, with gates in that order.

        The second bias is zero, except where a reset gate multiplies it.
        """
        of_state = np.zeros_like(self.bias)
        if self.state_bias is not None:
            of_state[2 * self.units :] = self.state_bias
        arrays = self.input_kernel, self.state_kernel, self.bias_for(), of_state
        return tuple(reordered(array, GATES[self.kind], order) for array in arrays)


def from_order(
    order: str,
    kind: str,
    input_kernel: np.ndarray,
    state_kernel: np.ndarray,
    *biases: np.ndarray,
    **fields: Any,
) -> LayerWeights:
    """The layer of kernels and one or two biases whose gates are in that order."""
    ours = lambda array: reordered(array, order, GATES[kind])
    bias, *others = map(ours, biases)
    for other in others:
        if kind == GRU_AFTER:  # The reset gate multiplies the last block.
            at = 2 * len(other) // 3
            fields["state_bias"] = other[at:]
            bias = np.concatenate([bias[:at] + other[:at], bias[at:]])
        else:
            bias = bias + other
    return LayerWeights(kind, ours(input_kernel), ours(state_kernel), bias, **fields)


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


def check_lacks(name: str, layer: LayerWeights, library: str, *fields: str) -> None:
    """Raises ValueError for peepholes or a projection that the library lacks."""
    for field in fields or ("peepholes", "projection"):
        if getattr(layer, field) is not None:
            raise ValueError(
                f"`{name}` must have no {field}, which the LSTM of {library} does not "
                "have, got an LSTMCell with such. Train one without."
            )


def check_resets(name: str, layer: LayerWeights, library: str, kind: str) -> None:
    """Raises ValueError for a GRU of another kind than the library's."""
    if layer.kind not in (GRU, GRU_AFTER) or layer.kind == kind:
        return
    names = {GRU: "GRUCell", GRU_AFTER: "CudnnCompatibleGRUCell"}
    when = "before" if kind == GRU else "after"
    raise ValueError(
        f"`{name}` must be a {names[kind]}, as the GRU of {library} resets {when} the "
        f"product, got a {names[layer.kind]}. Weights of one do not fit the other: "
        f"train a {names[kind]}."
    )


def check_activation(
    name: str, layer: LayerWeights, library: str, *wanted: str
) -> None:
    """Raises ValueError for another activation than the library's."""
    resolve = lambda activation: resolve_activation("convert", activation)
    if resolve(layer.activation) not in map(resolve, wanted):
        raise ValueError(
            f"`{name}` must have the activation {' or '.join(wanted)}, which is that "
            f"of {library}, got {layer.activation_name}."
        )
