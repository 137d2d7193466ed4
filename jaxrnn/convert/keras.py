"""Weights of Keras's `LSTM`, `GRU` and `SimpleRNN`, of Keras 3 and of tf_keras.

    cell = jaxrnn.convert.keras.load(lstm.get_weights())
    outputs, state = jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)

Keras's state of an LSTM is [h, c]; here it is (c, h). Gates are sigmoids here, as in
Keras unless a layer has another `recurrent_activation`.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._base.errors import describe
from .._cells.bound import BoundCell
from ._counterparts import check_plain
from ._layer_weights import (
    GATES,
    GRU,
    GRU_AFTER,
    LSTM,
    RNN,
    LayerWeights,
    bind,
    reordered,
)
from ._pairs import (
    as_layers,
    bind_both,
    kind_of,
    merge_biases,
    split_biases,
    unbind_both,
    unbind_named,
)
from ._weights import reader

__all__ = ["load", "load_bidirectional", "save", "save_bidirectional"]

# The blocks of columns, under the names of `GATES`.
_ORDER = {RNN: "c", GRU: "urc", GRU_AFTER: "urc", LSTM: "ifjo"}


def load(
    *layers: Sequence[Any], activation: Any = "tanh", reset_after: bool = True
) -> BoundCell:
    """The bound cell of stacked layers of one direction.

    The kind of a layer (LSTM, GRU or SimpleRNN) is inferred from its shapes. Layers
    without a bias get one of zeros.

    Args:
        *layers: The `get_weights()` of each layer, from the inputs upwards; or a list
            of these, as `save` returns it.
        activation: The activation of the layers: a name or a function. "hard_sigmoid"
            and "gelu" have other slopes in some versions of Keras: pass the function.
        reset_after: That of a GRU without a bias; otherwise the bias's shape shows it.

    Returns:
        A bound `LSTMCell` with `forget_bias=0`, `GRUCell`, `CudnnCompatibleGRUCell`
        (`reset_after`) or `BasicRNNCell`; of several layers a bound `MultiRNNCell`.

    Raises:
        TypeError: If a layer is not a list, or a weight is not a floating array.
        ValueError: If a layer has another number of weights, as one of two directions
            has, or a weight has the wrong shape; if no layer is given.

    Example:
        >>> import numpy as np, jaxrnn.convert.keras
        >>> shapes = [(3, 15), (5, 15), (2, 15)]
        >>> cell = jaxrnn.convert.keras.load([np.ones(s, np.float32) for s in shapes])
        >>> type(cell.cell).__name__, cell.state_size
        ('CudnnCompatibleGRUCell', 5)
        >>> [weight.shape for weight in jaxrnn.convert.keras.save(cell)[0]]
        [(3, 15), (5, 15), (2, 15)]
    """
    where = "convert.keras.load"
    found, depth = [], None
    for name, weights in _named(where, layers):
        if len(weights) in (4, 6):
            raise ValueError(
                f"{where}: `{name}` must be kernel, recurrent_kernel and, if there is "
                f"one, bias, got {len(weights)} weights. Use `load_bidirectional` for "
                "a Bidirectional; of several cells in one RNN pass each cell's weights."
            )
        places = range(len(weights))
        found.append(
            _layer(where, name, weights, activation, reset_after, depth, places)
        )
        depth = found[-1].units
    return bind(where, found)


def load_bidirectional(
    *layers: Sequence[Any], activation: Any = "tanh", reset_after: bool = True
) -> tuple[tuple[BoundCell, ...], tuple[BoundCell, ...]]:
    """The bound cells of stacked `Bidirectional` layers.

    Args:
        *layers: The `get_weights()` of each `Bidirectional`, from the inputs upwards;
            all but the last have `merge_mode="concat"`.
        activation: As in `load`.
        reset_after: As in `load`.

    Returns:
        `(cells_fw, cells_bw)`, each with a cell for each layer, as
        `stack_bidirectional_dynamic_rnn` takes them.

    Raises:
        TypeError: As in `load`.
        ValueError: If a layer has the weights of one direction; as in `load`.
    """
    where = "convert.keras.load_bidirectional"
    pairs, depth = [], None
    for name, weights in _named(where, layers):
        if len(weights) in (2, 3):
            raise ValueError(
                f"{where}: `{name}` must hold the weights of both directions, 4 or 6, "
                f"got {len(weights)}. Use `load` for one direction."
            )
        half = len(weights) // 2
        read = functools.partial(_layer, where, name, weights, activation, reset_after)
        fw = read(depth, range(half))
        bw = read(len(fw.inputs), range(half, 2 * half))
        _check_kinds(where, f"`{name}`", fw, bw)
        pairs.append((fw, bw))
        depth = fw.units + bw.units
    return bind_both(where, pairs)


def save(cell: BoundCell) -> list[list[np.ndarray]]:
    """For each layer of a cell the argument of `set_weights` of a Keras layer.

    The Keras layer must be built and have a bias, the `activation` of the cell and, for
    a GRU, its `reset_after`: False for `GRUCell`. The bias of an LSTM includes the
    forget bias. Pass the `activation` to `load` as well: its default is tanh.

    Args:
        cell: A bound `BasicRNNCell`, `BasicLSTMCell`, `LSTMCell`, `GRUCell`,
            `CudnnCompatibleGRUCell`, or a bound `MultiRNNCell` of these.

    Raises:
        TypeError: If `cell` is not such a bound cell.
        ValueError: For what Keras does not have: peepholes, clips, a projection.
    """
    where = "convert.keras.save"
    return [_weights(where, *each) for each in unbind_named(where, "cell", cell)]


def save_bidirectional(
    cells_fw: Sequence[BoundCell], cells_bw: Sequence[BoundCell]
) -> list[list[np.ndarray]]:
    """For each layer the argument of `Bidirectional.set_weights`; see `save`.

    Args:
        cells_fw: A cell for each layer, each as in `save`.
        cells_bw: The cells of the backward direction, likewise.

    Raises:
        TypeError: As in `save`.
        ValueError: If both do not have the same number of layers, or layers of other
            kinds; as in `save`.
    """
    where = "convert.keras.save_bidirectional"
    layers = []
    for i, (fw, bw) in enumerate(unbind_both(where, cells_fw, cells_bw)):
        _check_kinds(where, f"`cells_fw[{i}]` and `cells_bw[{i}]`", fw, bw)
        weights = _weights(where, f"cells_fw[{i}]", fw)
        layers.append(weights + _weights(where, f"cells_bw[{i}]", bw))
    return layers


def _check_kinds(where: str, name: str, fw: LayerWeights, bw: LayerWeights) -> None:
    if fw.kind != bw.kind:
        raise ValueError(
            f"{where}: {name} must be of one kind, as a Bidirectional has one layer "
            f"twice, got {fw.kind} and {bw.kind}."
        )


def _named(where: str, layers: Sequence[Any]) -> list[tuple[str, list[Any]]]:
    """The weights of each layer, with its name in messages."""
    layers = as_layers(layers)
    if not layers:
        raise ValueError(f"{where}: `layers` must be at least one, got none.")
    for i, layer in enumerate(layers):
        if not isinstance(layer, list | tuple):
            raise TypeError(
                f"{where}: `layers[{i}]` must be a list of arrays, got "
                f"{describe(layer)}. Pass `layer.get_weights()`."
            )
        if len(layer) not in (2, 3, 4, 6):
            raise ValueError(
                f"{where}: `layers[{i}]` must hold 2 or 3 weights for a direction, got "
                f"{len(layer)}. Pass each layer's own `get_weights()`."
            )
    return [(f"layers[{i}]", list(layer)) for i, layer in enumerate(layers)]


def _layer(
    where: str,
    name: str,
    weights: list[Any],
    activation: Any,
    reset_after: bool,
    depth: int | None,
    places: range,
) -> LayerWeights:
    """One direction of a layer, from its weights at `places`."""
    read = reader(where)
    get = lambda i, *shape: read(f"{name}[{places[i]}]", weights[places[i]], shape)
    state = get(1, None, None)
    units, columns = state.shape
    kind = kind_of(where, f"{name}[{places[1]}]", columns, units, state)
    inputs = get(0, depth, columns)
    has_bias = len(places) == 3
    if has_bias:
        reset_after = np.ndim(weights[places[2]]) == 2
    kind = GRU_AFTER if kind == GRU and reset_after else kind
    shape = (2, columns) if kind == GRU_AFTER else (columns,)
    bias = get(2, *shape) if has_bias else np.zeros(shape, state.dtype)
    ours = lambda array: reordered(array, _ORDER[kind], GATES[kind])
    bias, state_bias = ours(bias), None
    if kind == GRU_AFTER:
        bias, state_bias = merge_biases(kind, *bias)
    return LayerWeights(
        kind, ours(inputs), ours(state), bias, state_bias, activation=activation
    )


def _weights(where: str, name: str, layer: LayerWeights) -> list[np.ndarray]:
    check_plain(where, name, layer, "Keras")
    bias = layer.whole_bias
    if layer.kind == GRU_AFTER:
        bias = np.stack(split_biases(layer))
    order = GATES[layer.kind], _ORDER[layer.kind]
    return [reordered(array, *order) for array in (layer.inputs, layer.state, bias)]
