"""Pairs that other libraries have: two biases of a layer, two directions."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .._base.arguments import check_same_depth
from .._base.errors import describe
from .._cells.bound import BoundCell
from ._layer_weights import GRU, GRU_AFTER, LSTM, RNN, LayerWeights, bind, unbind

_GATES = {1: RNN, 3: GRU, 4: LSTM}


def kind_of(where: str, name: str, gates: int, units: int, got: Any) -> str:
    """`RNN`, `GRU` or `LSTM`: 1, 3 or 4 blocks of `units`.

    Raises:
        ValueError: If `gates` is another multiple.
    """
    for number, kind in _GATES.items():
        if gates == number * units:
            return kind
    raise ValueError(
        f"{where}: `{name}` must have 1, 3 or 4 blocks of {units} units, for RNN, GRU "
        f"or LSTM, got {describe(got)}."
    )


def merge_biases(
    kind: str, of_inputs: np.ndarray, of_state: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """`bias` and `state_bias` of a layer, from two biases in its gate order."""
    if kind != GRU_AFTER:
        return of_inputs + of_state, None
    at = 2 * len(of_inputs) // 3
    gates = of_inputs[:at] + of_state[:at]
    return np.concatenate([gates, of_inputs[at:]]), of_state[at:]


def split_biases(layer: LayerWeights) -> tuple[np.ndarray, np.ndarray]:
    """Two biases with the sum of the layer's; the second is zero where it can be."""
    of_state = np.zeros_like(layer.bias)
    if layer.state_bias is not None:
        of_state[2 * layer.units :] = layer.state_bias
    return layer.whole_bias, of_state


def as_layers(layers: Sequence[Any]) -> Sequence[Any]:
    """The arguments of `load(*layers)`; a single list of layers counts as those."""
    if len(layers) != 1 or not isinstance(layers[0], list | tuple):
        return layers
    is_one = any(hasattr(each, "shape") for each in layers[0])  # A list of weights.
    return layers if is_one else layers[0]


def unbind_named(where: str, name: str, cell: Any) -> list[tuple[str, LayerWeights]]:
    """The layers of a cell with their names in messages; see `unbind`."""
    layers = unbind(where, name, cell)
    if len(layers) == 1:
        return [(name, layers[0])]
    return [(f"{name}.cells[{i}]", layer) for i, layer in enumerate(layers)]


def bind_both(
    where: str, pairs: Iterable[tuple[LayerWeights, ...]]
) -> tuple[tuple[BoundCell, ...], tuple[BoundCell, ...]]:
    """`(cells_fw, cells_bw)` of the pair of each layer."""
    cells = [tuple(bind(where, [layer]) for layer in pair) for pair in pairs]
    cells_fw, cells_bw = zip(*cells, strict=True)
    return cells_fw, cells_bw


def as_list(where: str, name: str, cells: Any) -> Sequence[Any]:
    """Cells, one for each layer; a single bound cell is a list of one.

    Raises:
        TypeError: If `cells` is not a sequence.
        ValueError: If it is empty.
    """
    if isinstance(cells, BoundCell):
        return [cells]
    if not isinstance(cells, Sequence) or not cells:
        kind = ValueError if isinstance(cells, Sequence) else TypeError
        raise kind(
            f"{where}: `{name}` must be a list of at least one cell, one for each "
            f"layer, got {describe(cells)}."
        )
    return cells


def unbind_each(where: str, name: str, cells: Any) -> list[LayerWeights]:
    """The layers of a sequence of cells of one layer each; see `unbind`.

    Raises:
        TypeError: If it is not a sequence of bound cells.
        ValueError: If it is empty, or a cell has several layers.
    """
    layers = []
    for i, cell in enumerate(as_list(where, name, cells)):
        own = unbind(where, f"{name}[{i}]", cell)
        if len(own) > 1:
            raise ValueError(
                f"{where}: `{name}[{i}]` must be one layer, got a MultiRNNCell of "
                f"{len(own)}. Between two layers both directions are joined: pass a "
                "cell for each."
            )
        layers += own
    return layers


def unbind_both(
    where: str, cells_fw: Any, cells_bw: Any
) -> list[tuple[LayerWeights, LayerWeights]]:
    """For each layer the pair of forward and backward; see `unbind_each`.

    Raises:
        ValueError: If the directions have different numbers of layers, or the inputs
            of a layer different sizes.
    """
    layers_fw = unbind_each(where, "cells_fw", cells_fw)
    layers_bw = unbind_each(where, "cells_bw", cells_bw)
    check_same_depth(where, layers_fw, layers_bw)
    pairs = list(zip(layers_fw, layers_bw, strict=True))
    for i, (fw, bw) in enumerate(pairs):
        if len(fw.inputs) != len(bw.inputs):
            raise ValueError(
                f"{where}: both cells of layer {i} must read the same inputs, got "
                f"kernels of {len(fw.inputs)} and {len(bw.inputs)}."
            )
    return pairs
