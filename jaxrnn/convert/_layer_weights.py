"""The weights of one layer, in the layout that all converters share.

Libraries differ in the order of gates, the orientation of kernels, the number of
biases, and the constant that they add to the forget gate at run time. A converter
translates between the arrays of its library and a `LayerWeights`. A `Library` reorders
the gates and rejects layers that the library cannot express.
"""

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from .._base.errors import Verbatim
from .._base.expect import expect
from .._base.typing import Activation
from .._cells.basic_rnn import BasicRNNCell
from .._cells.fields import ACTIVATIONS, resolve_activation
from .._cells.gru import CudnnCompatibleGRUCell, GRUCell
from .._cells.lstm import LSTMCell
from ._weights import Weight, blocks, joined, listed

ActivationLike: TypeAlias = Activation | str | None


class Kind(enum.StrEnum):
    """The kind of a layer, and its name in messages."""

    RNN = "RNN"
    GRU = "GRU"
    GRU_AFTER = "GRU that resets after the product"
    LSTM = "LSTM"

    @property
    def family(self) -> str:
        """RNN, GRU or LSTM."""
        return "GRU" if self is Kind.GRU_AFTER else str(self)


CELLS = {
    Kind.RNN: BasicRNNCell,
    Kind.GRU: GRUCell,
    Kind.GRU_AFTER: CudnnCompatibleGRUCell,
    Kind.LSTM: LSTMCell,
}
# The gates in TensorFlow's order, which every `LayerWeights` uses.
GATES = {Kind.RNN: "c", Kind.GRU: "ruc", Kind.GRU_AFTER: "ruc", Kind.LSTM: "ijfo"}


@dataclasses.dataclass(frozen=True)
class LayerWeights:
    """The weights of one direction of a layer, with the gates in TensorFlow's order.

    Attributes:
        kind: `RNN`, `GRU`, `GRU_AFTER` or `LSTM`.
        input_kernel: `[depth, gates * units]`.
        state_kernel: `[output_size, gates * units]`.
        bias: `[gates * units]`.
        state_bias: The bias that the reset gate multiplies, `[units]`; only for
            `GRU_AFTER`, otherwise None.
        peepholes: The peephole weights of the gates i, f and o, each `[units]`; None
            without peepholes.
        projection: The kernel of the projection, `[units, output_size]`; None without a
            projection.
        forget_bias: The constant that the cell adds to the forget gate at run time.
        activation: The `activation` of the cell; None for tanh.
        clips: The cell's clips by field name, without the clips that are None.
        is_coupled: Whether the LSTM's input gate is 1 minus its forget gate.
    """

    kind: Kind
    input_kernel: Weight
    state_kernel: Weight
    bias: Weight
    state_bias: Weight | None = None
    peepholes: tuple[Weight, ...] | None = None
    projection: Weight | None = None
    forget_bias: float = 0.0
    activation: ActivationLike = None
    clips: Mapping[str, float] = dataclasses.field(default_factory=dict)
    is_coupled: bool = False

    @property
    def units(self) -> int:
        """The number of units."""
        return self.bias.shape[0] // len(GATES[self.kind])

    @property
    def features(self) -> list[str]:
        """The names of the features that the layer has and some libraries lack."""
        used = {
            "peepholes": self.peepholes is not None,
            "projection": self.projection is not None,
            "clips": bool(self.clips),
            "coupled gates": self.is_coupled,
        }
        return [name for name, is_used in used.items() if is_used]

    @property
    def activation_name(self) -> str:
        """The name of the activation, for messages."""
        activation = resolve_activation(self.activation)
        return getattr(activation, "__name__", str(activation))

    @property
    def activation_key(self) -> str:
        """The name that cells accept for the activation; "" if it has no name."""
        activation = resolve_activation(self.activation)
        return next((k for k, v in ACTIVATIONS.items() if v is activation), "")


@dataclasses.dataclass(frozen=True)
class Library:
    """The layers that a library supports.

    Attributes:
        name: The library's name, for messages.
        orders: The library's order of gates for each kind of layer, written with the
            letters of `GATES`.
        lacks: The `features` of `LayerWeights` that the library does not support.
        activations: The supported activations for each kind of layer. A kind without an
            entry supports every activation that the cell supports.
        forget_bias: The constant that the library adds to the forget gate at run time.
    """

    name: str
    orders: Mapping[Kind, str]
    lacks: tuple[str, ...] = ("peepholes", "projection", "clips", "coupled gates")
    activations: Mapping[Kind, tuple[str, ...]] = dataclasses.field(
        default_factory=dict
    )
    forget_bias: float = 0.0

    def check(self, name: str, layer: LayerWeights) -> None:
        """Raises ValueError for a layer that the library cannot express."""
        fitting = listed(CELLS[kind].__name__ for kind in self.orders)
        must = f"be one of {fitting}, which {self.name} supports"
        got = Verbatim(CELLS[layer.kind].__name__)
        expect(layer.kind in self.orders, name, must, got)
        got = listed(each for each in layer.features if each in self.lacks)
        must = f"have none of the features {listed(self.lacks)}, "
        must += f"which {self.name} does not support"
        expect(not set(layer.features) & set(self.lacks), name, must, got)
        wanted = self.activations.get(layer.kind, (layer.activation_key,))
        must = f"have the activation {' or '.join(wanted)}, as in {self.name}"
        got = layer.activation_name
        if got in wanted:
            got = f"another function named {got}"
        expect(layer.activation_key in wanted, name, must, Verbatim(got))

    def kind_of(self, name: str, got: Weight, columns: int, units: int) -> Kind:
        """The kind of a layer with `units` units whose kernel has `columns` columns.

        If `orders` contains two kinds of GRU, the result is the last one in `orders`.

        Raises:
            ValueError: If the library has no layer with this number of gates.
        """
        kinds = {len(GATES[kind]): kind for kind in self.orders}
        numbers = " or ".join(map(str, kinds))
        families = " or ".join(kind.family for kind in kinds.values())
        must = f"have {numbers} blocks of size {units}, for {families}"
        is_whole = units and not columns % units
        expect(is_whole and columns // units in kinds, name, must, got)
        return kinds[columns // units]

    def arrays(self, layer: LayerWeights) -> tuple[Weight, ...]:
        """The input kernel, the state kernel and two biases, in the library's order.

        The second bias is zero except for the part that a reset gate multiplies.
        """
        bias = layer.bias
        if layer.kind == Kind.LSTM:
            bias = with_forget_bias(bias, layer.forget_bias - self.forget_bias)
        of_state = np.zeros(bias.shape, bias.dtype)
        if layer.state_bias is not None:
            of_state = joined([of_state[: 2 * layer.units], layer.state_bias])
        ours = [layer.input_kernel, layer.state_kernel, bias, of_state]
        order = self.orders[layer.kind]
        return tuple(reordered(array, GATES[layer.kind], order) for array in ours)

    def layer(self, kind: Kind, *arrays: Weight, **fields: Any) -> LayerWeights:
        """Builds a layer from the library's two kernels and one or two biases."""
        order = self.orders[kind]
        ours = [reordered(array, order, GATES[kind]) for array in arrays]
        of_inputs, of_state, bias, *others = ours
        for other in others:
            if kind == Kind.GRU_AFTER:
                # Store the last block separately, because the reset gate multiplies it.
                at = 2 * len(other) // 3
                fields["state_bias"] = other[at:]
                bias = joined([bias[:at] + other[:at], bias[at:]])
            else:
                bias = bias + other
        fields["forget_bias"] = self.forget_bias
        return LayerWeights(kind, of_inputs, of_state, bias, **fields)


def with_forget_bias(bias: Weight, added: float) -> Weight:
    """Adds a number to the forget gate of an LSTM's bias, in TensorFlow's order."""
    if not added:
        return bias
    gates = dict(zip(GATES[Kind.LSTM], blocks(bias, 4), strict=True))
    # NumPy promotes the sum of a bfloat16 array and a number to float32.
    gates["f"] = (gates["f"] + added).astype(bias.dtype)
    return joined(list(gates.values()))


def reordered(array: Weight, old: str, new: str) -> Weight:
    """Reorders the blocks of the last axis.

    Args:
        array: `[..., blocks * units]`.
        old: The current order of the blocks, with one letter per gate.
        new: The same letters in the new order.
    """
    by_gate = dict(zip(old, blocks(array, len(old)), strict=True))
    return joined([by_gate[gate] for gate in new], axis=-1)
