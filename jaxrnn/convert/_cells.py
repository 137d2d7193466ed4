"""Bound cells from the weights of layers, and the inverse."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .._base.typing import Params
from .._cells.bound import BoundCell
from .._wrappers.multi_rnn import MultiRNNCell
from ._bound_cells import KINDS, as_bound, paired, read_params, stacked_cells
from ._layer_weights import GRU_AFTER, LSTM, RNN, LayerWeights

_CELLS = {kind: cell for cell, kind in KINDS.items()}
_PEEPHOLES = ("w_i_diag", "w_f_diag", "w_o_diag")


def cell_of_layers(layers: Sequence[LayerWeights]) -> BoundCell:
    """The bound cell for stacked layers, from the inputs upwards.

    Raises:
        ValueError: If the sizes of two adjacent layers do not agree.
    """
    _check_chain(layers)
    if len(layers) == 1:
        return _cell(layers[0]).bind(_params(layers[0]))
    params = {f"cell_{i}": _params(layer) for i, layer in enumerate(layers)}
    return MultiRNNCell(tuple(map(_cell, layers))).bind(params)


def cells_of_pairs(
    pairs: Iterable[tuple[LayerWeights, ...]],
) -> tuple[tuple[BoundCell, ...], tuple[BoundCell, ...]]:
    """`(cells_fw, cells_bw)` for a pair of directions for each layer."""
    cells = [tuple(cell_of_layers([layer]) for layer in pair) for pair in pairs]
    cells_fw, cells_bw = zip(*cells, strict=True)
    return cells_fw, cells_bw


def layers_of_cell(name: str, cell: Any) -> list[tuple[str, LayerWeights]]:
    """The layers of a bound cell, with their names for messages.

    Raises:
        TypeError: If it is not a bound cell, or its kind has no counterpart elsewhere.
        ValueError: If a hyper-parameter has no counterpart, or a parameter does not
            fit.
    """
    cell = as_bound(name, cell)
    stacked = isinstance(cell.cell, MultiRNNCell)
    named = stacked_cells(name, cell) if stacked else [(name, cell)]
    layers = [(own, _layer(own, as_bound(own, each))) for own, each in named]
    _check_chain([layer for _, layer in layers])
    return layers


def pairs_of_cells(
    cells_fw: Any, cells_bw: Any
) -> list[tuple[tuple[str, LayerWeights], ...]]:
    """For each layer both directions, with names for messages; see `layers_of_cell`.

    Raises:
        ValueError: If a cell has several layers, if the directions have different
            numbers of layers, or if those of a layer have inputs of different sizes.
    """
    pairs = [
        (_one_layer(f"cells_fw[{i}]", fw), _one_layer(f"cells_bw[{i}]", bw))
        for i, (fw, bw) in enumerate(paired(cells_fw, cells_bw))
    ]
    for i, ((_, fw), (_, bw)) in enumerate(pairs):
        if len(fw.input_kernel) != len(bw.input_kernel):
            raise ValueError(
                f"both cells of layer {i} must read the same inputs, got kernels of "
                f"{len(fw.input_kernel)} and {len(bw.input_kernel)}."
            )
    return pairs


def _one_layer(name: str, cell: Any) -> tuple[str, LayerWeights]:
    layers = layers_of_cell(name, cell)
    if len(layers) > 1:
        raise ValueError(
            f"`{name}` must be one layer, got a MultiRNNCell of {len(layers)}. Between "
            "two layers both directions are joined: pass a cell for each."
        )
    return layers[0]


def as_layers(name: str, layers: Sequence[Any]) -> Sequence[Any]:
    """The arguments of `load(*layers)`, which may also be one list of layers.

    Raises:
        ValueError: If there are none.
    """
    if len(layers) == 1 and isinstance(layers[0], list | tuple):
        is_one = any(hasattr(each, "shape") for each in layers[0])  # A list of weights.
        layers = layers if is_one else layers[0]
    if not layers:
        raise ValueError(f"`{name}` must be at least one, got none.")
    return layers


def _check_chain(layers: Sequence[LayerWeights]) -> None:
    for i, (below, above) in enumerate(itertools.pairwise(layers)):
        depth, outputs = len(above.input_kernel), len(below.state_kernel)
        if depth != outputs:
            raise ValueError(
                f"layer {i + 1} must read {outputs} inputs, the size of the output of "
                f"layer {i}, got a kernel of {depth}."
            )


def _cell(layer: LayerWeights) -> Any:
    fields: dict[str, Any] = {"activation": layer.activation}
    if layer.kind == LSTM:
        fields["forget_bias"] = layer.forget_bias
        fields["use_peepholes"] = layer.peepholes is not None
        if layer.projection is not None:
            fields["num_proj"] = layer.projection.shape[1]
    return _CELLS[layer.kind](layer.units, **fields)


def _params(layer: LayerWeights) -> Params:
    kernel, bias = np.concatenate([layer.input_kernel, layer.state_kernel]), layer.bias
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


def _layer(name: str, bound: BoundCell) -> LayerWeights:
    cell, params = bound.cell, read_params(name, bound)
    for clip in ("cell_clip", "proj_clip"):
        value = getattr(cell, clip, None)
        if value is not None:
            raise ValueError(
                f"`{name}` must have no `{clip}`, which no other library has, got "
                f"{value}."
            )
    peepholes = None
    if "w_i_diag" in params:
        peepholes = tuple(params[name] for name in _PEEPHOLES)
    return LayerWeights(
        KINDS[type(cell)],
        *_joined(params, cell.output_size),
        peepholes=peepholes,
        projection=params.get("projection", {}).get("kernel"),
        forget_bias=getattr(cell, "forget_bias", 0.0),
        activation=cell.activation,
    )


def _joined(
    params: Params, outputs: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """The kernels of inputs and state, the bias and the bias of the state."""
    if "gates" not in params:
        kernel = params["kernel"]
        return kernel[:-outputs], kernel[-outputs:], params["bias"], None
    gates, candidate, state_bias = params["gates"], params["candidate"], None
    if "input_projection" in candidate:
        of_state = candidate["hidden_projection"]
        state_bias, candidate = of_state["bias"], candidate["input_projection"]
        kernel = np.concatenate([candidate["kernel"], of_state["kernel"]])
    else:
        kernel = candidate["kernel"]
    kernel = np.concatenate([gates["kernel"], kernel], axis=1)
    bias = np.concatenate([gates["bias"], candidate["bias"]])
    return kernel[:-outputs], kernel[-outputs:], bias, state_bias
