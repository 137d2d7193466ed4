"""Conversion between bound cells and the weights of layers."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax

from .._base.arguments import as_bool, check_both_lists, check_instance, is_list_of
from .._base.errors import Verbatim, counted
from .._base.expect import expect
from .._base.trees import named_leaves
from .._base.typing import Params
from .._cells.bound import BoundCell
from .._cells.lstm import BasicLSTMCell
from .._wrappers.dropout import DropoutWrapper
from .._wrappers.multi_rnn import MultiRNNCell
from .._wrappers.stateless import DeviceWrapper
from ..contrib import CoupledInputForgetGateLSTMCell
from ._layer_weights import CELLS, Kind, LayerWeights, Library
from ._weights import (
    Weight,
    as_mapping,
    blocks,
    check_names,
    check_only,
    joined,
    listed,
    reader,
)

Side: TypeAlias = BoundCell | Sequence[BoundCell]
Cells: TypeAlias = BoundCell | tuple[Side, Side]
"""What `save` takes: a bound cell, or the cells of each layer of both directions."""
Layer: TypeAlias = Sequence[LayerWeights]
"""The weights of a layer: one `LayerWeights` per direction."""
Named: TypeAlias = tuple[str, LayerWeights]
"""The weights of one direction of a layer, with a name for messages."""

KINDS = {cell: kind for kind, cell in CELLS.items()} | {BasicLSTMCell: Kind.LSTM}
_PEEPHOLES = ("w_i_diag", "w_f_diag", "w_o_diag")


def as_layers(name: str, layers: Sequence[Any]) -> Sequence[Any]:
    """The layers passed to `load`, as separate arguments or as a single list.

    Raises:
        ValueError: If there are no layers.
    """
    if len(layers) == 1 and isinstance(layers[0], list | tuple):
        # A list that contains arrays holds the weights of one layer.
        is_one = any(hasattr(each, "shape") for each in layers[0])
        layers = layers if is_one else layers[0]
    expect(layers, name, "contain at least one layer", Verbatim("none"))
    return layers


def bind_layers(layers: Sequence[Layer], joins_directions: bool = True) -> Any:
    """Creates bound cells from layers, which are listed from the inputs upwards.

    Args:
        layers: The weights of each layer.
        joins_directions: Whether each layer must read the outputs of both directions of
            the layer below.

    Returns:
        A bound cell; for two directions, `(cells_fw, cells_bw)` with one bound cell per
        layer.

    Raises:
        ValueError: If the sizes of two adjacent layers do not match.
    """
    _check_inputs(layers, joins_directions)
    cells = [tuple(_bound_cell(direction) for direction in layer) for layer in layers]
    if len(layers[0]) == 1:
        return stacked([cell for (cell,) in cells])
    cells_fw, cells_bw = zip(*cells, strict=True)
    return cells_fw, cells_bw


def stacked(cells: Sequence[BoundCell]) -> BoundCell:
    """A bound cell for one layer, or a bound `MultiRNNCell` for several layers."""
    if len(cells) == 1:
        return cells[0]
    params = {f"cell_{i}": each.params for i, each in enumerate(cells)}
    return MultiRNNCell(tuple(each.cell for each in cells)).bind(params)


def _check_inputs(layers: Sequence[Layer], joins_directions: bool) -> None:
    size = 0
    for i, layer in enumerate(layers):
        size = size or len(layer[0].input_kernel)
        must = f"have input size {size}"
        if i and joins_directions:
            must += ", the output size of the layer below"
        elif len(layer) > 1:
            must += " in both directions"
        for direction in layer:
            got = len(direction.input_kernel)
            if got != size:
                raise ValueError(f"layer {i}, counted from 0, must {must}, got {got}.")
        size = sum(len(each.state_kernel) for each in layer) * joins_directions


def _bound_cell(layer: LayerWeights) -> BoundCell:
    params = _params(layer)
    fields: dict[str, Any] = {"activation": layer.activation}
    if layer.kind == Kind.LSTM:
        fields["forget_bias"] = layer.forget_bias
        fields["use_peepholes"] = layer.peepholes is not None
    if layer.projection is not None:
        fields["num_proj"] = layer.projection.shape[1]
    make: Any = CELLS[layer.kind]
    if layer.is_coupled:
        make = CoupledInputForgetGateLSTMCell
        params = _as_coupled(params)
    return make(layer.units, **fields).bind(params)


def _params(layer: LayerWeights) -> Params:
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
    gates = {"kernel": kernel[:, :at], "bias": bias[:at]}
    candidate: Params = {"kernel": kernel[:, at:], "bias": bias[at:]}
    if layer.kind == Kind.GRU_AFTER:
        of_inputs = {"kernel": layer.input_kernel[:, at:], "bias": bias[at:]}
        of_state = {"kernel": layer.state_kernel[:, at:], "bias": layer.state_bias}
        candidate = {"input_projection": of_inputs, "hidden_projection": of_state}
    return {"gates": gates, "candidate": candidate}


def layers_of(
    library: Library, cell: Cells, bidirectional: object
) -> list[list[Named]]:
    """The layers of a bound cell or, if `bidirectional`, of `(cells_fw, cells_bw)`.

    Returns:
        For each layer, a list with one pair `(name, weights)` per direction.

    Raises:
        TypeError: If a cell is not bound, or has no equivalent in other libraries.
        ValueError: If the library does not support a layer; if a size does not match
            the layer below, or differs between the directions; if a parameter does not
            have the shape that its cell requires.
    """
    if as_bool("bidirectional", bidirectional):
        cells = as_pairs(cell)
    else:
        cells = [[each] for each in single_cells("cell", cell)]
    layers = [[_read_layer(library, *each) for each in layer] for layer in cells]
    weights = [[direction for _, direction in layer] for layer in layers]
    _check_inputs(weights, joins_directions=not bidirectional)
    return layers


def _read_layer(library: Library, name: str, cell: object) -> Named:
    found = single_cells(name, cell)
    fix = "Pass a separate cell for each layer."
    got = Verbatim(counted(len(found), "layer"))
    expect(len(found) == 1, name, "be one layer", got, fix)
    ((own, bound),) = found
    layer = layer_of(own, bound)
    library.check(own, layer)
    return own, layer


def as_pairs(cells: Any) -> list[list[tuple[str, Any]]]:
    """The cells of each layer of `(cells_fw, cells_bw)`, with names for messages.

    A cell may replace a list of one cell.

    Raises:
        ValueError: If `cells` is not a pair of lists, or the lists are empty or differ
            in length.
    """
    what = "a pair (cells_fw, cells_bw) for two directions"
    is_list = isinstance(cells, list | tuple)
    fix = "" if is_list else "For one direction, omit `bidirectional`."
    expect(is_list_of(cells, 2), "cell", f"be {what}", cells, fix)
    fw, bw = (side if isinstance(side, list | tuple) else [side] for side in cells)
    check_both_lists(fw, bw)
    pairs = enumerate(zip(fw, bw, strict=True))
    return [[(f"cells_fw[{i}]", f), (f"cells_bw[{i}]", b)] for i, (f, b) in pairs]


def as_bound(name: str, cell: Any) -> BoundCell:
    """Removes dropout wrappers and device wrappers from a bound cell.

    Raises:
        TypeError: If `cell` is not a bound cell, or its parameters are not a dict of
            arrays.
    """
    fix = ""
    if hasattr(cell, "get_cells") or hasattr(cell, "cells_of"):
        fix = "For a module, pass `get_cells()` or `cells_of(variables)`."
    elif isinstance(cell, list | tuple):
        fix = (
            "For several layers, pass a bound `MultiRNNCell`; for two directions, pass "
            "`bidirectional=True`, which `equinox` and `haiku` do not support."
        )
    what = "a bound cell, such as `cell.bind(params)`"
    cell = check_instance(name, cell, BoundCell, what, fix)
    leaves = jax.tree.leaves(cell.params, is_leaf=_is_variable)
    got = Verbatim("variables of nnx")
    fix = "Pass the cell that the module's `get_cells()` returns."
    expect(
        not any(map(_is_variable, leaves)),
        f"{name}.params",
        "hold arrays",
        got,
        fix,
        error=TypeError,
    )
    as_mapping(f"{name}.params", cell.params)
    while isinstance(cell.cell, DropoutWrapper | DeviceWrapper):
        cell = cell.cell.cell.bind(cell.params)
    return cell


def _is_variable(leaf: object) -> bool:
    return hasattr(leaf, "get_value")


def single_cells(name: str, cell: object) -> list[tuple[str, BoundCell]]:
    """A bound cell, or the cells of a bound stack, each with a name for messages.

    Raises:
        TypeError: If `cell` is not a bound cell.
        ValueError: If a parameter of a stack does not belong to any of its cells.
    """
    stack: Any = as_bound(name, cell)
    if not isinstance(stack.cell, MultiRNNCell):
        return [(name, stack)]
    # The parameters of a cell that occurs several times are stored under the index of
    # its first occurrence.
    owners = [f"cell_{owner}" for owner in stack.cell.owners]
    check_only(f"{name}.params", stack.params, dict.fromkeys(owners))
    cells = []
    for i, (each, owner) in enumerate(zip(stack.cell.cells, owners, strict=True)):
        bound = each.bind(stack.params.get(owner, {}))
        cells += single_cells(f"{name}.cells[{i}]", bound)
    return cells


def layer_of(name: str, bound: BoundCell) -> LayerWeights:
    """The weights of a single cell.

    Raises:
        TypeError: If the cell has no equivalent in other libraries (e.g. a custom
            class), or the parameters are not floating-point arrays of one dtype.
        ValueError: If the cell has layer normalization; if a parameter is missing,
            unknown, or has the wrong shape.
    """
    cell = bound.cell
    params = read_params(name, bound)
    is_coupled = isinstance(cell, CoupledInputForgetGateLSTMCell)
    if is_coupled:
        params = _as_lstm(cell, params)
    kernel, bias, state_bias = _joined(params)
    clips = {clip: getattr(cell, clip, None) for clip in ("cell_clip", "proj_clip")}
    return LayerWeights(
        Kind.LSTM if is_coupled else KINDS[type(cell)],
        input_kernel=kernel[: -cell.output_size],
        state_kernel=kernel[-cell.output_size :],
        bias=bias,
        state_bias=state_bias,
        peepholes=tuple(params[key] for key in _PEEPHOLES if key in params) or None,
        projection=params.get("projection", {}).get("kernel"),
        forget_bias=0.0 if is_coupled else getattr(cell, "forget_bias", 0.0),
        activation=cell.activation,
        clips={clip: value for clip, value in clips.items() if value is not None},
        is_coupled=is_coupled,
    )


def _joined(params: Params) -> tuple[Weight, Weight, Weight | None]:
    """Returns the kernel of all gates, the bias and the state bias."""
    if "gates" not in params:
        return params["kernel"], params["bias"], None
    gates = params["gates"]
    candidate = params["candidate"]
    state_bias = None
    if "kernel" not in candidate:
        of_state = candidate["hidden_projection"]
        of_inputs = candidate["input_projection"]
        kernel = joined([of_inputs["kernel"], of_state["kernel"]])
        candidate = {"kernel": kernel, "bias": of_inputs["bias"]}
        state_bias = of_state["bias"]
    kernel = joined([gates["kernel"], candidate["kernel"]], axis=1)
    bias = joined([gates["bias"], candidate["bias"]])
    return kernel, bias, state_bias


def _as_lstm(cell: CoupledInputForgetGateLSTMCell, params: Params) -> Params:
    """Converts the parameters of a coupled cell to parameters of an `LSTMCell`.

    The input gate is 1 minus the forget gate, and 1 - sigmoid(z) = sigmoid(-z), so the
    block of the input gate is the negative of the block of the forget gate. The forget
    bias becomes part of the bias.
    """
    shards = [params[f"W_{i}"] for i in range(cell.num_unit_shards)]
    j, forget, o = blocks(joined(shards), 3)
    lstm: Params = {"kernel": joined([-forget, j, forget, o], axis=-1)}
    j, forget, o = blocks(params["B"], 3)
    forget = (forget + cell.forget_bias).astype(forget.dtype)
    lstm["bias"] = joined([-forget, j, forget, o])
    if cell.use_peepholes:
        forget, o = (params[key] for key in cell.peepholes)
        lstm |= zip(_PEEPHOLES, (-forget, forget, o), strict=True)
    if cell.num_proj is not None:
        shards = [params[f"W_P_{i}"] for i in range(cell.num_proj_shards)]
        lstm["projection"] = {"kernel": joined(shards)}
    return lstm


def _as_coupled(params: Params) -> Params:
    """The inverse of `_as_lstm` for one shard and a forget bias of 0."""
    coupled: Params = {}
    for name, key in (("W_0", "kernel"), ("B", "bias")):
        i, j, _, o = blocks(params[key], 4)
        coupled[name] = joined([j, -i, o], axis=-1)
    if "w_i_diag" in params:
        coupled["W_F_diag"] = -params["w_i_diag"]
        coupled["W_O_diag"] = params["w_o_diag"]
    return coupled


def read_params(name: str, bound: BoundCell) -> Params:
    """The parameters of a single cell as weights; see `layer_of`."""
    cell = bound.cell
    first = ["params['kernel']"]
    if isinstance(cell, CoupledInputForgetGateLSTMCell):
        first = [f"params['W_{i}']" for i in range(cell.num_unit_shards)]
        must = "be False, because this conversion does not support normalization"
        expect(not cell.layer_norm, f"{name}.layer_norm", must, True)
    else:
        names = listed(kind.__name__ for kind in KINDS)
        must = f"be one of {names}, or a stack of these"
        fix = ""
        if hasattr(cell, "cell"):
            fix = (
                "To convert the wrapped cell, pass `cell.cell.cell.bind(cell.params)`."
            )
        expect(type(cell) in KINDS, name, must, cell, fix, error=TypeError)
        if KINDS[type(cell)] in (Kind.GRU, Kind.GRU_AFTER):
            first = ["params['gates']['kernel']"]
    given = _named(bound.params)
    # The depth of the inputs is not known yet, but the names of the parameters do not
    # depend on the depth. The depth `len(first)`, the number of shards of the kernel,
    # is large enough that no shard is empty.
    wanted = _named(cell.param_specs(len(first)))
    check_names(name, given, wanted)
    read = reader(given, f"{name}.")
    rows = sum(len(read(key, None, wanted[key].shape[1])) for key in first)
    specs = cell.param_specs(input_depth(f"{name}.{first[0]}", rows, cell.output_size))
    arrays = [read(key, *spec.shape) for key, spec in _named(specs).items()]
    return jax.tree.unflatten(jax.tree.structure(specs), arrays)


def input_depth(name: str, rows: int, outputs: int) -> int:
    """The size of the inputs of a cell whose kernel has `rows` rows.

    Raises:
        ValueError: If the size is less than 1.
    """
    must = f"have more rows than the cell has outputs ({outputs})"
    expect(rows > outputs, name, must, rows)
    return rows - outputs


def _named(params: Params) -> Params:
    return dict(named_leaves("params", params, _is_list))


def _is_list(value: object) -> bool:
    # A list stays one leaf, which `reader` rejects.
    return isinstance(value, list | tuple)
