"""Weights of Flax nnx's `LSTMCell`, `OptimizedLSTMCell`, `GRUCell` and `SimpleCell`.

    state = nnx.state(nnx.RNN(nnx.GRUCell(3, 5, rngs=rngs)), nnx.Param)
    cell = jaxrnn.convert.nnx.load(nnx.to_pure_dict(state))
    outputs, state = jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)

The state of an LSTM is (c, h) in both. Parameters do not hold the
activation: pass a module's `activation_fn` as `activation`. Gates are sigmoids here, as
in Flax unless a module has another `gate_fn`. A `SimpleCell` with `residual=True` has
no counterpart, and its parameters do not show it.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._cells.bound import BoundCell
from . import _flax
from ._counterparts import check_names
from ._layer_weights import GATES, GRU, GRU_AFTER, LSTM, RNN, LayerWeights, reordered
from ._pairs import kind_of
from ._weights import reader

__all__ = ["load", "load_bidirectional", "save", "save_bidirectional"]

# The blocks of columns of the cells with two modules, under the names of `GATES`.
_ORDER = {LSTM: "ifjo", GRU_AFTER: "ruc", RNN: "c"}


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
        TypeError: If `params` are no nested dicts, or a weight is not a floating array.
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
    return _flax.load("convert.nnx.load", params, _to_layer, activation)


def load_bidirectional(
    params: Mapping[str, Any], activation: Any = None
) -> tuple[tuple[BoundCell, ...], tuple[BoundCell, ...]]:
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
    where = "convert.nnx.load_bidirectional"
    return _flax.load_bidirectional(where, params, _to_layer, activation)


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
    layers = _flax.save("convert.nnx.save", cell, to_weights)
    if len(layers) == 1:
        return layers[0]
    return _sequential([{"cell": params} for params in layers])


def save_bidirectional(
    cells_fw: Sequence[BoundCell],
    cells_bw: Sequence[BoundCell],
    optimized: bool = False,
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
        ValueError: If both do not have the same number of layers; as in `save`.
    """
    where = "convert.nnx.save_bidirectional"
    to_weights = functools.partial(_to_weights, optimized=optimized)
    layers = _flax.save_bidirectional(where, cells_fw, cells_bw, to_weights)
    return layers[0] if len(layers) == 1 else _sequential(layers)


def _sequential(layers: list[dict[str, Any]]) -> dict[str, Any]:
    return {"layers": dict(enumerate(layers))}


def _to_layer(where: str, name: str, weights: Mapping[str, Any]) -> LayerWeights:
    if not {"dense_i", "dense_h"} & set(weights):
        return _flax.from_separate(where, name, weights, "if_")
    flat, read = _flax.unboxed(weights), reader(where)
    get = lambda key, *shape: read(f"{name}/{key}", flat[key], shape)
    has_state_bias = "dense_h/bias" in flat
    side = "h" if has_state_bias else "i"
    names = ["dense_i/kernel", "dense_h/kernel", f"dense_{side}/bias"]
    check_names(where, name, flat, names)
    state = get("dense_h/kernel", None, None)
    units, columns = state.shape
    kind = kind_of(where, f"{name}/dense_h/kernel", columns, units, state)
    kind = GRU_AFTER if kind == GRU else kind
    if side != _side(kind):
        check_names(where, name, flat, [*names[:2], f"dense_{_side(kind)}/bias"])
    ours = lambda array: reordered(array, _ORDER[kind], GATES[kind])
    return LayerWeights(
        kind,
        ours(get("dense_i/kernel", None, columns)),
        ours(state),
        ours(get(f"dense_{side}/bias", columns)),
        np.zeros(units, state.dtype) if kind == GRU_AFTER else None,
    )


def _to_weights(
    where: str, name: str, layer: LayerWeights, optimized: bool
) -> dict[str, Any]:
    if layer.kind == LSTM and not optimized:
        weights = _flax.to_separate(layer)
        return {"if_" if key == "if" else key: each for key, each in weights.items()}
    if layer.state_bias is not None and layer.state_bias.any():
        raise ValueError(
            f"{where}: `{name}` must have a `candidate/hidden_projection/bias` of "
            "zeros, as nnx's GRUCell has no such bias, got others. Linen's has one."
        )
    theirs = lambda array: reordered(array, GATES[layer.kind], _ORDER[layer.kind])
    weights = {
        "dense_i": {"kernel": theirs(layer.inputs)},
        "dense_h": {"kernel": theirs(layer.state)},
    }
    weights[f"dense_{_side(layer.kind)}"]["bias"] = theirs(layer.whole_bias)
    return weights


def _side(kind: str) -> str:
    """Which module has the bias, `dense_i` or `dense_h`."""
    return "h" if kind == LSTM else "i"
