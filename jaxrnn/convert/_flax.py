"""Code that the converters for Flax linen and Flax nnx share.

In both module systems, an `RNN` stores its cell in `cell`, a `Bidirectional` stores two
`RNN`s in `forward_rnn` and `backward_rnn`, and a `Sequential` stacks layers.
"""

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

from .._base.errors import InvalidValue
from .._base.typing import Params
from .._cells.bound import BoundCell
from . import _bound_cells, _weights
from ._bound_cells import BothCells, cell_of_layers, cells_of_pairs
from ._layer_weights import ActivationLike, Kind, LayerWeights, Library
from ._weights import Weight, Weights, as_mapping, blocks, check_names, joined, listed

ToLayer: TypeAlias = Callable[[str, Weights], LayerWeights]
"""`to_layer(name, weights)` reads a cell; `to_weights(name, layer)` is its inverse."""
ToWeights: TypeAlias = Callable[[str, LayerWeights], Params]
Stack: TypeAlias = Callable[[list[Params]], Params]
"""Builds the parameters of a `Sequential` from the parameters of its layers."""
Names: TypeAlias = tuple[list[str], ...]
"""The names of the input kernels, the state kernels, the biases and the state bias."""

LIBRARY = Library("Flax", {Kind.LSTM: "ifjo", Kind.GRU_AFTER: "ruc", Kind.RNN: "c"})
BOTH = ("forward_rnn", "backward_rnn")
# Flax's letters for the gates, in the order of `GATES`.
_LETTERS = {Kind.LSTM: "igfo", Kind.GRU_AFTER: "rzn", Kind.RNN: ("",)}


def load(params: object, to_layer: ToLayer, activation: ActivationLike) -> BoundCell:
    """Builds a bound cell from the parameters of a unidirectional module."""
    layers = _layers(params, 1, to_layer, activation)
    return cell_of_layers([layer for (layer,) in layers])


def load_bidirectional(
    params: object, to_layer: ToLayer, activation: ActivationLike
) -> BothCells:
    """Builds `(cells_fw, cells_bw)` from the parameters of a bidirectional module."""
    return cells_of_pairs(_layers(params, 2, to_layer, activation))


def _layers(
    params: object, directions: int, to_layer: ToLayer, activation: ActivationLike
) -> Iterator[tuple[LayerWeights, ...]]:
    """The weights of each layer: one `LayerWeights` per direction."""
    for name, weights in _modules(params):
        found = 2 if any(key in weights for key in BOTH) else 1
        _weights.check_directions(name, found, directions)
        parts = {name: weights}
        if directions == 2:
            check_names(name, weights, BOTH)
            parts = {f"{name}/{key}": weights[key] for key in BOTH}
        layers = [_layer(own, part, to_layer) for own, part in parts.items()]
        yield tuple(dataclasses.replace(x, activation=activation) for x in layers)


def save(cell: object, to_weights: ToWeights, stack: Stack) -> Params:
    """The weights of a single cell, or of a `Sequential` that stacks several cells."""
    layers = [to_weights(*each) for each in _bound_cells.layers_of_cell(LIBRARY, cell)]
    if len(layers) == 1:
        return layers[0]
    return stack([{"cell": weights} for weights in layers])


def save_bidirectional(
    cells_fw: object, cells_bw: object, to_weights: ToWeights, stack: Stack
) -> Params:
    """The weights of one `Bidirectional`, or of a `Sequential` that stacks several."""
    layers = []
    for pair in _bound_cells.pairs_of_cells(LIBRARY, cells_fw, cells_bw):
        cells = [{"cell": to_weights(*each)} for each in pair]
        layers.append(dict(zip(BOTH, cells, strict=True)))
    return layers[0] if len(layers) == 1 else stack(layers)


def from_separate(name: str, weights: Weights, input_to_f: str = "if") -> LayerWeights:
    """Reads the weights of a Flax cell that has a separate module for each gate.

    Args:
        name: The name of the parameters in messages.
        weights: The parameters.
        input_to_f: The name of the module that multiplies the inputs for gate f. In
            nnx, the name cannot be "if", which is a Python keyword.

    Raises:
        TypeError: If a weight is not a floating-point array.
        ValueError: If the names match no kind of cell, or a shape is wrong.
    """
    flat = unboxed(weights)
    kind, names = _best_match(name, flat, input_to_f)
    of_inputs, of_state, biases, state_bias = names
    check_names(name, flat, [*of_inputs, *of_state, *biases, *state_bias])
    read = _weights.reader(flat, f"{name}/")
    units = read(of_state[0], None, None).shape[1]
    depth = read(of_inputs[0], None, None).shape[0]

    def join(names: list[str], *shape: int) -> Weight:
        return joined([read(name, *shape) for name in names], axis=-1)

    return LayerWeights(
        kind,
        input_kernel=join(of_inputs, depth, units),
        state_kernel=join(of_state, units, units),
        bias=join(biases, units),
        state_bias=join(state_bias, units) if state_bias else None,
    )


def to_separate(layer: LayerWeights, input_to_f: str = "if") -> Params:
    """The weights for a Flax cell that has a separate module for each gate."""
    arrays = [
        layer.input_kernel,
        layer.state_kernel,
        layer.bias_for(),
        layer.state_bias,
    ]
    weights: Params = {}
    for names, array in zip(_names(layer.kind, input_to_f), arrays, strict=True):
        own = [] if array is None else blocks(array, len(names))
        for name, block in zip(names, own, strict=True):
            module, key = name.split("/")
            weights.setdefault(module, {})[key] = block
    return weights


def unboxed(weights: Weights) -> Params:
    """Flattens nested weights to names with slashes, and unboxes the values."""
    flat = _weights.flattened(weights)
    return {name: _unboxed(value) for name, value in flat.items()}


def _unboxed(value: Any) -> Any:
    """Unboxes a linen `Partitioned` or an nnx `Param`; returns arrays unchanged."""
    if hasattr(value, "get_value"):
        return value.get_value()
    return value.value if hasattr(value, "unbox") else value


def _modules(params: object) -> Iterable[tuple[str, Weights]]:
    """The parameters of each layer, with a name for messages."""
    inner = as_mapping("params", params)
    if set(inner) == {"params"}:
        inner = as_mapping("params", inner["params"])
    if inner and all(re.fullmatch(r"layers_\d+", str(key)) for key in inner):
        names = [f"layers_{i}" for i in range(len(inner))]  # A linen `Sequential`.
    elif set(inner) == {"layers"} and inner["layers"]:  # An nnx `Sequential`.
        layers = as_mapping("params/layers", inner["layers"])
        inner = {f"layers/{key}": value for key, value in layers.items()}
        names = [f"layers/{i}" for i in range(len(inner))]
    else:
        return [("params", inner)]
    modules = [(f"params/{name}", _weights.pick(inner, name)) for name in names]
    return [(name, as_mapping(name, module)) for name, module in modules]


def _layer(name: str, weights: object, to_layer: ToLayer) -> LayerWeights:
    given = as_mapping(name, weights)
    if set(given) != {"cell"}:
        return to_layer(name, given)
    name = f"{name}/cell"
    return to_layer(name, as_mapping(name, given["cell"]))


def _names(kind: Kind, input_to_f: str) -> Names:
    of_inputs = [f"i{letter}" for letter in _LETTERS[kind]]
    of_inputs = [input_to_f if name == "if" else name for name in of_inputs]
    of_state = [f"h{letter}" for letter in _LETTERS[kind]]
    with_bias = of_state if kind == Kind.LSTM else of_inputs
    return (
        [f"{name}/kernel" for name in of_inputs],
        [f"{name}/kernel" for name in of_state],
        [f"{name}/bias" for name in with_bias],
        ["hn/bias"] if kind == Kind.GRU_AFTER else [],
    )


def _best_match(name: str, flat: Weights, input_to_f: str) -> tuple[Kind, Names]:
    """The kind of cell that best matches the names in `flat`, and its weight names."""
    known = {kind: _names(kind, input_to_f) for kind in _LETTERS}
    shared = {k: len(flat.keys() & {*itertools.chain(*v)}) for k, v in known.items()}
    kind = max(known, key=shared.__getitem__)
    if not shared[kind]:
        # The parameters of a whole model have the names of a cell in an inner dict.
        raise InvalidValue(
            f"`{name}` must be the parameters of an LSTMCell, OptimizedLSTMCell, "
            "GRUCell or SimpleCell, or of an RNN, Bidirectional or Sequential of such "
            f"cells, got {listed(flat)}. Pass only this part of a model."
        )
    return kind, known[kind]
