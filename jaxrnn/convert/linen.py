"""Weights of Flax linen's `LSTMCell`, `OptimizedLSTMCell`, `GRUCell`, `SimpleCell`.

    cell = jaxrnn.convert.linen.load(nn.RNN(nn.GRUCell(5)).init(key, x))
    outputs, state = jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)

The state of an LSTM is (c, h) in both. Parameters do not hold the activation: pass a
module's `activation_fn` as `activation`. Gates are sigmoids here, as in Flax unless a
module has another `gate_fn`. A `SimpleCell` with `residual=True` has no counterpart;
its parameters do not show it, so it is not refused.
"""

from collections.abc import Mapping
from typing import Any

from .._cells.bound import BoundCell
from . import _flax
from ._bound_cells import BothCells, Cells
from ._layer_weights import LayerWeights
from ._weights import public

__all__ = ["load", "load_bidirectional", "save", "save_bidirectional"]


@public
def load(params: Mapping[str, Any], activation: Any = None) -> BoundCell:
    """The bound cell of a module with one direction.

    Args:
        params: The parameters of a cell, of an `nn.RNN`, or of an `nn.Sequential` of
            several of these; or the variables that `init` returns. Of a larger model
            pass that part.
        activation: The `activation_fn` of the cells; None for Flax's own, tanh.

    Returns:
        A bound `LSTMCell` with `forget_bias=0`, `CudnnCompatibleGRUCell` or
        `BasicRNNCell`; of several layers a bound `MultiRNNCell`.

    Raises:
        TypeError: If `params` are not nested dicts, or a weight is not a floating
            array.
        ValueError: If a weight is missing, not known, or of the wrong shape; if there
            are two directions; if a module without parameters is between layers.

    Example:
        >>> import numpy as np, jaxrnn.convert.linen
        >>> params = {"i": {"kernel": np.ones((3, 5)), "bias": np.ones(5)}}
        >>> params["h"] = {"kernel": np.ones((5, 5))}
        >>> cell = jaxrnn.convert.linen.load({"cell": params})
        >>> type(cell.cell).__name__, cell.state_size
        ('BasicRNNCell', 5)
        >>> jaxrnn.convert.linen.save(cell)["h"]["kernel"].shape
        (5, 5)
    """
    return _flax.load(params, _flax.from_separate, activation)


@public
def load_bidirectional(params: Mapping[str, Any], activation: Any = None) -> BothCells:
    """The cells of an `nn.Bidirectional`, or of an `nn.Sequential` of several.

    Args:
        params: As in `load`.
        activation: As in `load`.

    Returns:
        `(cells_fw, cells_bw)`, each with a cell for each layer, as
        `stack_bidirectional_dynamic_rnn` takes them.

    Raises:
        TypeError: As in `load`.
        ValueError: If there is one direction; as in `load`.
    """
    return _flax.load_bidirectional(params, _flax.from_separate, activation)


@public
def save(cell: BoundCell) -> dict[str, Any]:
    """The parameters of a cell, as NumPy arrays.

    Those of `nn.LSTMCell` and `nn.OptimizedLSTMCell` are the same. The bias of an LSTM
    includes the forget bias.

    The cell's activation is not among them: pass it to the module as `activation_fn`,
    and to `load` as `activation`; without it both use tanh.

    Args:
        cell: A bound `BasicRNNCell`, `BasicLSTMCell`, `LSTMCell` or
            `CudnnCompatibleGRUCell`, or a bound `MultiRNNCell` of these.

    Returns:
        The `params` of the linen cell; those of an `nn.RNN` are `{"cell": params}`. For
        several layers, those of an `nn.Sequential` of as many `nn.RNN`.

    Raises:
        TypeError: If `cell` is not such a bound cell.
        ValueError: For what Flax does not have: a `GRUCell`, peepholes, clips, a
            projection.
    """
    return _flax.save(cell, _to_weights, _sequential)


@public
def save_bidirectional(cells_fw: Cells, cells_bw: Cells) -> dict[str, Any]:
    """The parameters of the cells of both directions; see `save`.

    Args:
        cells_fw: A cell for each layer, each as in `save`.
        cells_bw: The cells of the backward direction, likewise.

    Returns:
        The `params` of an `nn.Bidirectional`, or of an `nn.Sequential` of several.

    Raises:
        TypeError: As in `save`.
        ValueError: If the directions differ in the number of layers; as in `save`.
    """
    return _flax.save_bidirectional(cells_fw, cells_bw, _to_weights, _sequential)


def _sequential(layers: list[dict[str, Any]]) -> dict[str, Any]:
    return {f"layers_{i}": layer for i, layer in enumerate(layers)}


def _to_weights(name: str, layer: LayerWeights) -> dict[str, Any]:
    del name
    return _flax.to_separate(layer)
