"""Weights of Flax linen's `LSTMCell`, `OptimizedLSTMCell`, `GRUCell`, `SimpleCell`.

    cell = jaxrnn.convert.linen.load(nn.RNN(nn.GRUCell(5)).init(key, x))
    outputs, state = jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)

The state of an LSTM is (c, h) in both libraries. The parameters do not include the
activation, so pass a module's `activation_fn` as `activation`. jaxrnn always uses
sigmoid gates, so a module with another `gate_fn` cannot be converted. A `SimpleCell`
with `residual=True` has no counterpart either. `load` cannot detect these two options,
because the parameters do not include them.
"""

from .._base.boundary import export as _export
from .._base.typing import Params
from .._cells.bound import BoundCell
from . import _flax
from ._bound_cells import BothCells, Cells
from ._layer_weights import ActivationLike, LayerWeights
from ._weights import Weights

__all__ = ["load", "load_bidirectional", "save", "save_bidirectional"]


def __dir__() -> list[str]:
    return __all__


def load(params: Weights, activation: ActivationLike = None) -> BoundCell:
    """Loads a unidirectional module as a bound cell.

    The weights may be traced, so that gradients have the structure of `params`.

    Args:
        params: The parameters of a cell, of an `nn.RNN`, or of an `nn.Sequential` that
            stacks several `nn.RNN`s; or the variables that `init` returns. For a larger
            model, pass only the parameters of its recurrent part.
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


def load_bidirectional(params: Weights, activation: ActivationLike = None) -> BothCells:
    """Loads one `nn.Bidirectional`, or an `nn.Sequential` of several, as bound cells.

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
    return _flax.load_bidirectional(params, _flax.from_separate, activation)


def save(cell: BoundCell) -> Params:
    """Returns the parameters of a cell as NumPy arrays.

    Traced parameters stay JAX arrays.

    `nn.LSTMCell` and `nn.OptimizedLSTMCell` have the same parameters. The bias of an
    LSTM includes the forget bias.

    The activation is not part of the parameters. Pass it to the module as
    `activation_fn` and to `load` as `activation`; both default to tanh.

    Args:
        cell: A bound `BasicRNNCell`, `BasicLSTMCell`, `LSTMCell` or
            `CudnnCompatibleGRUCell`, or a bound `MultiRNNCell` of these.

    Returns:
        The `params` of the linen cell; for an `nn.RNN`, use `{"cell": params}`. For
        several layers, the `params` of an `nn.Sequential` with one `nn.RNN` per layer.

    Raises:
        TypeError: If `cell` is not one of these bound cells.
        ValueError: If `cell` has a feature that Flax does not support: a `GRUCell`,
            peepholes, clips or a projection.
    """
    return _flax.save(cell, _to_weights, _sequential)


def save_bidirectional(cells_fw: Cells, cells_bw: Cells) -> Params:
    """Returns the parameters of the cells of both directions; see `save`.

    Args:
        cells_fw: The forward cell of each layer, as in `save`.
        cells_bw: The backward cell of each layer, as in `save`.

    Returns:
        The `params` of an `nn.Bidirectional`; for several layers, of an `nn.Sequential`
        of `nn.Bidirectional`s.

    Raises:
        TypeError: As in `save`.
        ValueError: If the directions differ in the number of layers; also as in `save`.
    """
    return _flax.save_bidirectional(cells_fw, cells_bw, _to_weights, _sequential)


def _sequential(layers: list[Params]) -> Params:
    return {f"layers_{i}": layer for i, layer in enumerate(layers)}


def _to_weights(name: str, layer: LayerWeights) -> Params:
    del name
    return _flax.to_separate(layer)


_export(globals())
