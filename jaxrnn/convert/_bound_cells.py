"""Conversion between bound cells and the weights of layers."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import jax

from .._base.arguments import check_equal, check_instance
from .._base.errors import InvalidType, InvalidValue, describe
from .._base.trees import named_leaves
from .._base.typing import Params
from .._cells.base import RNNCell
from .._cells.basic_rnn import BasicRNNCell
from .._cells.bound import BoundCell
from .._cells.gru import CudnnCompatibleGRUCell, GRUCell
from .._cells.lstm import BasicLSTMCell, LSTMCell
from .._wrappers.dropout import DropoutWrapper
from .._wrappers.multi_rnn import MultiRNNCell
from .._wrappers.stateless import DeviceWrapper
from ..contrib import CoupledInputForgetGateLSTMCell
from ._layer_weights import GATES, Kind, LayerWeights, Library, reordered
from ._weights import (
    Read,
    Weight,
    as_mapping,
    blocks,
    check_names,
    check_only,
    joined,
    listed,
    reader,
)

Cells: TypeAlias = Sequence[BoundCell]
BothCells: TypeAlias = tuple[tuple[BoundCell, ...], tuple[BoundCell, ...]]
Named: TypeAlias = tuple[str, LayerWeights]
"""The weights of a layer, with the layer's name for messages."""

KINDS = {
    BasicRNNCell: Kind.RNN,
    BasicLSTMCell: Kind.LSTM,
    LSTMCell: Kind.LSTM,
    GRUCell: Kind.GRU,
    CudnnCompatibleGRUCell: Kind.GRU_AFTER,
}
_CELLS = {kind: cell for cell, kind in KINDS.items()}
# The order of the gates of `CoupledInputForgetGateLSTMCell`. Its input gate is 1 minus
# its forget gate, and 1 - sigmoid(z) = sigmoid(-z). As a layer of four gates, it has a
# block i that is the negative of its block f.
_COUPLED = "jfo"
_PEEPHOLES = ("w_i_diag", "w_f_diag", "w_o_diag")


def cell_of_layers(layers: Sequence[LayerWeights]) -> BoundCell:
    """Builds a bound cell from stacked layers, listed from the inputs upwards.

    Raises:
        ValueError: If the sizes of two adjacent layers do not match.
    """
    _check_chain(layers)
    if len(layers) == 1:
        return _cell(layers[0]).bind(_params(layers[0]))
    params = {f"cell_{i}": _params(layer) for i, layer in enumerate(layers)}
    return MultiRNNCell(tuple(map(_cell, layers))).bind(params)


def cells_of_pairs(pairs: Iterable[tuple[LayerWeights, ...]]) -> BothCells:
    """Builds `(cells_fw, cells_bw)` from both directions of each layer."""
    cells = [tuple(cell_of_layers([layer]) for layer in pair) for pair in pairs]
    cells_fw, cells_bw = zip(*cells, strict=True)
    return cells_fw, cells_bw


def as_layers(name: str, layers: Sequence[Any]) -> Sequence[Any]:
    """The layers passed to `load`, as separate arguments or as a single list.

    Raises:
        ValueError: If there are no layers.
    """
    if len(layers) == 1 and isinstance(layers[0], list | tuple):
        # A list that contains arrays holds the weights of one layer.
        is_one = any(hasattr(each, "shape") for each in layers[0])
        layers = layers if is_one else layers[0]
    if not layers:
        raise InvalidValue(f"`{name}` must contain at least one layer, got none.")
    return layers


def _check_chain(layers: Sequence[LayerWeights]) -> None:
    for i, (below, above) in enumerate(itertools.pairwise(layers)):
        size = len(below.state_kernel)
        must = f"have {size} inputs, the output size of the layer below"
        check_equal(f"layer {i + 1}", len(above.input_kernel), size, must)


def _cell(layer: LayerWeights) -> RNNCell:
    if layer.is_coupled:
        return _coupled_cell(layer)
    fields: dict[str, Any] = {"activation": layer.activation}
    if layer.kind == Kind.LSTM:
        fields["forget_bias"] = layer.forget_bias
        fields["use_peepholes"] = layer.peepholes is not None
        if layer.projection is not None:
            fields["num_proj"] = layer.projection.shape[1]
    return _CELLS[layer.kind](layer.units, **fields)


def _params(layer: LayerWeights) -> Params:
    if layer.is_coupled:
        return _coupled_params(layer)
    kernel = joined([layer.input_kernel, layer.state_kernel])
    bias = layer.bias
    if layer.kind in (Kind.RNN, Kind.LSTM):
        params: Params = {"kernel": kernel, "bias": bias}
        if layer.peepholes is not None:
            params |= zip(_PEEPHOLES, layer.peepholes, strict=True)
        if layer.projection is not None:
            params["projection"] = {"kernel": layer.projection}
        return params
    at = 2 * layer.units
    candidate: Params = {"kernel": kernel[:, at:], "bias": bias[at:]}
    if layer.kind == Kind.GRU_AFTER:
        of_inputs = {"kernel": layer.input_kernel[:, at:], "bias": bias[at:]}
        of_state = {"kernel": layer.state_kernel[:, at:], "bias": layer.state_bias}
        candidate = {"input_projection": of_inputs, "hidden_projection": of_state}
    gates = {"kernel": kernel[:, :at], "bias": bias[:at]}
    return {"gates": gates, "candidate": candidate}


def layers_of_cell(library: Library, cell: object, name: str = "cell") -> list[Named]:
    """The layers of a bound cell, each with a name for messages.

    Raises:
        TypeError: If `cell` is not a bound cell, or has no equivalent in other
            libraries.
        ValueError: If the library does not support a layer, or the shape of a parameter
            does not match its cell.
    """
    layers = [(own, layer_of(own, each)) for own, each in single_cells(name, cell)]
    _check_chain([layer for _, layer in layers])
    for own, layer in layers:
        library.check(own, layer)
    return layers


def pairs_of_cells(
    library: Library, cells_fw: object, cells_bw: object
) -> list[tuple[Named, Named]]:
    """Both directions of each layer, with names for messages; see `layers_of_cell`.

    Raises:
        ValueError: If a cell has several layers, the directions differ in the number of
            layers, or the two cells of a layer differ in the size of their inputs.
    """
    pairs = []
    for i, (cell_fw, cell_bw) in enumerate(paired(cells_fw, cells_bw)):
        fw = _one_layer(library, f"cells_fw[{i}]", cell_fw)
        bw = _one_layer(library, f"cells_bw[{i}]", cell_bw)
        inputs = len(fw[1].input_kernel)
        must = f"have inputs of size {inputs}, like `cells_fw[{i}]`"
        check_equal(f"cells_bw[{i}]", len(bw[1].input_kernel), inputs, must)
        pairs.append((fw, bw))
    return pairs


def _one_layer(library: Library, name: str, cell: object) -> Named:
    layers = layers_of_cell(library, cell, name)
    fix = "Pass a separate cell for each layer."
    check_equal(name, len(layers), 1, "be one layer", fix)
    return layers[0]


def paired(cells_fw: object, cells_bw: object) -> list[tuple[Any, Any]]:
    """Pairs the cells of each layer; accepts a bound cell in place of a list of one.

    Raises:
        TypeError: If an argument is not a sequence.
        ValueError: If a sequence is empty, or the lengths differ.
    """
    fw = _as_list("cells_fw", cells_fw)
    bw = _as_list("cells_bw", cells_bw)
    must = f"have one cell for each of the {len(fw)} cells in `cells_fw`"
    check_equal("cells_bw", len(bw), len(fw), must)
    return list(zip(fw, bw, strict=True))


def _as_list(name: str, cells: Any) -> Sequence[Any]:
    if isinstance(cells, BoundCell):
        return [cells]
    what = "a list of cells, one for each layer"
    cells = check_instance(name, cells, Sequence, what)
    if not cells:
        raise InvalidValue(f"`{name}` must be {what}, got an empty list.")
    return cells


def as_bound(name: str, cell: Any) -> BoundCell:
    """Removes dropout wrappers and device wrappers from a bound cell.

    Raises:
        TypeError: If `cell` is not a bound cell, or its parameters are not a dict of
            arrays.
    """
    is_module = hasattr(cell, "get_cells") or hasattr(cell, "cells_of")
    fix = "Pass its `get_cells()` or `cells_of(variables)`." if is_module else ""
    what = "a cell with its parameters, `cell.bind(params)`"
    check_instance(name, cell, BoundCell, what, fix)
    leaves = jax.tree.leaves(cell.params, is_leaf=_is_variable)
    if any(map(_is_variable, leaves)):
        raise InvalidType(
            f"the parameters of `{name}` must be arrays, got variables of nnx. Call "
            "the module's `get_cells()`."
        )
    as_mapping(f"{name}.params", cell.params)
    while isinstance(cell.cell, DropoutWrapper | DeviceWrapper):
        cell = cell.cell.cell.bind(cell.params)
    return cell


def _is_variable(leaf: object) -> bool:
    return hasattr(leaf, "get_value")


def single_cells(name: str, cell: object) -> list[tuple[str, BoundCell]]:
    """A bound cell, or the cells of a bound stack, each with a name for messages."""
    bound = as_bound(name, cell)
    if not isinstance(bound.cell, MultiRNNCell):
        return [(name, bound)]
    stacked = stacked_cells(name, bound)
    return [(own, as_bound(own, each)) for own, each in stacked]


def stacked_cells(name: str, stack: BoundCell) -> list[tuple[str, BoundCell]]:
    """The cells of a bound `MultiRNNCell`, each with a name for messages.

    Raises:
        ValueError: If a parameter does not belong to any cell.
    """
    # The parameters of a shared cell are stored under its first index.
    owners = [f"cell_{owner}" for owner in stack.cell.owners]
    check_only(f"{name}.params", stack.params, dict.fromkeys(owners))
    return [
        (f"{name}.cells[{i}]", each.bind(stack.params.get(owner, {})))
        for i, (each, owner) in enumerate(zip(stack.cell.cells, owners, strict=True))
    ]


def read_params(name: str, bound: BoundCell) -> Params:
    """The parameters of a single cell as weights.

    Raises:
        TypeError: If the cell has no equivalent in other libraries (e.g. a custom
            class), or the parameters are not floating-point arrays of one dtype.
        ValueError: If a parameter is missing, unknown, or has the wrong shape.
    """
    cell = bound.cell
    if type(cell) not in KINDS:
        raise InvalidType(
            f"`{name}` must be a {listed(kind.__name__ for kind in KINDS)} or a "
            f"MultiRNNCell of these, got {cell!r}. For a wrapper, convert its inner "
            "cell: `cell.cell.cell.bind(cell.params)`."
        )
    given = _named(bound.params)
    wanted = _named(cell.param_specs(1))
    check_names(name, given, wanted)
    first = "params['kernel']"
    if first not in given:
        first = "params['gates']['kernel']"
    read = reader(given, f"{name}.")
    columns = wanted[first].shape[1]
    depth = input_depth(f"{name}.{first}", read(first, None, columns), cell.output_size)
    specs = cell.param_specs(depth)
    arrays = [read(key, *spec.shape) for key, spec in _named(specs).items()]
    return jax.tree.unflatten(jax.tree.structure(specs), arrays)


def input_depth(name: str, kernel: Weight, outputs: int) -> int:
    """Infers the size of the inputs from a kernel `[inputs + outputs, ...]`.

    Raises:
        ValueError: If the size is less than 1.
    """
    depth = kernel.shape[0] - outputs
    if depth < 1:
        raise InvalidValue(
            f"`{name}` must have at least one row for the inputs and {outputs} rows "
            f"for the state, got {describe(kernel)}."
        )
    return depth


def _named(params: Params) -> Params:
    return dict(named_leaves("params", params, _is_list))


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)  # An invalid leaf.


def layer_of(name: str, bound: BoundCell) -> LayerWeights:
    """The weights of a single cell; see `read_params` and `_layer_of_coupled`."""
    if isinstance(bound.cell, CoupledInputForgetGateLSTMCell):
        return _layer_of_coupled(name, bound)
    cell = bound.cell
    params = read_params(name, bound)
    peepholes = None
    if "w_i_diag" in params:
        peepholes = tuple(params[name] for name in _PEEPHOLES)
    clips = {clip: getattr(cell, clip, None) for clip in ("cell_clip", "proj_clip")}
    kernel, bias, state_bias = _joined(params)
    return LayerWeights(
        KINDS[type(cell)],
        input_kernel=kernel[: -cell.output_size],
        state_kernel=kernel[-cell.output_size :],
        bias=bias,
        state_bias=state_bias,
        peepholes=peepholes,
        projection=params.get("projection", {}).get("kernel"),
        forget_bias=getattr(cell, "forget_bias", 0.0),
        activation=cell.activation,
        clips={clip: value for clip, value in clips.items() if value is not None},
    )


def _joined(params: Params) -> tuple[Weight, Weight, Weight | None]:
    """Returns the kernel of all gates, the bias and the state bias."""
    if "gates" not in params:
        return params["kernel"], params["bias"], None
    gates = params["gates"]
    candidate = params["candidate"]
    kernel = candidate.get("kernel")
    state_bias = None
    if kernel is None:
        of_state = candidate["hidden_projection"]
        candidate = candidate["input_projection"]
        kernel = joined([candidate["kernel"], of_state["kernel"]])
        state_bias = of_state["bias"]
    kernel = joined([gates["kernel"], kernel], axis=1)
    bias = joined([gates["bias"], candidate["bias"]])
    return kernel, bias, state_bias


def _layer_of_coupled(name: str, bound: BoundCell) -> LayerWeights:
    """The weights of a bound `CoupledInputForgetGateLSTMCell`.

    The forget bias is part of the bias.

    Raises:
        TypeError: If the parameters are not floating-point arrays of one dtype.
        ValueError: If the cell has layer normalization, or a parameter is missing,
            unknown, or has the wrong shape.
    """
    cell = bound.cell
    if cell.layer_norm:
        raise InvalidValue(
            f"`{name}` must have no layer normalization, which this conversion does "
            "not support."
        )
    units = cell.num_units
    outputs = cell.output_size
    shards = cell.num_unit_shards
    # Only the names matter here, so any depth with a row for each shard serves.
    check_names(f"{name}.params", bound.params, cell.param_specs(1 + shards))
    read = reader(bound.params, f"{name}.params['", "']")
    kernel = _with_negative(_joined_shards(read, "W", shards, 3 * units))
    input_depth(f"{name}.params['W_0']", kernel, outputs)
    j, forget, o = blocks(read("B", 3 * units), 3)
    forget = (forget + cell.forget_bias).astype(forget.dtype)
    bias = _with_negative(joined([j, forget, o]))
    peepholes = None
    projection = None
    if cell.use_peepholes:
        forget, output = (read(each, units) for each in cell.peepholes)
        peepholes = (-forget, forget, output)
    if cell.num_proj is not None:
        projection = _joined_shards(read, "W_P", cell.num_proj_shards, outputs)
    return LayerWeights(
        Kind.LSTM,
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
    return reordered(both, _COUPLED + "i", GATES[Kind.LSTM])


def _coupled_cell(layer: LayerWeights) -> CoupledInputForgetGateLSTMCell:
    """The cell of a layer with coupled gates."""
    return CoupledInputForgetGateLSTMCell(
        layer.units,
        use_peepholes=layer.peepholes is not None,
        forget_bias=0.0,
        activation=layer.activation,
    )


def _coupled_params(layer: LayerWeights) -> Params:
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
