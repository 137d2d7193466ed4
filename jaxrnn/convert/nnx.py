"""Weights of Flax nnx's `LSTMCell`, `OptimizedLSTMCell`, `GRUCell` and `SimpleCell`.

    state = nnx.state(nnx.RNN(nnx.GRUCell(3, 5, rngs=rngs)), nnx.Param)
    cell = jaxrnn.convert.nnx.load(nnx.to_pure_dict(state))
    outputs, state = jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)

The state of an LSTM is (c, h) in both. Parameters do not hold the activation: pass a
module's `activation_fn` as `activation`. Gates are sigmoids here, as in Flax unless a
module has another `gate_fn`. A `SimpleCell` with `residual=True` has no counterpart;
its parameters do not show it, so it is not refused.
"""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from .._cells.bound import BoundCell
from . import _flax
from ._bound_cells import BothCells, Cells
from ._layer_weights import GRU_AFTER, LSTM, RNN, LayerWeights, kind_of
from ._weights import check_names, public, reader

__all__ = ["load", "load_bidirectional", "save", "save_bidirectional"]

# Which of the two modules of a cell has the bias.
_WITH_BIAS = {LSTM: "dense_h", GRU_AFTER: "dense_i", RNN: "dense_i"}


@public
def load(params: Mapping[str, Any], activation: Any = None) -> BoundCell:
    """The bound cell of a module with one direction.

    Args:
        params: The parameters of a cell, of an `nnx.RNN`, or of an `nnx.Sequential` of
            several of these: `nnx.to_pure_dict(nnx.state(module, nnx.Param))`, or the
            state itself. Of a larger model pass that part.
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
        >>> import numpy as np, jaxrnn.convert.nnx
        >>> params = {"dense_i": {"kernel": np.ones((3, 15)), "bias": np.ones(15)}}
        >>> params["dense_h"] = {"kernel": np.ones((5, 15))}
        >>> cell = jaxrnn.convert.nnx.load({"cell": params})
        >>> type(cell.cell).__name__, cell.state_size
        ('CudnnCompatibleGRUCell', 5)
        >>> jaxrnn.convert.nnx.save(cell)["dense_h"]["kernel"].shape
        (5, 15)
    """
    return _flax.load(params, _to_layer, activation)


@public
def load_bidirectional(params: Mapping[str, Any], activation: Any = None) -> BothCells:
    """The cells of an `nnx.Bidirectional`, or of an `nnx.Sequential` of several.

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
    return _flax.load_bidirectional(params, _to_layer, activation)


@public
def save(cell: BoundCell, optimized: bool = False) -> dict[str, Any]:
    """The parameters of a cell, as NumPy arrays in nested dicts.

    `nnx.update(module, save(cell))` takes them. The bias of an LSTM includes the
    forget bias.

    The cell's activation is not among them: pass it to the module as `activation_fn`,
    and to `load` as `activation`; without it both use tanh.

    Args:
        cell: A bound `BasicRNNCell`, `BasicLSTMCell`, `LSTMCell` or
            `CudnnCompatibleGRUCell`, or a bound `MultiRNNCell` of these.
        optimized: Whether an LSTM is for an `nnx.OptimizedLSTMCell`, which has one
            kernel for all gates, rather than for an `nnx.LSTMCell`.

    Returns:
        The parameters of the nnx cell; those of an `nnx.RNN` are `{"cell": params}`.
        For several layers, those of an `nnx.Sequential` of as many `nnx.RNN`.

    Raises:
        TypeError: If `cell` is not such a bound cell.
        ValueError: For what Flax does not have: a `GRUCell`, peepholes, clips, a
            projection; a `hidden_projection` with a `bias` other than zero.
    """
    to_weights = functools.partial(_to_weights, optimized=optimized)
    return _flax.save(cell, to_weights, _sequential)


@public
def save_bidirectional(
    cells_fw: Cells, cells_bw: Cells, optimized: bool = False
) -> dict[str, Any]:
    """The parameters of the cells of both directions; see `save`.

    Args:
        cells_fw: A cell for each layer, each as in `save`.
        cells_bw: The cells of the backward direction, likewise.
        optimized: As in `save`.

    Returns:
        The parameters of an `nnx.Bidirectional`, or of an `nnx.Sequential` of several.

    Raises:
        TypeError: As in `save`.
        ValueError: If the directions differ in the number of layers; as in `save`.
    """
    to_weights = functools.partial(_to_weights, optimized=optimized)
    return _flax.save_bidirectional(cells_fw, cells_bw, to_weights, _sequential)


def _sequential(layers: list[dict[str, Any]]) -> dict[str, Any]:
    return {"layers": dict(enumerate(layers))}


def _to_layer(name: str, weights: Mapping[str, Any]) -> LayerWeights:
    if not {"dense_i", "dense_h"} & set(weights):
        return _flax.from_separate(name, weights, "if_")
    flat = _flax.unboxed(weights)
    read = reader(flat, f"{name}/")
    kernels = ["dense_i/kernel", "dense_h/kernel"]
    bias = "dense_h/bias" if "dense_h/bias" in flat else "dense_i/bias"
    check_names(name, flat, [*kernels, bias])
    state = read("dense_h/kernel", None, None)
    units, columns = state.shape
    kind = kind_of(f"{name}/dense_h/kernel", state, columns, units, GRU_AFTER)
    check_names(name, flat, [*kernels, f"{_WITH_BIAS[kind]}/bias"])
    arrays = read("dense_i/kernel", None, columns), state, read(bias, columns)
    state_bias = np.zeros(units, state.dtype) if kind == GRU_AFTER else None
    return _flax.LIBRARY.layer(kind, *arrays, state_bias=state_bias)


def _to_weights(name: str, layer: LayerWeights, optimized: bool) -> dict[str, Any]:
    if layer.kind == LSTM and not optimized:
        return _flax.to_separate(layer, "if_")
    if layer.state_bias is not None and layer.state_bias.any():
        raise ValueError(
            f"`{name}` must have a `candidate/hidden_projection/bias` of zeros, as "
            "nnx's has none, got others. Linen's GRUCell has such a bias."
        )
    inputs, state, bias, _ = _flax.LIBRARY.arrays(layer)
    weights = {"dense_i": {"kernel": inputs}, "dense_h": {"kernel": state}}
    weights[_WITH_BIAS[layer.kind]]["bias"] = bias
    return weights
