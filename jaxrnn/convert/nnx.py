"""Weights of Flax nnx's `LSTMCell`, `OptimizedLSTMCell`, `GRUCell` and `SimpleCell`.

    state = nnx.state(nnx.RNN(nnx.GRUCell(3, 5, rngs=rngs)), nnx.Param)
    cell = jaxrnn.convert.nnx.load(nnx.to_pure_dict(state))
    outputs, state = jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)

The state of an LSTM is (c, h) in both libraries. The parameters do not include the
activation. If a module has its own `activation_fn`, pass it to `load` as `activation`,
which is required for a `SimpleCell`. The gates of the loaded cells are sigmoids, so a
module with another `gate_fn` cannot be converted. A `SimpleCell` with `residual=True`
has no counterpart either. `load` cannot detect these two options, because the
parameters do not include them.
"""

import itertools

from .._base.errors import Verbatim, expect
from .._base.inputs import check_concrete
from .._base.typing import Params
from ._flax import DENSE, LIBRARY, NNX_LSTM, load as load, modules_of
from ._kinds import Kind
from ._layer_weights import Cells

__all__ = ["load", "save"]


def save(
    cell: Cells, optimized: bool = False, *, bidirectional: bool = False
) -> Params:
    """Returns the parameters of a cell in nested dicts.

    `nnx.update(module, save(cell))` assigns the parameters to a module. The arrays are
    NumPy arrays; traced parameters stay JAX arrays. The bias of an LSTM includes the
    forget bias.

    The activation is not part of the parameters. Pass it to the module as
    `activation_fn` and to `load` as `activation`.

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
    layers = LIBRARY.layers_of(cell, bidirectional)
    for name, layer in itertools.chain(*layers):
        if (bias := layer.blocks.get("sc")) is None:
            continue
        place = f"{name}.params['candidate/hidden_projection/bias']"
        why = "`save` must check that this bias, which nnx's GRUCell lacks, is zero"
        check_concrete(place, bias, why=why)
        must = "hold zeros, because nnx's GRUCell lacks this bias"
        fix = "To keep this bias, use linen's GRUCell."
        expect(not bias.any(), place, must, Verbatim("other values"), fix)
    tables = DENSE if optimized else DENSE | {Kind.LSTM: NNX_LSTM}
    modules = modules_of(layers, tables)
    return modules[0] if len(modules) == 1 else {"layers": dict(enumerate(modules))}
