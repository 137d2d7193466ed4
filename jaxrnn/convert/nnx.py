"""Weights of Flax nnx's `LSTMCell`, `OptimizedLSTMCell`, `GRUCell` and `SimpleCell`.

    state = nnx.state(nnx.RNN(nnx.GRUCell(3, 5, rngs=rngs)), nnx.Param)
    cell = jaxrnn.convert.nnx.load(nnx.to_pure_dict(state))
    outputs, state = jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)

The state of an LSTM is (c, h) in both libraries. The parameters do not include the
activation. If a module has its own `activation_fn`, pass it to `load` as `activation`.
The gates of the loaded cells are sigmoids, so a module with another `gate_fn` cannot be
converted. A `SimpleCell` with `residual=True` has no counterpart either. `load` cannot
detect these two options, because the parameters do not include them.
"""

import itertools
from typing import Any

from .._base.errors import Verbatim, expect
from .._base.inputs import check_concrete
from .._base.modules import export as _export
from .._base.typing import Params
from . import _flax
from ._kinds import Kind
from ._layer_weights import ActivationLike, Cells, LayerWeights
from ._weights import Weights

__all__ = ["load", "save"]


def load(
    params: Weights, activation: ActivationLike = None, *, bidirectional: bool = False
) -> Any:
    """Loads a module as a bound cell, or as the bound cells of both directions.

    The weights may be traced. Gradients then have the structure of `params`.

    Args:
        params: The parameters of a cell, of an `nnx.RNN`, of an `nnx.Bidirectional`, or
            of an `nnx.Sequential` that stacks several `nnx.RNN`s or
            `nnx.Bidirectional`s. Pass `nnx.state(module, nnx.Param)`, or the result of
            `nnx.to_pure_dict` for this state. For a larger model, pass only the
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
        >>> import numpy as np, jaxrnn.convert.nnx
        >>> params = {"dense_i": {"kernel": np.ones((3, 15)), "bias": np.ones(15)}}
        >>> params["dense_h"] = {"kernel": np.ones((5, 15))}
        >>> cell = jaxrnn.convert.nnx.load({"cell": params})
        >>> type(cell.cell).__name__, cell.state_size
        ('CudnnCompatibleGRUCell', 5)
        >>> jaxrnn.convert.nnx.save(cell)["dense_h"]["kernel"].shape
        (5, 15)
    """
    return _flax.load(params, activation, bidirectional, _flax.NNX)


def save(
    cell: Cells, optimized: bool = False, *, bidirectional: bool = False
) -> Params:
    """Returns the parameters of a cell in nested dicts.

    `nnx.update(module, save(cell))` assigns the parameters to a module. The arrays are
    NumPy arrays; traced parameters stay JAX arrays. The bias of an LSTM includes the
    forget bias.

    The activation is not part of the parameters. Pass it to the module as
    `activation_fn` and to `load` as `activation`; both default to tanh.

    Args:
        cell: A bound `BasicRNNCell`, `BasicLSTMCell`, `LSTMCell` or
            `CudnnCompatibleGRUCell`, or a bound `MultiRNNCell` of these. For two
            directions, the pair `(cells_fw, cells_bw)`, each a list with one bound cell
            per layer.
        optimized: True for the parameters of an `nnx.OptimizedLSTMCell`, whose two
            kernels hold all gates; False for an `nnx.LSTMCell`. Other cells ignore
            this argument.
        bidirectional: Whether `cell` is such a pair.

    Returns:
        The parameters of the nnx cell; for an `nnx.RNN`, use `{"cell": params}`. For
        several layers, the parameters of an `nnx.Sequential` with one `nnx.RNN` per
        layer. For two directions, the parameters of an `nnx.Bidirectional` or, for
        several layers, of an `nnx.Sequential` of these.

    Raises:
        TypeError: If a cell is not bound, or no converter supports its class;
            if the `bias` of a `hidden_projection` is traced.
        ValueError: If a cell is a `GRUCell`, or has a feature that Flax does not
            support: peepholes, clips, coupled gates, a projection, or a
            `hidden_projection` with a `bias` other than zero; if the directions differ
            in the number of layers.
    """
    layers = _flax.LIBRARY.layers_of(cell, bidirectional)
    for name, layer in itertools.chain(*layers):
        _check_state_bias(name, layer)
    tables = (
        _flax.DENSE if optimized else _flax.DENSE | {Kind.LSTM: _flax.NNX[Kind.LSTM]}
    )
    modules = _flax.modules_of(layers, tables)
    return modules[0] if len(modules) == 1 else {"layers": dict(enumerate(modules))}


def _check_state_bias(name: str, layer: LayerWeights) -> None:
    """Raises an error for a bias that nnx's GRUCell lacks, unless the bias is zero."""
    bias = layer.blocks.get("sc")
    if bias is None:
        return
    place = f"{name}.params['candidate/hidden_projection/bias']"
    why = "`save` must check that this bias, which nnx's GRUCell lacks, is zero"
    check_concrete(place, bias, why=why)
    must = "hold zeros, because nnx's GRUCell lacks this bias"
    fix = "To keep this bias, use linen's GRUCell."
    expect(not bias.any(), place, must, Verbatim("other values"), fix)


_export(globals())
