"""Checks of bound cells, the arguments of `save`, and access to their parameters."""

from collections.abc import Sequence
from typing import Any

import jax

from .._base.errors import describe
from .._base.trees import named_leaves
from .._base.typing import Params
from .._cells.basic_lstm import BasicLSTMCell
from .._cells.basic_rnn import BasicRNNCell
from .._cells.bound import BoundCell
from .._cells.cudnn_compatible_gru import CudnnCompatibleGRUCell
from .._cells.gru import GRUCell
from .._cells.lstm import LSTMCell
from .._wrappers.device import DeviceWrapper
from .._wrappers.dropout import DropoutWrapper
from ._layer_weights import GRU, GRU_AFTER, LSTM, RNN
from ._weights import check_mapping, reader

KINDS = {
    BasicRNNCell: RNN,
    BasicLSTMCell: LSTM,
    LSTMCell: LSTM,
    GRUCell: GRU,
    CudnnCompatibleGRUCell: GRU_AFTER,
}


def paired(cells_fw: Any, cells_bw: Any) -> list[tuple[Any, Any]]:
    """The cells of each layer; a single bound cell is a list of one.

    Raises:
        TypeError: If one is not a sequence.
        ValueError: If one is empty, or their lengths differ.
    """
    both = []
    for name, cells in (("cells_fw", cells_fw), ("cells_bw", cells_bw)):
        cells = [cells] if isinstance(cells, BoundCell) else cells
        if not isinstance(cells, Sequence) or not cells:
            kind = ValueError if isinstance(cells, Sequence) else TypeError
            raise kind(
                f"`{name}` must be a list of at least one cell, one for each layer, "
                f"got {describe(cells)}."
            )
        both.append(cells)
    fw, bw = map(len, both)
    if fw != bw:
        raise ValueError(
            f"`cells_fw` and `cells_bw` must have the same depth, got {fw} and {bw} "
            "cells."
        )
    return list(zip(*both, strict=True))


def as_bound(name: str, cell: Any) -> BoundCell:
    """The bound cell without dropout and device wrappers; its parameters are arrays.

    Raises:
        TypeError: If it is not a bound cell, or its parameters are not arrays.
    """
    if not isinstance(cell, BoundCell):
        is_module = hasattr(cell, "get_cells") or hasattr(cell, "cells_of")
        fix = " A module has `get_cells()`, or `cells_of(variables)`."
        raise TypeError(
            f"`{name}` must be a cell with its parameters, `cell.bind(params)`, got "
            f"{describe(cell)}.{fix if is_module else ''}"
        )
    is_variable = lambda leaf: hasattr(leaf, "get_value")
    leaves = jax.tree.leaves(cell.params, is_leaf=is_variable)
    if any(map(is_variable, leaves)):
        raise TypeError(
            f"`{name}` must have arrays for parameters, got variables of nnx. "
            "`nnx.as_pure` makes a dict of arrays; a module has `get_cells()`."
        )
    check_mapping(f"{name}.params", cell.params)
    while isinstance(cell.cell, DropoutWrapper | DeviceWrapper):
        cell = cell.cell.cell.bind(cell.params)
    return cell


def stacked_cells(name: str, stack: BoundCell) -> list[tuple[str, BoundCell]]:
    """The cells of a bound `MultiRNNCell`, with their names for messages.

    Raises:
        ValueError: If there are parameters that belong to no cell.
    """
    # The parameters of a shared cell are stored under its first index.
    owners = [f"cell_{owner}" for owner in stack.cell.owners]
    unknown = [str(key) for key in stack.params if key not in owners]
    if unknown:
        raise ValueError(
            f"`{name}.params` must be of {', '.join(sorted(set(owners)))}, got "
            f"{unknown[0]}."
        )
    return [
        (f"{name}.cells[{i}]", each.bind(stack.params.get(owner, {})))
        for i, (each, owner) in enumerate(zip(stack.cell.cells, owners, strict=True))
    ]


def read_params(name: str, bound: BoundCell) -> Params:
    """The parameters of a single cell as NumPy arrays.

    Raises:
        TypeError: If the cell has no counterpart elsewhere, such as one of a custom
            class; if its parameters are not floating arrays of one dtype.
        ValueError: If a parameter is missing, not known, or of the wrong shape.
    """
    cell = bound.cell
    if type(cell) not in KINDS:
        raise TypeError(
            f"`{name}` must be a BasicRNNCell, BasicLSTMCell, LSTMCell, GRUCell, "
            f"CudnnCompatibleGRUCell or a MultiRNNCell of these, got {cell!r}. If it "
            "is a residual connection, convert the cell inside: "
            "`cell.cell.cell.bind(cell.params)`."
        )
    given, wanted = _named(bound.params), _named(cell.param_specs(1))
    if given.keys() != wanted.keys():
        raise ValueError(
            f"`{name}` must have {', '.join(sorted(wanted))}, got "
            f"{', '.join(sorted(given)) or 'nothing'}."
        )
    first = "params['kernel']"
    if first not in given:
        first = "params['gates']['kernel']"
    kernel = given[first]
    if not getattr(kernel, "shape", ()):  # Not an array: `read` refuses it.
        kernel = wanted[first]
    depth = input_depth(f"{name}.{first}", kernel, cell.output_size)
    specs, read = cell.param_specs(depth), reader(given, f"{name}.")
    arrays = [read(key, *spec.shape) for key, spec in _named(specs).items()]
    return jax.tree.unflatten(jax.tree.structure(specs), arrays)


def input_depth(name: str, kernel: Any, outputs: int) -> int:
    """The size of the inputs, from a kernel `[inputs + outputs, ...]`.

    Raises:
        ValueError: If it is below 1.
    """
    depth = kernel.shape[0] - outputs
    if depth < 1:
        raise ValueError(
            f"`{name}` must have a row for each input and each of {outputs} of the "
            f"state, got {describe(kernel)}."
        )
    return depth


def _named(params: Params) -> dict[str, Any]:
    is_list = lambda x: isinstance(x, list | tuple)  # One weight, of a wrong type.
    return dict(named_leaves("params", params, is_list))
