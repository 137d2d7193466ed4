"""Weights of Flax's cells, which the converters for linen and nnx share.

In both module systems, an `RNN` stores its cell in `cell`, a `Bidirectional` stores two
`RNN`s in `forward_rnn` and `backward_rnn`, and a `Sequential` stacks layers. A cell
stores its kernels and biases in one of two layouts: `separate` modules for each gate,
or two `dense` modules, one for the inputs and one for the state, each of which holds
all gates.
"""

import re
from collections.abc import Mapping
from typing import Any

from .._base.typing import Params
from ._kinds import Kind, Table
from ._layer_weights import (
    ActivationLike,
    LayerWeights,
    Library,
    Named,
    bind_layers,
)
from ._weights import (
    Reader,
    Weights,
    as_mapping,
    check_directions,
    check_names,
    flattened,
    listed,
    nested,
    pick,
)

LIBRARY = Library("Flax", {Kind.LSTM: "ifjo", Kind.GRU_AFTER: "ruc", Kind.RNN: "c"})
BOTH = ("forward_rnn", "backward_rnn")


def _separate(input_to_f: str) -> dict[Kind, Table]:
    """The tables of the cells that have a separate module for each gate.

    Args:
        input_to_f: The name of the module that multiplies the inputs for gate f.
    """
    tables: dict[Kind, Table] = {}
    letters = {Kind.LSTM: "ifgo", Kind.GRU_AFTER: "rzn", Kind.RNN: [""]}
    for kind, order in LIBRARY.orders.items():
        inputs = [input_to_f if each == "f" else f"i{each}" for each in letters[kind]]
        states = [f"h{each}" for each in letters[kind]]
        biased = states if kind == Kind.LSTM else inputs
        arrays = (inputs, "kernel", "x"), (states, "kernel", "h"), (biased, "bias", "b")
        tables[kind] = {
            f"{module}/{array}": (part, gate)
            for modules, array, part in arrays
            for module, gate in zip(modules, order, strict=True)
        }
    tables[Kind.GRU_AFTER]["hn/bias"] = ("s", "c")
    return tables


LINEN = _separate("if")
NNX = _separate("if_")  # "if" is a Python keyword.
# The tables of the nnx cells whose two kernels hold all gates.
DENSE: dict[Kind, Table] = {
    kind: {
        "dense_i/kernel": ("x", order),
        "dense_h/kernel": ("h", order),
        "dense_h/bias" if kind == Kind.LSTM else "dense_i/bias": ("b", order),
    }
    for kind, order in LIBRARY.orders.items()
}
# The GRU of Flax 0.12 lacks this bias, although its docstring has it. Its last block
# becomes the bias of the candidate's recurrent product.
_SECOND_BIAS: Table = {"dense_h/bias": ("s", "ruc")}


def load(
    params: object,
    activation: ActivationLike,
    bidirectional: bool,
    tables: Mapping[Kind, Table],
) -> Any:
    """Binds the cells of a module to its parameters; see `linen.load`.

    `tables` are the tables of cells that have separate modules.
    """
    layers = []
    for name, module in _modules(params):
        found = 2 if module.keys() & set(BOTH) else 1
        check_directions(name, found, bidirectional)
        parts = {name: module}
        if bidirectional:
            check_names(name, module, BOTH)
            parts = {f"{name}/{key}": module[key] for key in BOTH}
        layers.append([_layer(*part, activation, tables) for part in parts.items()])
    # A `Bidirectional` may merge its outputs in any way, so the sizes of its outputs
    # are unknown.
    return bind_layers(layers, joins_directions=not bidirectional)


def modules_of(layers: list[list[Named]], tables: Mapping[Kind, Table]) -> list[Params]:
    """The parameters of each layer's `RNN` or `Bidirectional`.

    For a single cell, the result holds the parameters of the cell, without an `RNN`.
    """
    modules = []
    for layer in layers:
        cells = [nested(LIBRARY.write(own, tables[own.kind])) for _, own in layer]
        if len(layers) == 1 == len(layer):
            return cells
        rnns = [{"cell": cell} for cell in cells]
        modules.append(dict(zip(BOTH, rnns, strict=True)) if len(rnns) > 1 else rnns[0])
    return modules


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
    name: str,
    weights: object,
    activation: ActivationLike,
    tables: Mapping[Kind, Table],
) -> LayerWeights:
    """Reads a cell, or the cell of an `RNN`."""
    given = as_mapping(name, weights)
    if set(given) == {"cell"}:
        name = f"{name}/cell"
        given = as_mapping(name, given["cell"])
    flat = {key: _unboxed(value) for key, value in flattened(given).items()}
    read = Reader(flat, f"{name}/")
    if {"dense_i", "dense_h"} & given.keys():
        state = read("dense_h/kernel", None, None)
        units, columns = state.shape
        place = read.name("dense_h/kernel")
        kind = LIBRARY.kind_of(place, state, columns, units)
        table = DENSE[kind]
        if kind == Kind.GRU_AFTER and "dense_h/bias" in flat:
            table = table | _SECOND_BIAS
    else:
        kind = _kind(name, given, tables)
        table = tables[kind]
        (first, *_) = (key for key, (part, _) in table.items() if part == "h")
        units = len(read(first, None, None))
    check_names(name, flat, table)
    return LIBRARY.read(read, kind, table, units, activation=activation)


def _unboxed(value: Any) -> Any:
    """Unboxes a linen `Partitioned` or an nnx `Param`; returns arrays unchanged."""
    if hasattr(value, "get_value"):
        return value.get_value()
    return value.value if hasattr(value, "unbox") else value


def _kind(name: str, given: Weights, tables: Mapping[Kind, Table]) -> Kind:
    """The kind whose modules the parameters hold, in the separate layout."""
    for kind, table in tables.items():
        if given.keys() & nested(table).keys():
            return kind
    # The parameters of a whole model share no names with a cell, because the cell's
    # names are in an inner dict.
    raise ValueError(
        f"`{name}` must be the parameters of an LSTMCell, OptimizedLSTMCell, GRUCell "
        "or SimpleCell, or of an RNN, Bidirectional or Sequential of such cells, got "
        f"{listed(given)}. From a larger model, pass only the part with these cells."
    )
