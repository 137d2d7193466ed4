"""Weights of Flax linen's `LSTMCell`, `OptimizedLSTMCell`, `GRUCell` and `SimpleCell`.

    cell = jaxrnn.convert.linen.load(nn.RNN(nn.GRUCell(5)).init(key, x))
    outputs, state = jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)

The state of an LSTM is (c, h) in both libraries. The parameters do not include the
activation. If a module has its own `activation_fn`, pass it to `load` as `activation`,
which is required for a `SimpleCell`. The gates of the loaded cells are sigmoids, so a
module with another `gate_fn` cannot be converted. A `SimpleCell` with `residual=True`
has no counterpart either. `load` cannot detect these two options, because the
parameters do not include them.
"""

from .._base.modules import set_module
from .._base.typing import Params
from ._flax import LIBRARY, LINEN, load, modules_of
from ._layer_weights import Cells

__all__ = ["load", "save"]


def save(cell: Cells, *, bidirectional: bool = False) -> Params:
    """Returns the parameters of a cell as NumPy arrays.

    Traced parameters stay JAX arrays.

    `nn.LSTMCell` and `nn.OptimizedLSTMCell` have the same parameters. The bias of an
    LSTM includes the forget bias.

    The activation is not part of the parameters. Pass it to the module as
    `activation_fn` and to `load` as `activation`.

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
    layers = LIBRARY.layers_of(cell, bidirectional)
    modules = modules_of(layers, LINEN)
    if len(modules) == 1:
        return modules[0]
    return {f"layers_{i}": module for i, module in enumerate(modules)}


set_module(__name__)
