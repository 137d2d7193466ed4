"""Code that the converters for Flax linen and Flax nnx share.

In both module systems, an `RNN` stores its cell in `cell`, a `Bidirectional` stores two
`RNN`s in `forward_rnn` and `backward_rnn`, and a `Sequential` stacks layers.
"""

import dataclasses
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, NoReturn

from .._base.errors import InvalidValue
from .._cells.bound import BoundCell
from . import _bound_cells, _weights
from ._bound_cells import BothCells, cell_of_layers, cells_of_pairs
from ._layer_weights import GRU_AFTER, LSTM, RNN, LayerWeights, Library
from ._weights import as_mapping, blocks, check_names, joined, listed

# The function `to_layer(name, weights)` and its inverse `to_weights(name, layer)`.
ToLayer = Callable[[str, Mapping[str, Any]], LayerWeights]
ToWeights = Callable[[str, LayerWeights], dict[str, Any]]
# Builds the parameters of a `Sequential` from the parameters of its layers.
Stack = Callable[[list[dict[str, Any]]], dict[str, Any]]

LIBRARY = Library("Flax", {LSTM: "ifjo", GRU_AFTER: "ruc", RNN: "c"})
BOTH = ("forward_rnn", "backward_rnn")
# The kernels of a cell that multiplies all gates at once.
_OF_ALL_GATES = {"dense_i/kernel", "dense_h/kernel"}
# Flax's letters for the gates, in the order of `GATES`.
_LETTERS = {LSTM: "igfo", GRU_AFTER: "rzn", RNN: ("",)}


def load(params: Any, to_layer: ToLayer, activation: Any) -> BoundCell:
    """Builds a bound cell from the parameters of a unidirectional module."""
    layers = _layers(params, 1, to_layer, activation)
    return cell_of_layers([layer for (layer,) in layers])


def load_bidirectional(params: Any, to_layer: ToLayer, activation: Any) -> BothCells:
    """Builds `(cells_fw, cells_bw)` from the parameters of a bidirectional module."""
    return cells_of_pairs(_layers(params, 2, to_layer, activation))


def _layers(
    params: Any, directions: int, to_layer: ToLayer, activation: Any
) -> Iterator[tuple[LayerWeights, ...]]:
    """The weights of each layer: one `LayerWeights` per direction."""
    for name, weights in _modules(params):
        found = 2 if any(key in weights for key in BOTH) else 1
        _weights.check_directions(name, found, directions)
        parts = [(name, weights)]
        if directions == 2:
            check_names(name, weights, BOTH)
            parts = [(f"{name}/{key}", weights[key]) for key in BOTH]
        yield tuple(_layer(*part, to_layer, activation) for part in parts)


def save(cell: Any, to_weights: ToWeights, stack: Stack) -> dict[str, Any]:
    """The weights of a single cell, or of a `Sequential` that stacks several cells."""
    layers = [to_weights(*each) for each in _bound_cells.layers_of_cell(LIBRARY, cell)]
    if len(layers) == 1:
        return layers[0]
    return stack([{"cell": weights} for weights in layers])


def save_bidirectional(
    cells_fw: Any, cells_bw: Any, to_weights: ToWeights, stack: Stack
) -> dict[str, Any]:
    """The weights of one `Bidirectional`, or of a `Sequential` that stacks several."""
    layers = []
    for pair in _bound_cells.pairs_of_cells(LIBRARY, cells_fw, cells_bw):
        cells = [{"cell": to_weights(*each)} for each in pair]
        layers.append(dict(zip(BOTH, cells, strict=True)))
    return layers[0] if len(layers) == 1 else stack(layers)


def from_separate(name: str, weights: Mapping, input_to_f: str = "if") -> LayerWeights:
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
    each = lambda names, *shape: [read(name, *shape) for name in names]
    join = lambda names, *shape: joined(each(names, *shape), axis=-1)
    kernels = join(of_inputs, depth, units), join(of_state, units, units)
    other = join(state_bias, units) if state_bias else None
    return LayerWeights(kind, *kernels, join(biases, units), other)


def to_separate(layer: LayerWeights, input_to_f: str = "if") -> dict[str, Any]:
    """The weights for a Flax cell that has a separate module for each gate."""
    arrays = layer.input_kernel, layer.state_kernel, layer.bias_for(), layer.state_bias
    weights: dict[str, Any] = {}
    for names, array in zip(_names(layer.kind, input_to_f), arrays, strict=True):
        own = [] if array is None else blocks(array, len(names))
        for name, block in zip(names, own, strict=True):
            module, key = name.split("/")
            weights.setdefault(module, {})[key] = block
    return weights


def unboxed(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Flattens nested weights to names with slashes, and unboxes the values."""
    flat = _weights.flattened(weights)
    return {name: _unboxed(value) for name, value in flat.items()}


def _unboxed(value: Any) -> Any:
    """Unboxes a linen `Partitioned` or an nnx `Param`; returns arrays unchanged."""
    if hasattr(value, "get_value"):
        return value.get_value()
    return value.value if hasattr(value, "unbox") else value


def _modules(params: Any) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """The parameters of each layer, with a name for messages."""
    params = as_mapping("params", params)
    if set(params) == {"params"}:
        params = as_mapping("params", params["params"])
    names = [key for key in params if re.fullmatch(r"layers_\d+", str(key))]
    if names and len(names) == len(params):  # A linen `Sequential`.
        inner, names = params, [f"layers_{i}" for i in range(len(params))]
    elif set(params) == {"layers"}:  # An nnx `Sequential`.
        layers = as_mapping("params/layers", params["layers"])
        inner = {f"layers/{key}": value for key, value in layers.items()}
        names = [f"layers/{i}" for i in range(len(inner))]
    else:
        return [("params", params)]
    if not names:
        _raise_unknown("params", {})
    modules = [(f"params/{name}", _weights.pick(inner, name)) for name in names]
    return [(name, as_mapping(name, module)) for name, module in modules]


def _layer(name: str, weights: Any, to_layer: ToLayer, activation: Any) -> LayerWeights:
    weights = as_mapping(name, weights)
    if set(weights) == {"cell"}:
        name = f"{name}/cell"
        weights = as_mapping(name, weights["cell"])
    return dataclasses.replace(to_layer(name, weights), activation=activation)


def _names(kind: str, input_to_f: str) -> tuple[list[str], ...]:
    """The names of the input kernels, state kernels, biases and state bias."""
    of_inputs = [f"i{letter}" for letter in _LETTERS[kind]]
    of_inputs = [input_to_f if name == "if" else name for name in of_inputs]
    of_state = [f"h{letter}" for letter in _LETTERS[kind]]
    with_bias = of_state if kind == LSTM else of_inputs
    kernels = lambda names: [f"{name}/kernel" for name in names]
    biases = [f"{name}/bias" for name in with_bias]
    state_bias = ["hn/bias"] if kind == GRU_AFTER else []
    return kernels(of_inputs), kernels(of_state), biases, state_bias


def _best_match(name: str, flat: Mapping[str, Any], input_to_f: str) -> tuple[str, Any]:
    """The kind of cell that best matches the names in `flat`, and its weight names."""
    known = {kind: _names(kind, input_to_f) for kind in _LETTERS}
    shared = lambda kind: len(flat.keys() & set().union(*known[kind]))
    kind = max(known, key=shared)
    if not shared(kind):
        kernels = [{*inputs, *state} for inputs, state, *_ in known.values()]
        _raise_unknown(name, flat, _paths(flat, [*kernels, _OF_ALL_GATES]))
    return kind, known[kind]


def _paths(flat: Mapping[str, Any], kernels: list[set[str]]) -> list[str]:
    """The paths of the cells in a model, whose weights `flat` holds."""
    names_at: dict[str, set[str]] = {}
    for name in flat:
        path, _, last = name.rpartition("/")
        path, _, module = path.rpartition("/")
        names_at.setdefault(path, set()).add(f"{module}/{last}")
    return [path for path, own in names_at.items() if any(k <= own for k in kernels)]


def _raise_unknown(
    name: str, flat: Mapping[str, Any], paths: Collection[str] = ()
) -> NoReturn:
    kinds = "LSTMCell, OptimizedLSTMCell, GRUCell or SimpleCell"
    of = f"an {kinds}, or of an RNN, Bidirectional or Sequential of such cells"
    got = dict.fromkeys(key.split("/")[0] for key in flat) if paths else flat
    text = f"`{name}` must be the parameters of {of}, got {listed(got)}."
    if paths:
        cells = [_indexed(*f"{name}/{path}".split("/")) for path in paths]
        text += f" Pass {' or '.join(f'`{cell}`' for cell in cells)}."
    raise InvalidValue(text)


def _indexed(name: str, *keys: str) -> str:
    """The Python expression for nested weights; the keys of nnx lists are integers."""
    return name + "".join(f"[{k if k.isdigit() else repr(k)}]" for k in keys)
