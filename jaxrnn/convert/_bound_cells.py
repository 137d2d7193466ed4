"""Conversion between bound cells and the weights of layers."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import jax

from .._base.arguments import check_instance
from .._base.errors import InvalidType, InvalidValue, describe
from .._base.trees import named_leaves
from .._base.typing import Params
from .._cells.basic_rnn import BasicRNNCell
from .._cells.bound import BoundCell
from .._cells.gru import CudnnCompatibleGRUCell, GRUCell
from .._cells.lstm import BasicLSTMCell, LSTMCell
from .._wrappers.dropout import DropoutWrapper
from .._wrappers.multi_rnn import MultiRNNCell
from .._wrappers.stateless import DeviceWrapper
from ._coupled import coupled_cell, coupled_params, is_coupled, layer_of_coupled
from ._layer_weights import GRU, GRU_AFTER, LSTM, RNN, LayerWeights, Library
from ._weights import as_mapping, joined, listed, reader

Cells = Sequence[BoundCell]
BothCells = tuple[tuple[BoundCell, ...], tuple[BoundCell, ...]]

KINDS = {
    BasicRNNCell: RNN,
    BasicLSTMCell: LSTM,
    LSTMCell: LSTM,
    GRUCell: GRU,
    CudnnCompatibleGRUCell: GRU_AFTER,
}
_CELLS = {kind: cell for cell, kind in KINDS.items()}
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
        depth, outputs = len(above.input_kernel), len(below.state_kernel)
        if depth != outputs:
            raise InvalidValue(
                f"layer {i + 1} must have {outputs} inputs (the output size of layer "
                f"{i}), got a kernel for {depth} inputs."
            )


def _cell(layer: LayerWeights) -> Any:
    if layer.is_coupled:
        return coupled_cell(layer)
    fields: dict[str, Any] = {"activation": layer.activation}
    if layer.kind == LSTM:
        fields["forget_bias"] = layer.forget_bias
        fields["use_peepholes"] = layer.peepholes is not None
        if layer.projection is not None:
            fields["num_proj"] = layer.projection.shape[1]
    return _CELLS[layer.kind](layer.units, **fields)


def _params(layer: LayerWeights) -> Params:
    if layer.is_coupled:
        return coupled_params(layer)
    kernel, bias = joined([layer.input_kernel, layer.state_kernel]), layer.bias
    if layer.kind in (RNN, LSTM):
        params: Params = {"kernel": kernel, "bias": bias}
        if layer.peepholes is not None:
            params |= zip(_PEEPHOLES, layer.peepholes, strict=True)
        if layer.projection is not None:
            params["projection"] = {"kernel": layer.projection}
        return params
    at = 2 * layer.units
    candidate: Params = {"kernel": kernel[:, at:], "bias": bias[at:]}
    if layer.kind == GRU_AFTER:
        of_inputs = {"kernel": layer.input_kernel[:, at:], "bias": bias[at:]}
        of_state = {"kernel": layer.state_kernel[:, at:], "bias": layer.state_bias}
        candidate = {"input_projection": of_inputs, "hidden_projection": of_state}
    gates = {"kernel": kernel[:, :at], "bias": bias[:at]}
    return {"gates": gates, "candidate": candidate}


def layers_of_cell(
    library: Library, cell: Any, name: str = "cell"
) -> list[tuple[str, LayerWeights]]:
    """The layers of a bound cell, each with a name for messages.

    Raises:
        TypeError: If `cell` is not a bound cell, or has no equivalent in other
            libraries.
        ValueError: If the library does not support a layer, or the shape of a parameter
            does not match its cell.
    """
    cell = as_bound(name, cell)
    stacked = isinstance(cell.cell, MultiRNNCell)
    named = stacked_cells(name, cell) if stacked else [(name, cell)]
    layers = [(own, layer_of(own, as_bound(own, each))) for own, each in named]
    _check_chain([layer for _, layer in layers])
    for own, layer in layers:
        for clip, value in layer.clips.items():
            raise InvalidValue(
                f"`{own}` must have no `{clip}`, which only jaxrnn supports, got "
                f"{value}."
            )
        library.check(own, layer)
    return layers


def pairs_of_cells(
    library: Library, cells_fw: Any, cells_bw: Any
) -> list[tuple[tuple[str, LayerWeights], ...]]:
    """Both directions of each layer, with names for messages; see `layers_of_cell`.

    Raises:
        ValueError: If a cell has several layers, the directions differ in the number of
            layers, or the two cells of a layer differ in the size of their inputs.
    """
    pairs = []
    for i, (cell_fw, cell_bw) in enumerate(paired(cells_fw, cells_bw)):
        fw = _one_layer(library, f"cells_fw[{i}]", cell_fw)
        bw = _one_layer(library, f"cells_bw[{i}]", cell_bw)
        depths = [len(layer.input_kernel) for _, layer in (fw, bw)]
        if depths[0] != depths[1]:
            raise InvalidValue(
                f"both cells of layer {i} must have inputs of the same size, got "
                f"kernels for {depths[0]} and {depths[1]} inputs."
            )
        pairs.append((fw, bw))
    return pairs


def _one_layer(library: Library, name: str, cell: Any) -> tuple[str, LayerWeights]:
    layers = layers_of_cell(library, cell, name)
    if len(layers) > 1:
        raise InvalidValue(
            f"`{name}` must be one layer, got a MultiRNNCell of {len(layers)}. Pass a "
            "separate cell for each layer, since each layer reads both directions of "
            "the layer below."
        )
    return layers[0]


def paired(cells_fw: Any, cells_bw: Any) -> list[tuple[Any, Any]]:
    """Pairs the cells of each layer; accepts a bound cell in place of a list of one.

    Raises:
        TypeError: If an argument is not a sequence.
        ValueError: If a sequence is empty, or the lengths differ.
    """
    both = []
    for name, cells in (("cells_fw", cells_fw), ("cells_bw", cells_bw)):
        cells = [cells] if isinstance(cells, BoundCell) else cells
        if not isinstance(cells, Sequence) or not cells:
            kind = InvalidValue if isinstance(cells, Sequence) else InvalidType
            raise kind(
                f"`{name}` must be a list of at least one cell, one for each layer, "
                f"got {describe(cells)}."
            )
        both.append(cells)
    fw, bw = map(len, both)
    if fw != bw:
        raise InvalidValue(
            f"`cells_fw` and `cells_bw` must have the same depth, got {fw} and {bw}."
        )
    return list(zip(*both, strict=True))


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
    is_variable = lambda leaf: hasattr(leaf, "get_value")
    leaves = jax.tree.leaves(cell.params, is_leaf=is_variable)
    if any(map(is_variable, leaves)):
        raise InvalidType(
            f"`{name}` must have arrays as parameters, got variables of nnx. Convert "
            "them with `nnx.as_pure`, or call the module's `get_cells()`."
        )
    as_mapping(f"{name}.params", cell.params)
    while isinstance(cell.cell, DropoutWrapper | DeviceWrapper):
        cell = cell.cell.cell.bind(cell.params)
    return cell


def stacked_cells(name: str, stack: BoundCell) -> list[tuple[str, BoundCell]]:
    """The cells of a bound `MultiRNNCell`, each with a name for messages.

    Raises:
        ValueError: If a parameter does not belong to any cell.
    """
    # The parameters of a shared cell are stored under its first index.
    owners = [f"cell_{owner}" for owner in stack.cell.owners]
    unknown = [str(key) for key in stack.params if key not in owners]
    if unknown:
        raise InvalidValue(
            f"`{name}.params` must have only the keys "
            f"{listed(sorted(set(owners)))}, got {unknown[0]}."
        )
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
        kinds = ", ".join(kind.__name__ for kind in KINDS)
        raise InvalidType(
            f"`{name}` must be a {kinds} or a MultiRNNCell of these, got {cell!r}. "
            "For a wrapper, convert its inner cell: `cell.cell.cell.bind(cell.params)`."
        )
    given, wanted = _named(bound.params), _named(cell.param_specs(1))
    if given.keys() != wanted.keys():
        raise InvalidValue(
            f"`{name}` must have {listed(sorted(wanted))}, got {listed(sorted(given))}."
        )
    first = "params['kernel']"
    if first not in given:
        first = "params['gates']['kernel']"
    kernel = given[first]
    if not getattr(kernel, "shape", ()):  # The call of `read` below rejects it.
        kernel = wanted[first]
    depth = input_depth(f"{name}.{first}", kernel, cell.output_size)
    specs, read = cell.param_specs(depth), reader(given, f"{name}.")
    arrays = [read(key, *spec.shape) for key, spec in _named(specs).items()]
    return jax.tree.unflatten(jax.tree.structure(specs), arrays)


def input_depth(name: str, kernel: Any, outputs: int) -> int:
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


def _named(params: Params) -> dict[str, Any]:
    is_list = lambda x: isinstance(x, list | tuple)  # Treated as an invalid leaf.
    return dict(named_leaves("params", params, is_list))


def layer_of(name: str, bound: BoundCell) -> LayerWeights:
    """The weights of a single cell; see `read_params` and `layer_of_coupled`."""
    if is_coupled(bound.cell):
        return layer_of_coupled(name, bound)
    cell, params = bound.cell, read_params(name, bound)
    peepholes = None
    if "w_i_diag" in params:
        peepholes = tuple(params[name] for name in _PEEPHOLES)
    clips = {clip: getattr(cell, clip, None) for clip in ("cell_clip", "proj_clip")}
    return LayerWeights(
        KINDS[type(cell)],
        *_joined(params, cell.output_size),
        peepholes=peepholes,
        projection=params.get("projection", {}).get("kernel"),
        forget_bias=getattr(cell, "forget_bias", 0.0),
        activation=cell.activation,
        clips={clip: value for clip, value in clips.items() if value is not None},
    )


def _joined(params: Params, outputs: int) -> tuple[Any, ...]:
    """Returns the input kernel, the state kernel, the bias and the state bias."""
    if "gates" not in params:
        kernel = params["kernel"]
        return kernel[:-outputs], kernel[-outputs:], params["bias"], None
    gates, candidate, state_bias = params["gates"], params["candidate"], None
    if "input_projection" in candidate:
        of_state = candidate["hidden_projection"]
        state_bias, candidate = of_state["bias"], candidate["input_projection"]
        kernel = joined([candidate["kernel"], of_state["kernel"]])
    else:
        kernel = candidate["kernel"]
    kernel = joined([gates["kernel"], kernel], axis=1)
    bias = joined([gates["bias"], candidate["bias"]])
    return kernel[:-outputs], kernel[-outputs:], bias, state_bias
