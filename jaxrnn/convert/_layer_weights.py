"""The weights of one layer, as all converters see them.

Libraries differ in the order of gates, the orientation of kernels, the number of biases
and in what is added to a forget gate at run time. A converter makes a `LayerWeights`
from its library's arrays, or these from a `LayerWeights`; all of them share the
conversion between that and a bound cell.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._base.typing import Params
from .._cells.basic_lstm import BasicLSTMCell
from .._cells.basic_rnn import BasicRNNCell
from .._cells.bound import BoundCell
from .._cells.cudnn_compatible_gru import CudnnCompatibleGRUCell
from .._cells.gru import GRUCell
from .._cells.lstm import LSTMCell
from .._wrappers.multi_rnn import MultiRNNCell
from ._own import as_bound, read_params, stacked_cells

RNN, GRU, GRU_AFTER, LSTM = "RNN", "GRU", "GRU that resets after the product", "LSTM"
# The blocks of columns of each kind, under the names that TensorFlow gives them.
GATES = {RNN: "c", GRU: "ruc", GRU_AFTER: "ruc", LSTM: "ijfo"}


@dataclasses.dataclass(frozen=True)
class LayerWeights:
    """A layer of one direction: NumPy arrays, gates in TensorFlow's order.

    Attributes:
        kind: `RNN`, `GRU`, `GRU_AFTER` or `LSTM`.
        inputs: The kernel of the inputs, `[depth, gates * units]`.
        state: The kernel of the state, `[size of the output, gates * units]`.
        bias: `[gates * units]`.
        state_bias: `[units]`, of `GRU_AFTER` alone: what the reset gate multiplies.
        peepholes: None, or those of i, f and o, each `[units]`.
        projection: None, or `[units, size of the output]`.
        forget_bias: What is added to the forget gate at run time.
        activation: The `activation` of the cell; None for tanh.
    """

    kind: str
    inputs: np.ndarray
    state: np.ndarray
    bias: np.ndarray
    state_bias: np.ndarray | None = None
    peepholes: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    projection: np.ndarray | None = None
    forget_bias: float = 0.0
    activation: Any = None

    @property
    def units(self) -> int:
        """The number of units."""
        return self.bias.shape[0] // len(GATES[self.kind])

    @property
    def whole_bias(self) -> np.ndarray:
        """`bias` with the forget bias added."""
        if not self.forget_bias:
            return self.bias
        bias = self.bias.copy()
        f = GATES[LSTM].index("f") * self.units
        bias[f : f + self.units] += self.forget_bias
        return bias


def reordered(array: np.ndarray, old: str, new: str) -> np.ndarray:
    """The array with the blocks of its last axis in another order.

    Args:
        array: `[..., blocks * units]`.
        old: The names of its blocks, a letter each.
        new: The same letters in the new order.
    """
    blocks = dict(zip(old, np.split(array, len(old), axis=-1), strict=True))
    return np.concatenate([blocks[name] for name in new], axis=-1)


def bind(where: str, layers: Sequence[LayerWeights]) -> BoundCell:
    """The bound cell of stacked layers, from the inputs upwards.

    Raises:
        ValueError: If the sizes of two adjacent layers do not agree.
    """
    _check_chain(where, layers)
    cells = [_cell(layer) for layer in layers]
    params = [_params(layer) for layer in layers]
    if len(layers) == 1:
        return cells[0].bind(params[0])
    named = {f"cell_{i}": each for i, each in enumerate(params)}
    return MultiRNNCell(tuple(cells)).bind(named)


def unbind(where: str, name: str, cell: Any) -> list[LayerWeights]:
    """The layers of a bound cell.

    Raises:
        TypeError: If it is not a bound cell, or of a kind without counterpart.
        ValueError: If a hyper-parameter has no counterpart, or a parameter does not
            fit.
    """
    cell = as_bound(where, name, cell)
    stacked = isinstance(cell.cell, MultiRNNCell)
    named = stacked_cells(where, name, cell) if stacked else [(name, cell)]
    layers = [_layer(where, own, as_bound(where, own, each)) for own, each in named]
    _check_chain(where, layers)
    return layers


def _check_chain(where: str, layers: Sequence[LayerWeights]) -> None:
    for i, (below, above) in enumerate(itertools.pairwise(layers)):
        if len(above.inputs) != len(below.state):
            raise ValueError(
                f"{where}: layer {i + 1} must read {len(below.state)} inputs, the size "
                f"of the output of layer {i}, got a kernel of {len(above.inputs)}."
            )


def _cell(layer: LayerWeights) -> Any:
    if layer.kind == LSTM:
        projection = layer.projection
        return LSTMCell(
            layer.units,
            use_peepholes=layer.peepholes is not None,
            num_proj=None if projection is None else projection.shape[1],
            forget_bias=layer.forget_bias,
            activation=layer.activation,
        )
    kinds = {RNN: BasicRNNCell, GRU: GRUCell, GRU_AFTER: CudnnCompatibleGRUCell}
    return kinds[layer.kind](layer.units, activation=layer.activation)


def _params(layer: LayerWeights) -> Params:
    kernel = np.concatenate([layer.inputs, layer.state])
    if layer.kind == RNN:
        return {"kernel": kernel, "bias": layer.bias}
    if layer.kind == LSTM:
        params: Params = {"kernel": kernel, "bias": layer.bias}
        if layer.peepholes is not None:
            names = ("w_i_diag", "w_f_diag", "w_o_diag")
            params |= zip(names, layer.peepholes, strict=True)
        if layer.projection is not None:
            params["projection"] = {"kernel": layer.projection}
        return params
    at = 2 * layer.units
    gates = {"kernel": kernel[:, :at], "bias": layer.bias[:at]}
    if layer.kind == GRU:
        candidate: Params = {"kernel": kernel[:, at:], "bias": layer.bias[at:]}
    else:
        candidate = {
            "input_projection": {
                "kernel": layer.inputs[:, at:],
                "bias": layer.bias[at:],
            },
            "hidden_projection": {
                "kernel": layer.state[:, at:],
                "bias": layer.state_bias,
            },
        }
    return {"gates": gates, "candidate": candidate}


def _layer(where: str, name: str, bound: BoundCell) -> LayerWeights:
    cell, params = bound.cell, read_params(where, name, bound)
    if isinstance(cell, LSTMCell | BasicLSTMCell):
        return _lstm(where, name, cell, params)
    if isinstance(cell, BasicRNNCell):
        x, h = _split(params["kernel"], cell.num_units)
        return LayerWeights(RNN, x, h, params["bias"], activation=cell.activation)
    gates, candidate = params["gates"], params["candidate"]
    x, h = _split(gates["kernel"], cell.num_units)
    if isinstance(cell, GRUCell):
        more_x, more_h = _split(candidate["kernel"], cell.num_units)
        kind, bias, state_bias = GRU, candidate["bias"], None
    else:
        of_x, of_h = candidate["input_projection"], candidate["hidden_projection"]
        more_x, more_h = of_x["kernel"], of_h["kernel"]
        kind, bias, state_bias = GRU_AFTER, of_x["bias"], of_h["bias"]
    return LayerWeights(
        kind,
        np.concatenate([x, more_x], axis=1),
        np.concatenate([h, more_h], axis=1),
        np.concatenate([gates["bias"], bias]),
        state_bias,
        activation=cell.activation,
    )


def _lstm(where: str, name: str, cell: Any, params: Params) -> LayerWeights:
    for clip in ("cell_clip", "proj_clip"):
        value = getattr(cell, clip, None)
        if value is not None:
            raise ValueError(
                f"{where}: `{name}` must have no `{clip}`, which no other library has, "
                f"got {value}."
            )
    x, h = _split(params["kernel"], cell.output_size)
    peepholes = None
    if "w_i_diag" in params:
        peepholes = tuple(params[f"w_{gate}_diag"] for gate in "ifo")
    return LayerWeights(
        LSTM,
        x,
        h,
        params["bias"],
        peepholes=peepholes,
        projection=params.get("projection", {}).get("kernel"),
        forget_bias=cell.forget_bias,
        activation=cell.activation,
    )


def _split(kernel: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The kernel of the inputs and the kernel of the state."""
    return kernel[:-rows], kernel[-rows:]
