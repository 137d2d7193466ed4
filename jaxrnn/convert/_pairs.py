"""What other libraries have in pairs: biases of a layer, directions of a run."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._base.arguments import check_same_depth
from .._base.errors import describe
from .._cells.bound import BoundCell
from ._layer import GRU, GRU_AFTER, LSTM, RNN, Layer, unbind

_GATES = {1: RNN, 3: GRU, 4: LSTM}


def kind_of(where: str, name: str, gates: int, units: int, got: Any) -> str:
    """`RNN`, `GRU` or `LSTM`, as there are 1, 3 or 4 gates for a unit.

    Raises:
        ValueError: If there is another number of them.
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
    """`bias` and `state_bias` of a `Layer`, from two biases with its order of gates."""
    if kind != GRU_AFTER:
        return of_inputs + of_state, None
    at = 2 * len(of_inputs) // 3
    gates = of_inputs[:at] + of_state[:at]
    return np.concatenate([gates, of_inputs[at:]]), of_state[at:]


def split_biases(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """Two biases whose sum is the layer's: the second is zero where it need not be."""
    of_state = np.zeros_like(layer.bias)
    if layer.state_bias is not None:
        of_state[2 * layer.units :] = layer.state_bias
    return layer.whole_bias, of_state


def spread(layers: Sequence[Any]) -> Sequence[Any]:
    """The arguments of `load(*layers)`, or the one list that `save` gave of layers."""
    if len(layers) != 1 or not isinstance(layers[0], list | tuple):
        return layers
    is_one = any(hasattr(each, "shape") for each in layers[0])  # A list of weights.
    return layers if is_one else layers[0]


def unbind_named(where: str, name: str, cell: Any) -> list[tuple[str, Layer]]:
    """The layers of a cell under the names that messages give them; see `unbind`."""
    layers = unbind(where, name, cell)
    if len(layers) == 1:
        return [(name, layers[0])]
    return [(f"{name}.cells[{i}]", layer) for i, layer in enumerate(layers)]


def as_list(where: str, name: str, cells: Any) -> Sequence[Any]:
    """Cells, one for each layer; a bare one is that of the only layer.

    Raises:
        TypeError: If it is no sequence.
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


def unbind_each(where: str, name: str, cells: Any) -> list[Layer]:
    """The layers of a sequence of cells, or of one, each of one layer; see `unbind`.

    Raises:
        TypeError: If it is no sequence of cells with their parameters.
        ValueError: If there are none.
    """
    layers = []
    for i, cell in enumerate(as_list(where, name, cells)):
        made = unbind(where, f"{name}[{i}]", cell)
        if len(made) > 1:
            raise ValueError(
                f"{where}: `{name}[{i}]` must be one layer, got a MultiRNNCell of "
                f"{len(made)}. Between two layers both directions are joined: pass a "
                "cell for each."
            )
        layers += made
    return layers


def unbind_both(where: str, cells_fw: Any, cells_bw: Any) -> list[tuple[Layer, Layer]]:
    """For each layer that of either direction; see `unbind_each`.

    Raises:
        ValueError: If one of them has more layers.
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
