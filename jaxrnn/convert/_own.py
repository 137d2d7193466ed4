"""Bound cells of jaxrnn, the arguments of `save`."""

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
from ._weights import check_mapping, reader

_CELLS = (BasicRNNCell, BasicLSTMCell, LSTMCell, GRUCell, CudnnCompatibleGRUCell)


def as_bound(where: str, name: str, cell: Any) -> BoundCell:
    """A bound cell with arrays as parameters, without dropout and device wrappers.

    Raises:
        TypeError: If it is not a bound cell, or its parameters are not arrays.
    """
    if not isinstance(cell, BoundCell):
        is_module = hasattr(cell, "get_cells") or hasattr(cell, "cells_of")
        fix = " A module has `get_cells()`, or `cells_of(variables)`."
        raise TypeError(
            f"{where}: `{name}` must be a cell with its parameters, "
            f"`cell.bind(params)`, got {describe(cell)}.{fix if is_module else ''}"
        )
    is_variable = lambda leaf: hasattr(leaf, "get_value")
    leaves = jax.tree.leaves(cell.params, is_leaf=is_variable)
    if any(map(is_variable, leaves)):
        raise TypeError(
            f"{where}: `{name}` must have arrays for parameters, got variables of nnx. "
            "`nnx.as_pure` makes a dict of arrays; a module has `get_cells()`."
        )
    check_mapping(where, f"{name}.params", cell.params)
    while isinstance(cell.cell, DropoutWrapper | DeviceWrapper):
        cell = cell.cell.cell.bind(cell.params)
    return cell


def stacked_cells(
    where: str, name: str, stack: BoundCell
) -> list[tuple[str, BoundCell]]:
    """The cells of a bound `MultiRNNCell`, with their names in messages.

    Raises:
        ValueError: If there are parameters of no cell.
    """
    # A shared cell has its parameters under the place of its first use.
    owners = [f"cell_{owner}" for owner in stack.cell.owners]
    unknown = [str(key) for key in stack.params if key not in owners]
    if unknown:
        raise ValueError(
            f"{where}: `{name}.params` must be of {', '.join(sorted(set(owners)))}, "
            f"got {unknown[0]}."
        )
    places = enumerate(zip(stack.cell.cells, owners, strict=True))
    return [
        (f"{name}.cells[{i}]", each.bind(stack.params.get(owner, {})))
        for i, (each, owner) in places
    ]


def read_params(where: str, name: str, bound: BoundCell) -> Params:
    """The parameters of a single cell as NumPy arrays.

    Raises:
        TypeError: If the cell has no counterpart elsewhere, such as one of a custom
            class; if its parameters are not floating arrays of one dtype.
        ValueError: If a parameter is missing, not known, or of the wrong shape.
    """
    cell = bound.cell
    if type(cell) not in _CELLS:
        raise TypeError(
            f"{where}: `{name}` must be a BasicRNNCell, BasicLSTMCell, LSTMCell, "
            "GRUCell, CudnnCompatibleGRUCell or a MultiRNNCell of these, got "
            f"{cell!r}. Of a residual connection convert the cell within: "
            "`cell.cell.cell.bind(cell.params)`."
        )
    given, wanted = _named(bound.params), _named(cell.param_specs(1))
    if given.keys() != wanted.keys():
        raise ValueError(
            f"{where}: `{name}` must have {', '.join(sorted(wanted))}, got "
            f"{', '.join(sorted(given)) or 'nothing'}."
        )
    first = (
        "params['gates']['kernel']" if "gates" in bound.params else "params['kernel']"
    )
    kernel = given[first]
    if not getattr(kernel, "shape", ()):  # Not an array: `read` refuses it.
        kernel = wanted[first]
    depth = input_depth(where, f"{name}.{first}", kernel, cell.output_size)
    specs, read = cell.param_specs(depth), reader(where)
    arrays = [
        read(f"{name}.{key}", given[key], spec.shape)
        for key, spec in _named(specs).items()
    ]
    return jax.tree.unflatten(jax.tree.structure(specs), arrays)


def input_depth(where: str, name: str, kernel: Any, outputs: int) -> int:
    """The size of the inputs of a kernel `[inputs + outputs, ...]`.

    Raises:
        ValueError: If there are none.
    """
    depth = kernel.shape[0] - outputs
    if depth < 1:
        raise ValueError(
            f"{where}: `{name}` must have a row for each input and each of {outputs} "
            f"of the state, got {describe(kernel)}."
        )
    return depth


def _named(params: Params) -> dict[str, Any]:
    is_list = lambda x: isinstance(x, list | tuple)  # One weight, of a wrong type.
    return dict(named_leaves("params", params, is_list))
