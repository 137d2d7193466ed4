"""Weights of the layers `LSTM`, `GRU` and `SimpleRNN` of Keras 3 and tf_keras.

    cell = jaxrnn.convert.keras.load(lstm.get_weights())
    outputs, state = jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)

The state of an LSTM is [h, c] in Keras and (c, h) in jaxrnn. jaxrnn always uses sigmoid
gates, so a layer with another `recurrent_activation` cannot be converted. `load` cannot
detect such a layer, because the weights do not include this option.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._base.arguments import as_bool, check_instance
from .._base.boundary import export as _export
from .._base.errors import InvalidValue
from .._cells.bound import BoundCell
from . import _bound_cells
from ._bound_cells import BothCells, Cells, cell_of_layers, cells_of_pairs
from ._layer_weights import ActivationLike, Kind, LayerWeights, Library, kind_of
from ._weights import Weight, check_directions, joined, reader

__all__ = ["load", "load_bidirectional", "save", "save_bidirectional"]


def __dir__() -> list[str]:
    return __all__


_LIBRARY = Library(
    "Keras", {Kind.RNN: "c", Kind.GRU: "urc", Kind.GRU_AFTER: "urc", Kind.LSTM: "ifjo"}
)


def load(
    *layers: Sequence[Any],
    activation: ActivationLike = "tanh",
    reset_after: bool = True,
) -> BoundCell:
    """Loads one or several stacked unidirectional layers as a bound cell.

    `load` infers the kind of a layer (LSTM, GRU or SimpleRNN) from the shapes of its
    weights. Layers without a bias get a bias of zeros. The weights may be traced, so
    that gradients have the structure of `layers`.

    Args:
        *layers: The `get_weights()` of each layer, from the inputs upwards, or a single
            list with the weights of all layers, as returned by `save`.
        activation: The activation of the layers: a name or a function. "hard_sigmoid"
            and "gelu" differ between versions of Keras, so pass the function instead.
        reset_after: The `reset_after` of GRUs without a bias. For GRUs with a bias,
            `load` infers this option from the shape of the bias.

    Returns:
        A bound `LSTMCell` with `forget_bias=0`, `GRUCell`, `CudnnCompatibleGRUCell`
        (for `reset_after`) or `BasicRNNCell`; for several layers, a bound
        `MultiRNNCell`.

    Raises:
        TypeError: If a layer is not a list, a weight is not a floating-point array, or
            `reset_after` is not a bool.
        ValueError: If a layer has the wrong number of weights, e.g. because it has two
            directions; if a weight has the wrong shape, or no layer is given.

    Example:
        >>> import numpy as np, jaxrnn.convert.keras
        >>> shapes = [(3, 15), (5, 15), (2, 15)]
        >>> cell = jaxrnn.convert.keras.load([np.ones(s, np.float32) for s in shapes])
        >>> type(cell.cell).__name__, cell.state_size
        ('CudnnCompatibleGRUCell', 5)
        >>> [weight.shape for weight in jaxrnn.convert.keras.save(cell)[0]]
        [(3, 15), (5, 15), (2, 15)]
    """
    found = _layers(layers, 1, activation, reset_after)
    return cell_of_layers([layer for (layer,) in found])


def load_bidirectional(
    *layers: Sequence[Any],
    activation: ActivationLike = "tanh",
    reset_after: bool = True,
) -> BothCells:
    """Loads one or several stacked `Bidirectional` layers as bound cells.

    Args:
        *layers: The `get_weights()` of each `Bidirectional`, from the inputs upwards.
            All layers except the last must have `merge_mode="concat"`.
        activation: As in `load`.
        reset_after: As in `load`.

    Returns:
        `(cells_fw, cells_bw)` for `stack_bidirectional_dynamic_rnn`, each with one cell
        per layer.

    Raises:
        TypeError: As in `load`.
        ValueError: If a layer has only one direction; also as in `load`.
    """
    return cells_of_pairs(_layers(layers, 2, activation, reset_after))


def save(cell: BoundCell) -> list[list[np.ndarray]]:
    """Returns the argument of Keras's `set_weights` for each layer of a cell.

    The Keras layer must be built, and have a bias and the `activation` of the cell. A
    Keras `GRU` also needs the right `reset_after`: False for a `GRUCell`, True for a
    `CudnnCompatibleGRUCell`. The bias of an LSTM includes the forget bias. To load the
    weights again, pass the `activation` to `load`, whose default is tanh.

    Args:
        cell: A bound `BasicRNNCell`, `BasicLSTMCell`, `LSTMCell`, `GRUCell` or
            `CudnnCompatibleGRUCell`, or a bound `MultiRNNCell` of these.

    Raises:
        TypeError: If `cell` is not one of these bound cells.
        ValueError: If `cell` has peepholes, clips or a projection, which Keras does not
            support.
    """
    return [_weights(layer) for _, layer in _bound_cells.layers_of_cell(_LIBRARY, cell)]


def save_bidirectional(cells_fw: Cells, cells_bw: Cells) -> list[list[np.ndarray]]:
    """Returns the argument of `Bidirectional.set_weights` for each layer; see `save`.

    Args:
        cells_fw: The forward cell of each layer, as in `save`.
        cells_bw: The backward cell of each layer, as in `save`.

    Raises:
        TypeError: As in `save`.
        ValueError: If the directions differ in the number or the kinds of their layers;
            also as in `save`.
    """
    layers = []
    pairs = _bound_cells.pairs_of_cells(_LIBRARY, cells_fw, cells_bw)
    for (name, fw), (_, bw) in pairs:
        _check_kinds(name, fw, bw)
        layers.append(_weights(fw) + _weights(bw))
    return layers


def _check_kinds(name: str, fw: LayerWeights, bw: LayerWeights) -> None:
    if fw.kind != bw.kind:
        got = f"{fw.kind} and {bw.kind}"
        raise InvalidValue(f"`{name}`: both directions must be of one kind, got {got}.")


def _layers(
    layers: Sequence[Any],
    directions: int,
    activation: ActivationLike,
    reset_after: bool,
) -> list[tuple[LayerWeights, ...]]:
    """The weights of each layer: one `LayerWeights` per direction."""
    reset_after = as_bool("reset_after", reset_after)
    found: list[tuple[LayerWeights, ...]] = []
    depth = None
    for i, arrays in enumerate(_bound_cells.as_layers("layers", layers)):
        name = f"layers[{i}]"
        _check_arrays(name, arrays, directions)
        size = len(arrays) // directions
        both: list[LayerWeights] = []
        for start in range(0, len(arrays), size):
            own = {key: arrays[key] for key in range(start, start + size)}
            both.append(_layer(name, own, depth, activation, reset_after))
            depth = len(both[0].input_kernel)
        _check_kinds(name, both[0], both[-1])
        depth = sum(layer.units for layer in both)
        found.append(tuple(both))
    return found


def _check_arrays(name: str, arrays: Any, directions: int) -> None:
    """Raises an error unless `arrays` match a layer with `directions` directions."""
    fix = "Pass `layer.get_weights()`."
    check_instance(name, arrays, list | tuple, "a list of arrays", fix)
    count = len(arrays)
    if count not in (2, 3, 4, 6):
        raise InvalidValue(
            f"`{name}` must hold 2 or 3 weights per direction, got {count}. Pass the "
            "`get_weights()` of each layer, or of each cell in an `RNN`."
        )
    check_directions(name, 1 if count < 4 else 2, directions)


def _layer(
    name: str,
    arrays: dict[int, Weight],
    depth: int | None,
    activation: ActivationLike,
    reset_after: bool,
) -> LayerWeights:
    """Reads one direction of a layer; the keys of `arrays` are list positions."""
    read = reader(arrays, f"{name}[", "]")
    kernel, recurrent, *last = arrays
    state = read(recurrent, None, None)
    units, columns = state.shape
    if last:
        reset_after = np.ndim(arrays[last[0]]) == 2
    gru = Kind.GRU_AFTER if reset_after else Kind.GRU
    kind = kind_of(f"{name}[{recurrent}]", state, columns, units, gru)
    inputs = read(kernel, depth, columns)
    shape = (2, columns) if kind == Kind.GRU_AFTER else (columns,)
    bias = read(*last, *shape) if last else np.zeros(shape, state.dtype)
    biases = bias if bias.ndim == 2 else [bias]
    return _LIBRARY.layer(kind, inputs, state, *biases, activation=activation)


def _weights(layer: LayerWeights) -> list[np.ndarray]:
    inputs, state, *biases = _LIBRARY.arrays(layer)
    if layer.kind != Kind.GRU_AFTER:
        return [inputs, state, biases[0]]
    return [inputs, state, joined([bias[None] for bias in biases])]


_export(globals())
