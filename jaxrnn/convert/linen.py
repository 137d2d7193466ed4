"""Weights of Flax linen's `LSTMCell`, `OptimizedLSTMCell`, `GRUCell` and `SimpleCell`.

    cell = jaxrnn.convert.linen.load(nn.RNN(nn.GRUCell(5)).init(key, x))
    outputs, state = jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)

The state of an LSTM is (c, h) in both libraries. The parameters do not include the
activation. If a module has its own `activation_fn`, pass it to `load` as `activation`.
The gates of the loaded cells are sigmoids, so a module with another `gate_fn` cannot be
converted. A `SimpleCell` with `residual=True` has no counterpart either. `load` cannot
detect these two options, because the parameters do not include them.
"""

from typing import Any

from .._base.modules import export as _export
from .._base.typing import Params
from . import _flax
from ._layer_weights import ActivationLike, Cells
from ._weights import Weights

__all__ = ["load", "save"]


def load(
    params: Weights, activation: ActivationLike = None, *, bidirectional: bool = False
) -> Any:
    """Loads a module as a bound cell, or as the bound cells of both directions.

    The weights may be traced. Gradients then have the structure of `params`.

    Args:
        params: The parameters of a cell, of an `nn.RNN`, of an `nn.Bidirectional`, or
            of an `nn.Sequential` that stacks several `nn.RNN`s or `nn.Bidirectional`s;
            or the variables that `init` returns. For a larger model, pass only the
            parameters of its recurrent part.
        activation: The `activation_fn` of the cells; None for Flax's default, tanh.
        bidirectional: Whether the module has two directions.

    Returns:
        A bound `LSTMCell` with `forget_bias=0`, `CudnnCompatibleGRUCell` or
        `BasicRNNCell`; for several layers, a bound `MultiRNNCell`. For two directions,
        `(cells_fw, cells_bw)` for `stack_bidirectional_dynamic_rnn`, each with one cell
        per layer.

    Raises:
        TypeError: If `params` are not nested dicts, or a weight is not a floating
            array.
        ValueError: If a weight is missing, unknown, or has the wrong shape; if
            `bidirectional` does not fit the module; if there is a layer without
            parameters between recurrent layers.

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
    return _flax.load(params, activation, bidirectional, _flax.LINEN)


def save(cell: Cells, *, bidirectional: bool = False) -> Params:
    """Returns the parameters of a cell as NumPy arrays.

    Traced parameters stay JAX arrays.

    `nn.LSTMCell` and `nn.OptimizedLSTMCell` have the same parameters. The bias of an
    LSTM includes the forget bias.

    The activation is not part of the parameters. Pass it to the module as
    `activation_fn` and to `load` as `activation`; both default to tanh.

    Args:
        cell: A bound `BasicRNNCell`, `BasicLSTMCell`, `LSTMCell` or
            `CudnnCompatibleGRUCell`, or a bound `MultiRNNCell` of these. For two
            directions, the pair `(cells_fw, cells_bw)`, each a list with one bound cell
            per layer.
        bidirectional: Whether `cell` is such a pair.

    Returns:
        The `params` of the linen cell; for an `nn.RNN`, use `{"cell": params}`. For
        several layers, the `params` of an `nn.Sequential` with one `nn.RNN` per layer.
        For two directions, the `params` of an `nn.Bidirectional` or, for several
        layers, of an `nn.Sequential` of these.

    Raises:
        TypeError: If a cell is not bound, or no converter supports its class.
        ValueError: If a cell is a `GRUCell`, or has a feature that Flax does not
            support: peepholes, clips, coupled gates or a projection; if the directions
            differ in the number of layers.
    """
    layers = _flax.LIBRARY.layers_of(cell, bidirectional)
    modules = _flax.modules_of(layers, _flax.LINEN)
    if len(modules) == 1:
        return modules[0]
    return {f"layers_{i}": module for i, module in enumerate(modules)}


_export(globals())
