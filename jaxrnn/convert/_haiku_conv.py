"""Weights of Haiku's `Conv1DLSTM`, `Conv2DLSTM` and `Conv3DLSTM`.

These cores add the results of two convolutions, of the inputs and of the hidden state.
The cells of contrib convolve the concatenation of both with one kernel and add one
bias. Gates, padding, strides and the forget bias of 1 are equal.
"""

from collections.abc import Sequence

import numpy as np

from .. import contrib
from .._base.arguments import check_instance
from .._base.errors import InvalidValue, describe
from .._cells.bound import BoundCell
from .._wrappers.multi_rnn import MultiRNNCell
from ._bound_cells import single_cells
from ._layer_weights import with_forget_bias
from ._weights import (
    Weight,
    Weights,
    as_mapping,
    check_names,
    flattened,
    joined,
    pick,
    reader,
)

CELLS = (contrib.Conv1DLSTMCell, contrib.Conv2DLSTMCell, contrib.Conv3DLSTMCell)
# The constant that Haiku adds to the forget gate at run time.
FORGET_BIAS = 1.0
PARTS = ("/input_to_hidden", "/hidden_to_hidden")


def has_grid(params: Weights, name: str) -> bool:
    """Whether the core `name` is a convolutional LSTM."""
    return any(f"{name}{part}" in params for part in PARTS)


def load_convs(
    params: Weights, names: Sequence[str], grid: Sequence[int] | None
) -> BoundCell:
    """Loads stacked cores over a grid as a bound cell.

    Raises:
        TypeError: If a weight is not a floating-point array.
        ValueError: If `grid` is None or does not have 1, 2 or 3 axes, or a weight is
            missing, unknown, or has the wrong shape.
    """
    if not isinstance(grid, Sequence) or len(grid) not in (1, 2, 3):
        raise InvalidValue(
            "`input_shape` must be given for convolutional LSTMs: the sizes of the "
            f"grid's 1, 2 or 3 axes, without channels, got {grid!r}."
        )
    layers: list[BoundCell] = []
    for name in names:
        depth = layers[-1].cell.output_channels if layers else None
        layers.append(_layer(params, name, grid, depth))
    if len(layers) == 1:
        return layers[0]
    stacked = {f"cell_{i}": layer.params for i, layer in enumerate(layers)}
    return MultiRNNCell(tuple(layer.cell for layer in layers)).bind(stacked)


def _layer(
    params: Weights, name: str, grid: Sequence[int], depth: int | None
) -> BoundCell:
    first, second = (f"{name}{part}" for part in PARTS)
    own = {each: pick(params, each) for each in (first, second)}
    for each, weights in own.items():
        check_names(each, as_mapping(each, weights), ["w", "b"])
    read = reader(flattened(own))
    window = [None] * len(grid)
    of_inputs = read(f"{first}/w", *window, depth, None)
    *window, depth, columns = of_inputs.shape
    channels, rest = divmod(columns, 4)
    if rest:
        raise InvalidValue(
            f"`{first}/w` must have 4 blocks of channels, got {describe(of_inputs)}."
        )
    of_state = read(f"{second}/w", *window, channels, columns)
    bias = read(f"{first}/b", columns) + read(f"{second}/b", columns)
    kernel = joined([of_inputs, of_state], axis=-2)
    cell = CELLS[len(grid) - 1](
        input_shape=[*grid, depth], output_channels=channels, kernel_shape=window
    )
    return cell.bind({"kernel": kernel, "biases": bias})


def cells_with_grid(cell: object) -> list[tuple[str, BoundCell]]:
    """The layers of a bound cell with names for messages; empty without a grid."""
    layers = single_cells("cell", cell)
    has_any = any(_is_conv(each.cell) for _, each in layers)
    return layers if has_any else []


def _is_conv(cell: object) -> bool:
    return type(cell) in (contrib.ConvLSTMCell, *CELLS)


def default_name(name: str, bound: BoundCell) -> str:
    """The name that Haiku gives to the core by default.

    Raises:
        TypeError: If the cell is not a convolutional LSTM.
    """
    what = "a convolutional LSTM like the other layers"
    check_instance(name, bound.cell, (contrib.ConvLSTMCell, *CELLS), what)
    return f"conv{bound.cell.conv_ndims}_dlstm"


def arrays_of_conv(name: str, bound: BoundCell) -> dict[str, dict[str, Weight]]:
    """The weights of each module of a core, by the end of the module's name.

    Raises:
        TypeError: If a parameter is not a floating-point array.
        ValueError: If the cell has a skip connection, or a parameter is missing,
            unknown, or has the wrong shape.
    """
    cell = bound.cell
    depth = cell.input_shape[-1]
    if cell.skip_connection:
        raise InvalidValue(
            f"`{name}` must have no `skip_connection`, which Haiku does not support."
        )
    specs = cell.param_specs(depth)
    check_names(f"{name}.params", bound.params, specs)
    read = reader(bound.params, f"{name}.params['", "']")
    kernel = read("kernel", *specs["kernel"].shape)
    no_bias = np.zeros(kernel.shape[-1], kernel.dtype)
    bias = read("biases", *no_bias.shape) if cell.use_bias else no_bias
    bias = with_forget_bias(bias, cell.forget_bias - FORGET_BIAS)
    of_inputs = {"w": kernel[..., :depth, :], "b": bias}
    of_state = {"w": kernel[..., depth:, :], "b": no_bias}
    return dict(zip(PARTS, (of_inputs, of_state), strict=True))
