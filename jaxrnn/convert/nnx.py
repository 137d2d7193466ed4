"""Weights of Flax nnx's `LSTMCell`, `OptimizedLSTMCell`, `GRUCell` and `SimpleCell`.

    state = nnx.state(nnx.RNN(nnx.GRUCell(3, 5, rngs=rngs)), nnx.Param)
    cell = jaxrnn.convert.nnx.load(nnx.to_pure_dict(state))
    outputs, state = jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)

The state of an LSTM is (c, h) in both libraries. The parameters do not include the
activation, so pass a module's `activation_fn` as `activation`. jaxrnn always uses
sigmoid gates, so a module with another `gate_fn` cannot be converted. A `SimpleCell`
with `residual=True` has no counterpart either. `load` cannot detect these two options,
because the parameters do not include them.
"""

import functools

import numpy as np

from .._base.boundary import export as _export
from .._base.errors import InvalidValue
from .._base.typing import Params
from .._cells.bound import BoundCell
from . import _flax
from ._bound_cells import BothCells, Cells
from ._layer_weights import ActivationLike, Kind, LayerWeights, kind_of
from ._weights import Weights, check_concrete, check_names, reader

__all__ = ["load", "load_bidirectional", "save", "save_bidirectional"]


def __dir__() -> list[str]:
    return __all__


# The submodule that stores the bias, for each kind of cell.
_WITH_BIAS = {Kind.LSTM: "dense_h", Kind.GRU_AFTER: "dense_i", Kind.RNN: "dense_i"}


def load(params: Weights, activation: ActivationLike = None) -> BoundCell:
    """Loads a unidirectional module as a bound cell.

    The weights may be traced, so that gradients have the structure of `params`.

    Args:
        params: The parameters of a cell, of an `nnx.RNN`, or of an `nnx.Sequential`
            that stacks several `nnx.RNN`s:
            `nnx.to_pure_dict(nnx.state(module, nnx.Param))`, or the state itself. For a
            larger model, pass only the parameters of its recurrent part.
        activation: The `activation_fn` of the cells; None for Flax's default, tanh.

    Returns:
        A bound `LSTMCell` with `forget_bias=0`, `CudnnCompatibleGRUCell` or
        `BasicRNNCell`; for several layers, a bound `MultiRNNCell`.

    Raises:
        TypeError: If `params` are not nested dicts, or a weight is not a floating
            array.
        ValueError: If a weight is missing, unknown, or has the wrong shape; if the
            module is bidirectional, or has a layer without parameters between recurrent
            layers.

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


def load_bidirectional(params: Weights, activation: ActivationLike = None) -> BothCells:
    """Loads one `nnx.Bidirectional`, or an `nnx.Sequential` of several, as bound cells.

    Args:
        params: As in `load`.
        activation: As in `load`.

    Returns:
        `(cells_fw, cells_bw)` for `stack_bidirectional_dynamic_rnn`, each with one cell
        per layer.

    Raises:
        TypeError: As in `load`.
        ValueError: If there is only one direction; also as in `load`.
    """
    return _flax.load_bidirectional(params, _to_layer, activation)


def save(cell: BoundCell, optimized: bool = False) -> Params:
    """Returns the parameters of a cell in nested dicts.

    `nnx.update(module, save(cell))` assigns the parameters to a module. The arrays are
    NumPy arrays; traced parameters stay JAX arrays. The bias of an LSTM includes the
    forget bias.

    The activation is not part of the parameters. Pass it to the module as
    `activation_fn` and to `load` as `activation`; both default to tanh.

    Args:
        cell: A bound `BasicRNNCell`, `BasicLSTMCell`, `LSTMCell` or
            `CudnnCompatibleGRUCell`, or a bound `MultiRNNCell` of these.
        optimized: True for the parameters of an `nnx.OptimizedLSTMCell`, which has one
            kernel for all gates; False for an `nnx.LSTMCell`. Only for LSTMs.

    Returns:
        The parameters of the nnx cell; for an `nnx.RNN`, use `{"cell": params}`. For
        several layers, the parameters of an `nnx.Sequential` with one `nnx.RNN` per
        layer.

    Raises:
        TypeError: If `cell` is not one of these bound cells, or the `bias` of its
            `hidden_projection` is traced.
        ValueError: If `cell` has a feature that Flax does not support: a `GRUCell`,
            peepholes, clips, a projection, or a `hidden_projection` with a `bias` other
            than zero.
    """
    to_weights = functools.partial(_to_weights, optimized=optimized)
    return _flax.save(cell, to_weights, _sequential)


def save_bidirectional(
    cells_fw: Cells, cells_bw: Cells, optimized: bool = False
) -> Params:
    """Returns the parameters of the cells of both directions; see `save`.

    Args:
        cells_fw: The forward cell of each layer, as in `save`.
        cells_bw: The backward cell of each layer, as in `save`.
        optimized: As in `save`.

    Returns:
        The parameters of an `nnx.Bidirectional`; for several layers, of an
        `nnx.Sequential` of `nnx.Bidirectional`s.

    Raises:
        TypeError: As in `save`.
        ValueError: If the directions differ in the number of layers; also as in `save`.
    """
    to_weights = functools.partial(_to_weights, optimized=optimized)
    return _flax.save_bidirectional(cells_fw, cells_bw, to_weights, _sequential)


def _sequential(layers: list[Params]) -> Params:
    return {"layers": dict(enumerate(layers))}


def _to_layer(name: str, weights: Weights) -> LayerWeights:
    if not {"dense_i", "dense_h"} & set(weights):
        return _flax.from_separate(name, weights, "if_")
    flat = _flax.unboxed(weights)
    read = reader(flat, f"{name}/")
    state = read("dense_h/kernel", None, None)
    units, columns = state.shape
    kind = kind_of(f"{name}/dense_h/kernel", state, columns, units, Kind.GRU_AFTER)
    bias = f"{_WITH_BIAS[kind]}/bias"
    check_names(name, flat, ["dense_i/kernel", "dense_h/kernel", bias])
    inputs = read("dense_i/kernel", None, columns)
    state_bias = np.zeros(units, state.dtype) if kind == Kind.GRU_AFTER else None
    return _flax.LIBRARY.layer(
        kind, inputs, state, read(bias, columns), state_bias=state_bias
    )


def _to_weights(name: str, layer: LayerWeights, optimized: bool) -> Params:
    if layer.kind == Kind.LSTM and not optimized:
        return _flax.to_separate(layer, "if_")
    place = f"{name}.params['candidate']['hidden_projection']['bias']"
    why = "nnx's GRUCell lacks this bias and `save` must find only zeros in it"
    check_concrete(place, layer.state_bias, why)
    if layer.state_bias is not None and layer.state_bias.any():
        raise InvalidValue(
            f"`{place}` must hold zeros, since nnx's GRUCell lacks this bias. Linen's "
            "GRUCell has it."
        )
    inputs, state, bias, _ = _flax.LIBRARY.arrays(layer)
    weights = {"dense_i": {"kernel": inputs}, "dense_h": {"kernel": state}}
    weights[_WITH_BIAS[layer.kind]]["bias"] = bias
    return weights


_export(globals())
