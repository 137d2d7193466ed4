"""Weights of Keras's `LSTM`, `GRU` and `SimpleRNN`, of Keras 3 and of tf_keras.

    cell = jaxrnn.convert.keras.load(lstm.get_weights())
    outputs, state = jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)

Keras's state of an LSTM is [h, c]; here it is (c, h). The gates are sigmoids, as those
of Keras are unless a layer has another `recurrent_activation`; no cell has another.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._base.errors import describe
from .._cells.bound import BoundCell
from ._counterparts import check_plain
from ._layer import GATES, GRU, GRU_AFTER, LSTM, RNN, Layer, bind, blocks
from ._pairs import (
    kind_of,
    merge_biases,
    split_biases,
    spread,
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
    """The cell of layers on one another, each of one direction.

    Whether a layer is an LSTM, a GRU or a SimpleRNN is told from the shapes. Layers
    without a bias get one of zeros.

    Args:
        *layers: What `get_weights()` of each layer gives, from the inputs upwards; or
            a list of these, as `save` gives it.
        activation: That of the layers: a name or a function. "hard_sigmoid" and "gelu"
            are functions of other slopes in some versions of Keras: pass those.
        reset_after: That of a GRU without a bias; with one its shape tells.

    Returns:
        A bound `LSTMCell` with `forget_bias=0`, `GRUCell`, `CudnnCompatibleGRUCell`
        (`reset_after`) or `BasicRNNCell`; of several layers a bound `MultiRNNCell`.

    Raises:
        TypeError: If a layer is no list, or a weight no floating array.
        ValueError: If a layer has another number of weights, as with two directions, or
            a weight the wrong shape; if no layer is given.

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
    made, depth = [], None
    for name, weights in _named(where, layers):
        if len(weights) in (4, 6):
            raise ValueError(
                f"{where}: `{name}` must be kernel, recurrent_kernel and, if there is "
                f"one, bias, got {len(weights)} weights. Use `load_bidirectional` for "
                "a Bidirectional; of several cells in one RNN pass each cell's weights."
            )
        made.append(_layer(where, name, weights, depth, activation, reset_after))
        depth = made[-1].units
    return bind(where, made)


def load_bidirectional(
    *layers: Sequence[Any], activation: Any = "tanh", reset_after: bool = True
) -> tuple[tuple[BoundCell, ...], tuple[BoundCell, ...]]:
    """The cells of `Bidirectional` layers on one another.

    Args:
        *layers: What `get_weights()` of each `Bidirectional` gives, from the inputs
            upwards; one below another with `merge_mode="concat"`.
        activation: As in `load`.
        reset_after: As in `load`.

    Returns:
        `(cells_fw, cells_bw)`, each a cell for each layer, as
        `stack_bidirectional_dynamic_rnn` takes them.

    Raises:
        TypeError: As in `load`.
        ValueError: If a layer has the weights of one direction; as in `load`.
    """
    where = "convert.keras.load_bidirectional"
    cells_fw, cells_bw, depth = [], [], None
    for name, weights in _named(where, layers):
        if len(weights) in (2, 3):
            raise ValueError(
                f"{where}: `{name}` must hold the weights of both directions, 4 or 6, "
                f"got {len(weights)}. Use `load` for one direction."
            )
        half = len(weights) // 2
        pair = []
        for places in (range(half), range(half, 2 * half)):
            pair.append(
                _layer(where, name, weights, depth, activation, reset_after, places)
            )
            depth = len(pair[-1].inputs)
        _check_kinds(where, f"`{name}`", *pair)
        depth = sum(layer.units for layer in pair)
        for cells, layer in zip((cells_fw, cells_bw), pair, strict=True):
            cells.append(bind(where, [layer]))
    return tuple(cells_fw), tuple(cells_bw)


def save(cell: BoundCell) -> list[list[np.ndarray]]:
    """For each layer of a cell what `set_weights` of a Keras layer takes.

    The layer must be built, with a bias, and with the `activation` and, of a GRU, the
    `reset_after` of the cell: False for `GRUCell`. The bias of an LSTM holds the forget
    bias. `load` is given the `activation` again, or takes it for tanh.

    Args:
        cell: A bound `BasicRNNCell`, `BasicLSTMCell`, `LSTMCell`, `GRUCell`,
            `CudnnCompatibleGRUCell`, or a bound `MultiRNNCell` of such.

    Raises:
        TypeError: If it is no such cell with its parameters.
        ValueError: If it has peepholes, clips or a projection, which Keras has not.
    """
    where = "convert.keras.save"
    return [_weights(where, *each) for each in unbind_named(where, "cell", cell)]


def save_bidirectional(
    cells_fw: Sequence[BoundCell], cells_bw: Sequence[BoundCell]
) -> list[list[np.ndarray]]:
    """For each layer what `set_weights` of a `Bidirectional` takes; see `save`.

    Args:
        cells_fw: A cell for each layer, each as in `save`.
        cells_bw: The same for the backward direction.

    Raises:
        TypeError: As in `save`.
        ValueError: If there is not one of each for each layer, or they are of two
            kinds; as in `save`.
    """
    where = "convert.keras.save_bidirectional"
    made = []
    for i, (fw, bw) in enumerate(unbind_both(where, cells_fw, cells_bw)):
        _check_kinds(where, f"`cells_fw[{i}]` and `cells_bw[{i}]`", fw, bw)
        weights = _weights(where, f"cells_fw[{i}]", fw)
        made.append(weights + _weights(where, f"cells_bw[{i}]", bw))
    return made


def _check_kinds(where: str, name: str, fw: Layer, bw: Layer) -> None:
    if fw.kind != bw.kind:
        raise ValueError(
            f"{where}: {name} must be of one kind, as a Bidirectional has one layer "
            f"twice, got {fw.kind} and {bw.kind}."
        )


def _named(where: str, layers: Sequence[Any]) -> list[tuple[str, list[Any]]]:
    """The weights of each layer, under the name that messages give it."""
    layers = spread(layers)
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
    depth: int | None,
    activation: Any,
    reset_after: bool,
    places: range | None = None,
) -> Layer:
    """One direction of a layer, from those of its weights that are at `places`."""
    places = range(len(weights)) if places is None else places
    read = reader(where)
    get = lambda i, *shape: read(f"{name}[{places[i]}]", weights[places[i]], shape)
    state = get(1, None, None)
    units, columns = state.shape
    kind = kind_of(where, f"{name}[{places[1]}]", columns, units, state)
    inputs = get(0, depth, columns)
    has_bias = len(places) == 3
    two = kind == GRU and (
        np.ndim(weights[places[2]]) == 2 if has_bias else reset_after
    )
    shape = (2, columns) if two else (columns,)
    bias = get(2, *shape) if has_bias else np.zeros(shape, state.dtype)
    kind = GRU_AFTER if two else kind
    turn = lambda array: blocks(array, _ORDER[kind], GATES[kind])
    bias, state_bias = merge_biases(kind, *turn(bias)) if two else (turn(bias), None)
    return Layer(
        kind, turn(inputs), turn(state), bias, state_bias, activation=activation
    )


def _weights(where: str, name: str, layer: Layer) -> list[np.ndarray]:
    check_plain(where, name, layer, "Keras")
    bias = layer.whole_bias
    if layer.kind == GRU_AFTER:
        bias = np.stack(split_biases(layer))
    order = GATES[layer.kind], _ORDER[layer.kind]
    return [blocks(array, *order) for array in (layer.inputs, layer.state, bias)]
