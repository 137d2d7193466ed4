"""Weights of Flax linen's `LSTMCell`, `OptimizedLSTMCell`, `GRUCell`, `SimpleCell`.

    cell = jaxrnn.convert.linen.load(nn.RNN(nn.GRUCell(5)).init(key, x))
    outputs, state = jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)

The state of an LSTM is (c, h), here as there. Activations are no part of the
parameters: what a module has as its `activation_fn` is here the cell's `activation`.
The gates are sigmoids, as Flax's are unless a module has another `gate_fn`; nor do
parameters tell of a `SimpleCell` with `residual=True`, which has no counterpart.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from .._cells.bound import BoundCell
from . import _flax
from ._layer import Layer

__all__ = ["load", "load_bidirectional", "save", "save_bidirectional"]


def load(params: Mapping[str, Any], activation: Any = None) -> BoundCell:
    """The cell of a module that runs in one direction.

    Args:
        params: Of a cell, of an `nn.RNN`, or of an `nn.Sequential` of several of these;
            what `init` gives is fine as well. Of a larger model pass the part.
        activation: The `activation_fn` of the cells; None for Flax's own, tanh.

    Returns:
        A bound `LSTMCell` with `forget_bias=0`, `CudnnCompatibleGRUCell` or
        `BasicRNNCell`; of several layers a bound `MultiRNNCell`.

    Raises:
        TypeError: If `params` are no nested dicts, or a weight is no floating array.
        ValueError: If a weight is missing, not known, or of the wrong shape; if there
            are two directions; if something without parameters stands between layers.

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
    return _flax.load("convert.linen.load", params, _flax.from_separate, activation)


def load_bidirectional(
    params: Mapping[str, Any], activation: Any = None
) -> tuple[tuple[BoundCell, ...], tuple[BoundCell, ...]]:
    """The cells of an `nn.Bidirectional`, or of an `nn.Sequential` of several.

    Args:
        params: As in `load`.
        activation: As in `load`.

    Returns:
        `(cells_fw, cells_bw)`, each a cell for each layer, as
        `stack_bidirectional_dynamic_rnn` takes them.

    Raises:
        TypeError: As in `load`.
        ValueError: If there is one direction; as in `load`.
    """
    where = "convert.linen.load_bidirectional"
    return _flax.load_bidirectional(where, params, _flax.from_separate, activation)


def save(cell: BoundCell) -> dict[str, Any]:
    """The parameters of a cell, as NumPy's arrays.

    `nn.LSTMCell` and `nn.OptimizedLSTMCell` have the same ones. The bias of an LSTM
    holds the forget bias.

    The cell's activation is not among them: give it to the module as `activation_fn`,
    and to `load` as `activation`, or both run with tanh.

    Args:
        cell: A bound `BasicRNNCell`, `BasicLSTMCell`, `LSTMCell` or
            `CudnnCompatibleGRUCell`, or a bound `MultiRNNCell` of such.

    Returns:
        The `params` of the linen cell; an `nn.RNN` wants `{"cell": ...}` of them. Of
        several layers, those of an `nn.Sequential` of as many `nn.RNN`.

    Raises:
        TypeError: If it is no such cell with its parameters.
        ValueError: If Flax has no such: a `GRUCell`, peepholes, clips, a projection.
    """
    made = _flax.save("convert.linen.save", cell, _to_weights)
    return made[0] if len(made) == 1 else _sequential([{"cell": each} for each in made])


def save_bidirectional(
    cells_fw: Sequence[BoundCell], cells_bw: Sequence[BoundCell]
) -> dict[str, Any]:
    """The parameters of the cells of both directions; see `save`.

    Args:
        cells_fw: A cell for each layer, each as in `save`.
        cells_bw: The same for the backward direction.

    Returns:
        The `params` of an `nn.Bidirectional`, or of an `nn.Sequential` of several.

    Raises:
        TypeError: As in `save`.
        ValueError: If there is not one of each for each layer; as in `save`.
    """
    where = "convert.linen.save_bidirectional"
    made = _flax.save_bidirectional(where, cells_fw, cells_bw, _to_weights)
    return made[0] if len(made) == 1 else _sequential(made)


def _sequential(layers: list[dict[str, Any]]) -> dict[str, Any]:
    return {f"layers_{i}": layer for i, layer in enumerate(layers)}


def _to_weights(where: str, name: str, layer: Layer) -> dict[str, Any]:
    del where, name
    return _flax.to_separate(layer)
