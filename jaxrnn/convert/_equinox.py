"""Weights of Equinox's `LSTMCell` and `GRUCell`."""

from collections.abc import Mapping
from typing import Any

from .._base.errors import Verbatim, expect, is_array
from .._cells.base import BoundCell
from ._kinds import Kind
from ._layer_weights import LayerWeights, Library, as_bound, as_layers, bind_layers
from ._weights import Reader, check_names

_ORDERS = {Kind.LSTM: "ifjo", Kind.GRU_AFTER: "ruc"}
_LIBRARY = Library(
    "Equinox",
    _ORDERS,
    activations=dict.fromkeys(_ORDERS, ("tanh",)),
    is_transposed=True,
)
_TABLES = {
    kind: {"weight_ih": ("x", order), "weight_hh": ("h", order), "bias": ("b", order)}
    for kind, order in _ORDERS.items()
}
_TABLES[Kind.GRU_AFTER]["bias_n"] = ("s", "c")


def from_equinox(cells: object) -> BoundCell:
    """Loads one Equinox cell, or several stacked cells, as a bound cell.

    Cells with `use_bias=False` get biases of zeros. The weights may be traced, e.g. by
    `eqx.filter_grad`, and gradients have the structure of `cells`. Equinox orders the
    state of an LSTM as (h, c), jaxrnn as (c, h).

    Args:
        cells: A cell, or a list of stacked cells from the inputs upwards. Each cell is
            an `eqx.nn.LSTMCell`, an `eqx.nn.GRUCell`, or a dict of their arrays, as
            `to_equinox` returns it.

    Returns:
        A bound `LSTMCell` with `forget_bias=0`, or a bound `CudnnCompatibleGRUCell`.
        Several layers become a bound `MultiRNNCell`.

    Raises:
        TypeError: If a cell is neither an Equinox cell nor a dict of its arrays, or a
            weight is not a floating-point array.
        ValueError: If a weight is missing, unknown, or has the wrong shape, or no cell
            is given.

    Example:
        >>> import numpy as np, jaxrnn.convert
        >>> shapes = {"weight_ih": (20, 3), "weight_hh": (20, 5), "bias": (20,)}
        >>> arrays = {name: np.ones(shape) for name, shape in shapes.items()}
        >>> cell = jaxrnn.convert.from_equinox(arrays)
        >>> type(cell.cell).__name__, cell.state_size
        ('LSTMCell', LSTMStateTuple(c=5, h=5))
        >>> list(jaxrnn.convert.to_equinox(cell))
        ['weight_ih', 'weight_hh', 'bias']
    """
    found = [(_layer(*each),) for each in as_layers("cells", cells).items()]
    return bind_layers("cells", found)


def to_equinox(cell: BoundCell) -> Any:
    """Returns the weights of a cell as a dict of NumPy arrays.

    Traced parameters stay JAX arrays.

    This code copies the returned `arrays` to `eqx_cell`, an Equinox cell with biases::

        names = list(arrays)
        get = lambda cell: [getattr(cell, name) for name in names]
        eqx.tree_at(get, eqx_cell, [jnp.asarray(arrays[name]) for name in names])

    The bias of an LSTM includes the forget bias.

    Args:
        cell: A bound `BasicLSTMCell`, `LSTMCell` or `CudnnCompatibleGRUCell`, or a
            bound `MultiRNNCell` of these.

    Returns:
        A dict of arrays, or for several layers a list with one dict per layer.

    Raises:
        TypeError: If a cell is not bound, or no converter supports its class.
        ValueError: If `cell` is or contains a `BasicRNNCell` or `GRUCell`, which
            Equinox does not have. If a cell has peepholes, clips, coupled gates, a
            projection, or an activation other than tanh.
    """
    found = _LIBRARY.layers_of(as_bound("cell", cell))
    layers = [_LIBRARY.write(layer, _TABLES[layer.kind]) for ((_, layer),) in found]
    return layers[0] if len(layers) == 1 else layers


def _layer(name: str, cell: Any) -> LayerWeights:
    given = cell
    if not isinstance(cell, Mapping):
        names = _TABLES[Kind.GRU_AFTER]
        given = {key: getattr(cell, key, None) for key in names}
    weights = {key: value for key, value in given.items() if value is not None}
    must = "be an LSTMCell or a GRUCell of Equinox, or a dict of its arrays"
    # Show the module of the class, because other libraries also have an `LSTMCell`.
    got = Verbatim(f"{type(cell).__module__}.{type(cell).__name__}")
    expect(weights, name, must, got, error=TypeError)
    # Also read arrays that Equinox's cells do not have. They belong to a subclass,
    # whose equations may differ, so `check_names` refuses them.
    weights |= {k: x for k, x in getattr(cell, "__dict__", {}).items() if is_array(x)}
    read = Reader(weights, f"{name}.")
    state = read("weight_hh", None, None)
    rows, units = state.shape
    kind = _LIBRARY.kind_of(read.name("weight_hh"), state, rows, units)
    table = _TABLES[kind]
    if not weights.keys() & {"bias", "bias_n"}:
        table = {key: table[key] for key in ("weight_ih", "weight_hh")}
    check_names(name, weights, table)
    return _LIBRARY.read(read, kind, table, units)
