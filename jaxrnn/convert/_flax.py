"""Weights of Flax's cells, which the converters for linen and nnx share.

In both module systems, an `RNN` stores its cell in `cell`, a `Bidirectional` stores two
`RNN`s in `forward_rnn` and `backward_rnn`, and a `Sequential` stacks layers. A cell
stores its kernels and biases in one of two layouts: `separate` modules for each gate,
or two `dense` modules, one for the inputs and one for the state, each of which holds
all gates.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, overload

from .._base.errors import expect
from .._base.typing import Params
from .._cells.base import BoundCell
from ._kinds import Kind, Table
from ._layer_weights import (
    ActivationLike,
    BothDirections,
    LayerWeights,
    Library,
    Named,
    bind_layers,
    check_stated,
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
# Activations that have the same name in jaxrnn, which takes those of Keras.
_DIFFERENT = ("gelu", "hard_sigmoid", "leaky_relu")
_BOTH = ("forward_rnn", "backward_rnn")


def _separate(kind: Kind, letters: Iterable[str], biased: str) -> Table:
    """The table of a cell that has a separate module for each gate.

    `letters` end the names of the modules, which begin with i for the inputs and with h
    for the state. The modules that begin with `biased` have biases.
    """
    parts = ("i", "kernel", "x"), ("h", "kernel", "h"), (biased, "bias", "b")
    return {
        f"{operand}{letter}/{array}": (part, gate)
        for operand, array, part in parts
        for letter, gate in zip(letters, LIBRARY.orders[kind], strict=True)
    }


LINEN = {
    Kind.LSTM: _separate(Kind.LSTM, "ifgo", "h"),
    Kind.GRU_AFTER: _separate(Kind.GRU_AFTER, "rzn", "i") | {"hn/bias": ("s", "c")},
    Kind.RNN: _separate(Kind.RNN, [""], "i"),
}
# In nnx, the module "if" has another name, because "if" is a Python keyword.
NNX_LSTM = {key.replace("if/", "if_/"): at for key, at in LINEN[Kind.LSTM].items()}
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


@overload
def load(
    params: Weights,
    activation: ActivationLike = None,
    *,
    bidirectional: Literal[False] = False,
) -> BoundCell: ...


@overload
def load(
    params: Weights, activation: ActivationLike = None, *, bidirectional: Literal[True]
) -> BothDirections: ...


def load(
    params: Weights, activation: ActivationLike = None, *, bidirectional: bool = False
) -> BoundCell | BothDirections:
    """Loads a module as a bound cell, or as the bound cells of both directions.

    `jaxrnn.convert.linen` and `jaxrnn.convert.nnx` share this function. The weights may
    be traced. Gradients then have the structure of `params`.

    Args:
        params: The parameters of a cell, of an `nn.RNN`, of an `nn.Bidirectional`, or
            of an `nn.Sequential` that stacks several `nn.RNN`s or `nn.Bidirectional`s;
            the modules of nnx have the same names. For linen, pass the variables that
            `init` returns, or their "params". For nnx, pass `nnx.state(module,
            nnx.Param)`, or the result of `nnx.to_pure_dict` for this state. For a
            larger model, pass only the parameters of its recurrent part.
        activation: The `activation_fn` of the cells. Required for a `SimpleCell`; for
            other cells, None is Flax's default, tanh. For "hard_sigmoid", "gelu" and
            "leaky_relu", pass the function, because the functions of these names differ
            in Flax and jaxrnn.
        bidirectional: Whether the module has two directions.

    Returns:
        A bound `LSTMCell` with `forget_bias=0`, `CudnnCompatibleGRUCell` or
        `BasicRNNCell`; for several layers, a bound `MultiRNNCell`. For two directions,
        `(cells_fw, cells_bw)` for `stack_bidirectional_dynamic_rnn`, each with one cell
        per layer.

    Raises:
        TypeError: If `params` are not nested dicts, or a weight is not a floating
            array.
        ValueError: If a weight is missing, unknown, or has the wrong shape; if
            `bidirectional` does not fit the module; if `activation` is one of the three
            names, or missing for a `SimpleCell`; if there is a layer without parameters
            between recurrent layers.

    Example:
        >>> import numpy as np, jaxrnn.convert.linen, jaxrnn.convert.nnx
        >>> params = {"i": {"kernel": np.ones((3, 5)), "bias": np.ones(5)}}
        >>> params["h"] = {"kernel": np.ones((5, 5))}
        >>> cell = jaxrnn.convert.linen.load({"cell": params}, "tanh")
        >>> type(cell.cell).__name__, cell.state_size
        ('BasicRNNCell', 5)
        >>> jaxrnn.convert.linen.save(cell)["h"]["kernel"].shape
        (5, 5)
        >>> jaxrnn.convert.nnx.save(cell)["dense_h"]["kernel"].shape
        (5, 5)
    """
    must = "be a function where Flax and jaxrnn differ"
    fix = f"Pass `jax.nn.{activation}`."
    expect(activation not in _DIFFERENT, "activation", must, activation, fix)
    layers = []
    for name, module in _modules(params):
        found = 2 if module.keys() & set(_BOTH) else 1
        check_directions(name, found, bidirectional)
        parts = {name: module}
        if bidirectional:
            check_names(name, module, _BOTH)
            parts = {f"{name}/{key}": module[key] for key in _BOTH}
        layers.append([_layer(*part, activation) for part in parts.items()])
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
        modules.append(
            rnns[0] if len(rnns) == 1 else dict(zip(_BOTH, rnns, strict=True))
        )
    return modules


def _modules(params: object) -> list[tuple[str, Weights]]:
    """The parameters of each layer, with a name for messages."""
    fix = (
        "For a module of nnx, pass `nnx.state(module, nnx.Param)`; for a module of "
        "linen, pass the variables that its `init` returned."
    )
    inner = as_mapping("params", params, fix)
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


def _layer(name: str, weights: object, activation: ActivationLike) -> LayerWeights:
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
        tables = LINEN | {Kind.LSTM: NNX_LSTM} if "if_" in given else LINEN
        kinds = [k for k, x in tables.items() if given.keys() & nested(x).keys()]
        # The parameters of a whole model share no names with a cell, because the cell's
        # names are in an inner dict.
        must = (
            "be the parameters of an LSTMCell, OptimizedLSTMCell, GRUCell or SimpleCell"
            ", or of an RNN, Bidirectional or Sequential of such cells"
        )
        fix = "From a larger model, pass only the part with these cells."
        expect(kinds, name, must, listed(given), fix)
        kind = kinds[0]
        table = tables[kind]
        (first, *_) = (key for key, (part, _) in table.items() if part == "h")
        units = len(read(first, None, None))
    check_names(name, flat, table)
    check_stated("activation", activation, kind)
    return LIBRARY.read(read, kind, table, units, activation=activation)


def _unboxed(value: Any) -> Any:
    """Unboxes a linen `Partitioned` or an nnx `Param`; returns arrays unchanged."""
    if hasattr(value, "get_value"):
        return value.get_value()
    return value.value if hasattr(value, "unbox") else value
