"""LSTMs whose input gate is 1 minus the forget gate, as layers of four gates.

Since 1 - sigmoid(z) = sigmoid(-z), the block i of such a layer is the negative of the
block f. Libraries without coupled gates therefore compute the same results from it.
"""

from typing import Any

from .._base.errors import InvalidValue, describe
from .._base.typing import Params
from .._cells.bound import BoundCell
from ..contrib import CoupledInputForgetGateLSTMCell
from ._layer_weights import GATES, LSTM, LayerWeights, reordered
from ._weights import Read, Weight, blocks, check_names, joined, reader

_BLOCKS = "jfo"  # The order of `CoupledInputForgetGateLSTMCell`.
_NEGATIVE = "i"  # The letter of the negative of the block f.


def is_coupled(cell: Any) -> bool:
    """Whether the cell is a `CoupledInputForgetGateLSTMCell`."""
    return isinstance(cell, CoupledInputForgetGateLSTMCell)


def layer_of_coupled(name: str, bound: BoundCell) -> LayerWeights:
    """The weights of a bound `CoupledInputForgetGateLSTMCell`.

    The forget bias is part of the bias.

    Raises:
        TypeError: If the parameters are not floating-point arrays of one dtype.
        ValueError: If the cell has layer normalization, or a parameter is missing,
            unknown, or has the wrong shape.
    """
    cell, params = bound.cell, bound.params
    if cell.layer_norm:
        raise InvalidValue(
            f"`{name}` must have no layer normalization, which this conversion "
            "does not support, got `layer_norm=True`."
        )
    units = cell.num_units
    outputs = cell.output_size
    shards = cell.num_unit_shards
    # Only the names matter here, so any depth with a row for each shard serves.
    check_names(f"{name}.params", params, cell.param_specs(1 + shards))
    read = reader(params, f"{name}.params['", "']")
    kernel = _joined_shards(read, "W", shards, 3 * units)
    if len(kernel) <= outputs:
        raise InvalidValue(
            f"`{name}.params` must have at least one row for the inputs and {outputs} "
            f"rows for the state in `W_0`, got {describe(kernel)}."
        )
    j, forget, o = blocks(read("B", 3 * units), 3)
    forget = (forget + cell.forget_bias).astype(forget.dtype)
    bias = joined([j, forget, o])
    kernel, bias = _with_negative(kernel), _with_negative(bias)
    peepholes = projection = None
    if cell.use_peepholes:
        forget, output = (read(each, units) for each in cell.peepholes)
        peepholes = -forget, forget, output
    if cell.num_proj is not None:
        projection = _joined_shards(read, "W_P", cell.num_proj_shards, outputs)
    return LayerWeights(
        LSTM,
        kernel[:-outputs],
        kernel[-outputs:],
        bias,
        peepholes=peepholes,
        projection=projection,
        activation=cell.activation,
        clips={} if cell.proj_clip is None else {"proj_clip": cell.proj_clip},
        is_coupled=True,
    )


def _joined_shards(read: Read, name: str, count: int, columns: int) -> Weight:
    """Joins the rows of a kernel that the cell stores in shards."""
    return joined([read(f"{name}_{i}", None, columns) for i in range(count)])


def _with_negative(array: Weight) -> Weight:
    """Adds the block i, the negative of the block f, in the order of an LSTM."""
    _, forget, _ = blocks(array, 3)
    both = joined([array, -forget], axis=-1)
    return reordered(both, _BLOCKS + _NEGATIVE, GATES[LSTM])


def coupled_cell(layer: LayerWeights) -> CoupledInputForgetGateLSTMCell:
    """The cell of a layer with coupled gates."""
    return CoupledInputForgetGateLSTMCell(
        layer.units,
        use_peepholes=layer.peepholes is not None,
        forget_bias=0.0,
        activation=layer.activation,
    )


def coupled_params(layer: LayerWeights) -> Params:
    """The parameters of the cell, from the block i of the layer."""
    kernel = joined([layer.input_kernel, layer.state_kernel])
    params: Params = {"W_0": _without_negative(kernel)}
    params["B"] = _without_negative(layer.bias)
    if layer.peepholes is not None:
        of_input, _, of_output = layer.peepholes
        params |= {"W_F_diag": -of_input, "W_O_diag": of_output}
    return params


def _without_negative(array: Weight) -> Weight:
    """The blocks of the cell; its block f is the negative of the block i."""
    i, j, _, o = blocks(array, 4)
    return joined([j, -i, o], axis=-1)
