"""Weights of Flax's cells, which the converters for linen and nnx share.

In both module systems, an `RNN` stores its cell in `cell`, a `Bidirectional` stores two
`RNN`s in `forward_rnn` and `backward_rnn`, and a `Sequential` stacks layers. A cell
stores its kernels and biases in one of two layouts: `separate` modules for each gate,
or two `dense` modules, one for the inputs and one for the state, each of which holds
all gates.
"""

import dataclasses
import itertools
import re
from typing import Any

import numpy as np

from .._base.typing import Params
from . import _weights
from ._bound_cells import Layer, bind_layers
from ._layer_weights import ActivationLike, Kind, LayerWeights, Library
from ._weights import (
    Weight,
    Weights,
    as_mapping,
    blocks,
    check_directions,
    check_names,
    joined,
    listed,
    pick,
    reader,
)

LIBRARY = Library("Flax", {Kind.LSTM: "ifjo", Kind.GRU_AFTER: "ruc", Kind.RNN: "c"})
BOTH = ("forward_rnn", "backward_rnn")
# Flax's letters for the gates, in the order of `LIBRARY`.
_LETTERS = {Kind.LSTM: "ifgo", Kind.GRU_AFTER: "rzn", Kind.RNN: ("",)}


@dataclasses.dataclass(frozen=True)
class Names:
    """The names of a cell's weights; the blocks of an array are in `LIBRARY`'s order.

    Attributes:
        input_kernel: The names of the blocks of the input kernel.
        state_kernel: The names of the blocks of the state kernel.
        bias: The names of the blocks of the bias.
        state_bias: The name of the bias that the reset gate multiplies, if any.
        second_bias: The name of a bias that is added to the product with the state
            kernel, if the cell has another bias besides.
    """

    input_kernel: list[str]
    state_kernel: list[str]
    bias: list[str]
    state_bias: list[str]
    second_bias: list[str] = dataclasses.field(default_factory=list)

    @property
    def all(self) -> list[str]:
        """All names."""
        return [*itertools.chain(*vars(self).values())]


def separate(kind: Kind, input_to_f: str = "if") -> Names:
    """The names of a cell that has a separate module for each gate.

    Args:
        kind: The kind of cell.
        input_to_f: The name of the module that multiplies the inputs for gate f. In
            nnx, the name cannot be "if", which is a Python keyword.
    """
    of_inputs = [f"i{letter}" for letter in _LETTERS[kind]]
    of_inputs = [input_to_f if name == "if" else name for name in of_inputs]
    of_state = [f"h{letter}" for letter in _LETTERS[kind]]
    with_bias = of_state if kind == Kind.LSTM else of_inputs
    return Names(
        [f"{name}/kernel" for name in of_inputs],
        [f"{name}/kernel" for name in of_state],
        [f"{name}/bias" for name in with_bias],
        ["hn/bias"] if kind == Kind.GRU_AFTER else [],
    )


def dense(kind: Kind, has_second_bias: bool = False) -> Names:
    """The names of an nnx cell whose two kernels hold all gates."""
    bias = "dense_h/bias" if kind == Kind.LSTM else "dense_i/bias"
    second = ["dense_h/bias"] if has_second_bias else []
    return Names(["dense_i/kernel"], ["dense_h/kernel"], [bias], [], second)


def load(
    params: object,
    activation: ActivationLike,
    bidirectional: bool,
    input_to_f: str = "if",
) -> Any:
    """Binds the cells of a module to its parameters; see `linen.load`."""
    layers: list[Layer] = []
    for name, module in _modules(params):
        found = 2 if module.keys() & set(BOTH) else 1
        check_directions(name, found, bidirectional)
        parts = {name: module}
        if bidirectional:
            check_names(name, module, BOTH)
            parts = {f"{name}/{key}": module[key] for key in BOTH}
        layers.append(
            tuple(_layer(*part, activation, input_to_f) for part in parts.items())
        )
    # A `Bidirectional` may merge its outputs in any way, so the sizes of its outputs
    # are unknown.
    return bind_layers(layers, joins_directions=not bidirectional)


def arrays_of(layer: LayerWeights, names: Names) -> Params:
    """The weights of a cell in nested dicts."""
    inputs, state, bias, _ = LIBRARY.arrays(layer)
    weights: Params = {}
    for own, array in (
        (names.input_kernel, inputs),
        (names.state_kernel, state),
        (names.bias, bias),
        (names.state_bias, layer.state_bias),
    ):
        for name, block in zip(
            own, blocks(array, len(own)) if own else [], strict=True
        ):
            module, key = name.split("/")
            weights.setdefault(module, {})[key] = block
    return weights


def modules_of(layers: list[list[Params]]) -> list[Params]:
    """The parameters of each layer's `RNN` or `Bidirectional`.

    For a single cell, the result holds the parameters of the cell, without an `RNN`.
    """
    if len(layers) == 1 == len(layers[0]):
        return layers[0]
    modules = [[{"cell": weights} for weights in layer] for layer in layers]
    return [m[0] if len(m) == 1 else dict(zip(BOTH, m, strict=True)) for m in modules]


def _modules(params: object) -> list[tuple[str, Weights]]:
    """The parameters of each layer, with a name for messages."""
    inner = as_mapping("params", params)
    if set(inner) == {"params"}:
        inner = as_mapping("params", inner["params"])
    if inner and all(re.fullmatch(r"layers_\d+", str(key)) for key in inner):
        # The module is a linen `Sequential`.
        names = [f"layers_{i}" for i in range(len(inner))]
    elif set(inner) == {"layers"} and inner["layers"]:
        # The module is an nnx `Sequential`.
        layers = as_mapping("params/layers", inner["layers"])
        inner = {f"layers/{key}": value for key, value in layers.items()}
        names = [f"layers/{i}" for i in range(len(inner))]
    else:
        return [("params", inner)]
    modules = [(f"params/{name}", pick(inner, name)) for name in names]
    return [(name, as_mapping(name, module)) for name, module in modules]


def _layer(
    name: str, weights: object, activation: ActivationLike, input_to_f: str
) -> LayerWeights:
    """Reads a cell, or the cell of an `RNN`."""
    given = as_mapping(name, weights)
    if set(given) == {"cell"}:
        name = f"{name}/cell"
        given = as_mapping(name, given["cell"])
    flat = {key: _unboxed(value) for key, value in _weights.flattened(given).items()}
    read = reader(flat, f"{name}/")
    if {"dense_i", "dense_h"} & given.keys():
        state = read("dense_h/kernel", None, None)
        place = f"{name}/dense_h/kernel"
        kind = LIBRARY.kind_of(place, state, state.shape[1], len(state))
        # The GRU of Flax 0.12 lacks this bias, although its docstring has it. Its last
        # block becomes the bias of the candidate's recurrent product.
        names = dense(kind, kind == Kind.GRU_AFTER and "dense_h/bias" in flat)
    else:
        kind = _kind(name, given, input_to_f)
        names = separate(kind, input_to_f)
    check_names(name, flat, names.all)
    state = read(names.state_kernel[0], None, None)
    columns = state.shape[1]
    units = columns * len(names.state_kernel) // len(LIBRARY.orders[kind])
    depth = len(read(names.input_kernel[0], None, columns))

    def join(names: list[str], *shape: int) -> Weight:
        return joined([read(name, *shape) for name in names], axis=-1)

    state_bias = None
    if kind == Kind.GRU_AFTER:
        own = [read(key, units) for key in names.state_bias]
        # The dense layout has no separate state bias, so use zeros.
        state_bias = own[0] if own else np.zeros(units, state.dtype)
    return LIBRARY.layer(
        kind,
        join(names.input_kernel, depth, columns),
        join(names.state_kernel, units, columns),
        join(names.bias, columns),
        *[read(key, columns) for key in names.second_bias],
        state_bias=state_bias,
        activation=activation,
    )


def _unboxed(value: Any) -> Any:
    """Unboxes a linen `Partitioned` or an nnx `Param`; returns arrays unchanged."""
    if hasattr(value, "get_value"):
        return value.get_value()
    return value.value if hasattr(value, "unbox") else value


def _kind(name: str, given: Weights, input_to_f: str) -> Kind:
    """The kind whose modules the parameters hold, in the separate layout."""
    for kind in LIBRARY.orders:
        names = separate(kind, input_to_f).all
        if given.keys() & {each.split("/")[0] for each in names}:
            return kind
    # The parameters of a whole model share no names with a cell, because the cell's
    # names are in an inner dict.
    raise ValueError(
        f"`{name}` must be the parameters of an LSTMCell, OptimizedLSTMCell, GRUCell "
        "or SimpleCell, or of an RNN, Bidirectional or Sequential of such cells, got "
        f"{listed(given)}. From a larger model, pass only the part with these cells."
    )
