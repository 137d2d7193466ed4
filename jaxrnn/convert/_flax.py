"""Weights of Flax's `LSTMCell`, `OptimizedLSTMCell`, `GRUCell` and `SimpleCell`.

In both module systems, an `RNN` stores its cell in `cell`, a `Bidirectional` stores two
`RNN`s in `forward_rnn` and `backward_rnn`, and a `Sequential` stacks layers. A cell
stores its kernels and biases in one of two layouts: `separate` modules for each gate,
or two `dense` modules, one for the inputs and one for the state, each of which holds
all gates.
"""

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, overload

from .._base.errors import Verbatim, expect
from .._base.hints import with_hints
from .._base.inputs import check_concrete
from .._base.typing import Params
from .._cells.base import BoundCell
from ._kinds import Kind, Table
from ._layer_weights import (
    ActivationLike,
    BothDirections,
    Cells,
    LayerWeights,
    Library,
    Loaded,
    Named,
    bind_layers,
    check_stated,
)
from ._weights import (
    Reader,
    Weights,
    as_mapping,
    check_names,
    flattened,
    listed,
    nested,
    pick,
)

_LIBRARY = Library("Flax", {Kind.LSTM: "ifjo", Kind.GRU_AFTER: "ruc", Kind.RNN: "c"})
# Under these names, jaxrnn has Keras's functions, which differ from Flax's.
_DIFFERENT = ("gelu", "hard_sigmoid", "leaky_relu")
_BOTH = ("forward_rnn", "backward_rnn")


def _separate(kind: Kind, letters: Iterable[str], biased: str) -> Table:
    """Maps the arrays of a cell with one module per gate to their places.

    A module's name is "i" (reads the inputs) or "h" (reads the state), followed by one
    of `letters`, e.g. "if". Only modules that begin with `biased` have biases.
    """
    parts = ("i", "kernel", "x"), ("h", "kernel", "h"), (biased, "bias", "b")
    return {
        f"{operand}{letter}/{array}": (part, gate)
        for operand, array, part in parts
        for letter, gate in zip(letters, _LIBRARY.orders[kind], strict=True)
    }


_LINEN = {
    Kind.LSTM: _separate(Kind.LSTM, "ifgo", "h"),
    Kind.GRU_AFTER: _separate(Kind.GRU_AFTER, "rzn", "i") | {"hn/bias": ("s", "c")},
    Kind.RNN: _separate(Kind.RNN, [""], "i"),
}
# In nnx, the module "if" is called "if_", because "if" is a Python keyword.
_NNX_LSTM = {key.replace("if/", "if_/"): at for key, at in _LINEN[Kind.LSTM].items()}
# nnx cells with one kernel for the inputs and one for the state, each with all gates.
_DENSE: dict[Kind, Table] = {
    kind: {
        "dense_i/kernel": ("x", order),
        "dense_h/kernel": ("h", order),
        "dense_h/bias" if kind == Kind.LSTM else "dense_i/bias": ("b", order),
    }
    for kind, order in _LIBRARY.orders.items()
}
# The docstring of nnx's `GRUCell` lists this bias, but Flax 0.12 does not create it. If
# it is there, its last block is the bias of the candidate's recurrent product.
_SECOND_BIAS: Table = {"dense_h/bias": ("s", "ruc")}


@overload
def from_flax(
    params: Weights, *, activation: ActivationLike = None, bidirectional: None = None
) -> Loaded: ...


@overload
def from_flax(
    params: Weights, *, activation: ActivationLike = None, bidirectional: Literal[False]
) -> BoundCell: ...


@overload
def from_flax(
    params: Weights, *, activation: ActivationLike = None, bidirectional: Literal[True]
) -> BothDirections: ...


@with_hints
def from_flax(
    params: Weights,
    *,
    activation: ActivationLike = None,
    bidirectional: bool | None = None,
) -> Any:
    """Loads a module of linen or nnx as a bound cell, or as cells of two directions.

    The weights may be traced, and gradients have the structure of `params`. Flax and
    jaxrnn both order the state of an LSTM as (c, h).

    The parameters do not include the options of a module. If a module has its own
    `activation_fn`, pass it as `activation`. `from_flax` cannot convert a module whose
    `gate_fn` is not the sigmoid, or a `SimpleCell` with `residual=True`. The parameters
    do not show these options, so such a module gives wrong results without an error.

    Args:
        params: The parameters of a cell, of an `nn.RNN`, of an `nn.Bidirectional`, or
            of an `nn.Sequential` that stacks several `nn.RNN`s or `nn.Bidirectional`s.
            The modules of nnx have the same names. For linen, pass the variables that
            `init` returns, or their "params". For nnx, pass
            `nnx.state(module, nnx.Param)`, or the result of `nnx.to_pure_dict` for this
            state. For a larger model, pass only the parameters of its recurrent part.
        activation: The `activation_fn` of the cells, by default tanh as in Flax.
            Required for a `SimpleCell`. Instead of the names "hard_sigmoid", "gelu" and
            "leaky_relu", pass the function, because Flax and jaxrnn use these names for
            different functions.
        bidirectional: True requires two directions, False requires one. By default, the
            parameters decide.

    Returns:
        A bound `LSTMCell` with `forget_bias=0`, `CudnnCompatibleGRUCell` or
        `BasicRNNCell`. Several layers become a bound `MultiRNNCell`. For two
        directions, `(cells_fw, cells_bw)` for `stack_bidirectional_dynamic_rnn`, each
        with one cell per layer.

    Raises:
        TypeError: If `params` are not nested dicts, or a weight is not a floating
            array.
        ValueError: If a weight is missing, unknown, or has the wrong shape. If
            `bidirectional` does not fit the module. If `activation` is one of the three
            names above, or missing for a `SimpleCell`. If a layer without parameters is
            between two recurrent layers.

    Example:
        >>> import numpy as np, jaxrnn.convert
        >>> params = {"i": {"kernel": np.ones((3, 5)), "bias": np.ones(5)}}
        >>> params["h"] = {"kernel": np.ones((5, 5))}
        >>> cell = jaxrnn.convert.from_flax({"cell": params}, activation="tanh")
        >>> type(cell.cell).__name__, cell.state_size
        ('BasicRNNCell', 5)
        >>> jaxrnn.convert.to_linen(cell)["h"]["kernel"].shape
        (5, 5)
        >>> jaxrnn.convert.to_nnx(cell)["dense_h"]["kernel"].shape
        (5, 5)
    """
    must = "be a function, because Flax and jaxrnn use this name differently"
    fix = f"For Flax's activation, pass `jax.nn.{activation}`."
    expect(activation not in _DIFFERENT, "activation", must, activation, fix)
    layers = []
    for name, module in _modules(params):
        parts = {name: module}
        if module.keys() & set(_BOTH):
            check_names(name, module, _BOTH)
            parts = {f"{name}/{key}": module[key] for key in _BOTH}
        layers.append([_layer(*part, activation) for part in parts.items()])
    # The parameters do not show how a `Bidirectional` merges its outputs, so the input
    # sizes of the layer above are not checked.
    return bind_layers("params", layers, bidirectional, joins_directions=False)


def to_linen(cell: Cells) -> Params:
    """Returns the parameters of a cell for linen, as NumPy arrays.

    Traced parameters stay JAX arrays.

    `nn.LSTMCell` and `nn.OptimizedLSTMCell` have the same parameters. The bias of an
    LSTM includes the forget bias.

    The activation is not part of the parameters. Pass it to the module as
    `activation_fn` and to `from_flax` as `activation`.

    Args:
        cell: A bound `BasicRNNCell`, `BasicLSTMCell`, `LSTMCell` or
            `CudnnCompatibleGRUCell`, or a bound `MultiRNNCell` of these. For two
            directions, the pair `(cells_fw, cells_bw)`, each a list with one bound cell
            per layer.

    Returns:
        The `params` of the linen cell. For an `nn.RNN`, use `{"cell": params}`. For
        several layers, the `params` of an `nn.Sequential` with one `nn.RNN` per layer.
        For two directions, the `params` of an `nn.Bidirectional` or, for several
        layers, of an `nn.Sequential` of these.

    Raises:
        TypeError: If a cell is not bound, or no converter supports its class.
        ValueError: If a cell is a `GRUCell`, or has a feature that Flax does not
            support: peepholes, clips, coupled gates or a projection. If the directions
            differ in the number of layers.
    """
    modules = _modules_of(_LIBRARY.layers_of(cell), _LINEN)
    if len(modules) == 1:
        return modules[0]
    return {f"layers_{i}": module for i, module in enumerate(modules)}


def to_nnx(cell: Cells, *, optimized: bool = False) -> Params:
    """Returns the parameters of a cell for nnx, as nested dicts of NumPy arrays.

    Traced parameters stay JAX arrays. `nnx.update(module, to_nnx(cell))` assigns the
    parameters to a module. The bias of an LSTM includes the forget bias.

    The activation is not part of the parameters. Pass it to the module as
    `activation_fn` and to `from_flax` as `activation`.

    Args:
        cell: As for `to_linen`.
        optimized: If True, an LSTM becomes an `nnx.OptimizedLSTMCell`, whose two
            kernels each hold all gates. If False, an LSTM becomes an `nnx.LSTMCell`.
            Other cells ignore this argument.

    Returns:
        The parameters of the nnx cell. For an `nnx.RNN`, use `{"cell": params}`. For
        several layers, the parameters of an `nnx.Sequential` with one `nnx.RNN` per
        layer. For two directions, the parameters of an `nnx.Bidirectional` or, for
        several layers, of an `nnx.Sequential` of these.

    Raises:
        TypeError: If a cell is not bound, or no converter supports its class. If the
            bias `candidate/hidden_projection/bias` of a `CudnnCompatibleGRUCell` is
            traced.
        ValueError: For the cells that `to_linen` refuses, and for a
            `CudnnCompatibleGRUCell` whose `candidate/hidden_projection/bias` is not
            zero.
    """
    layers = _LIBRARY.layers_of(cell)
    for name, layer in itertools.chain(*layers):
        if (bias := layer.blocks.get("sc")) is None:
            continue
        place = f"{name}.params['candidate/hidden_projection/bias']"
        why = "`to_nnx` must check that this bias, which nnx's GRUCell lacks, is zero"
        check_concrete(place, bias, why=why)
        must = "hold zeros, because nnx's GRUCell lacks this bias"
        fix = "To keep this bias, use linen's GRUCell."
        expect(not bias.any(), place, must, Verbatim("other values"), fix)
    tables = _DENSE if optimized else _DENSE | {Kind.LSTM: _NNX_LSTM}
    modules = _modules_of(layers, tables)
    return modules[0] if len(modules) == 1 else {"layers": dict(enumerate(modules))}


def _modules_of(
    layers: list[list[Named]], tables: Mapping[Kind, Table]
) -> list[Params]:
    """The parameters of an `RNN` or `Bidirectional` for each layer.

    For one layer of one direction, the result holds the parameters of the cell itself.
    """
    modules = []
    for layer in layers:
        cells = [nested(_LIBRARY.write(own, tables[own.kind])) for _, own in layer]
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
        kind = _LIBRARY.kind_of(place, state, columns, units)
        table = _DENSE[kind]
        if kind == Kind.GRU_AFTER and "dense_h/bias" in flat:
            table = table | _SECOND_BIAS
    else:
        tables = _LINEN | {Kind.LSTM: _NNX_LSTM} if "if_" in given else _LINEN
        kinds = [k for k, x in tables.items() if given.keys() & nested(x).keys()]
        # Refuse the parameters of a whole model, in which the names of the cell's
        # parameters are not at the top level.
        must = (
            "be the parameters of an LSTMCell, OptimizedLSTMCell, GRUCell or SimpleCell"
            ", or of an RNN, Bidirectional or Sequential of such cells"
        )
        fix = "For a larger model, pass only the parameters of the recurrent module."
        got = Verbatim(f"the keys {listed(given)}")
        expect(kinds, name, must, got, fix)
        kind = kinds[0]
        table = tables[kind]
        (first, *_) = (key for key, (part, _) in table.items() if part == "h")
        units = len(read(first, None, None))
    check_names(name, flat, table)
    check_stated("activation", activation, kind)
    return _LIBRARY.read(read, kind, table, units, activation=activation)


def _unboxed(value: Any) -> Any:
    """Unboxes a linen `Partitioned` or an nnx `Param`; returns arrays unchanged."""
    if hasattr(value, "get_value"):
        return value.get_value()
    return value.value if hasattr(value, "unbox") else value
