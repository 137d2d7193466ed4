"""The weights of one layer, as all converters see them.

Libraries differ in the order of gates, in which way a kernel lies, in how many biases
there are and in what is added to a forget gate at run time. A converter turns its
library's arrays into a `Layer`, or a `Layer` into these; from there to a cell and its
parameters the way is one for all.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._bound import BoundCell
from .._cells._affine import AffineCell
from .._cells._basic_lstm import BasicLSTMCell
from .._cells._basic_rnn import BasicRNNCell
from .._cells._cudnn_compatible_gru import CudnnCompatibleGRUCell
from .._cells._gru import GRUCell
from .._cells._lstm import LSTMCell
from .._errors import describe
from .._trees import named_leaves
from .._typing import Params
from .._wrappers._multi_rnn import MultiRNNCell

RNN, GRU, GRU_AFTER, LSTM = "RNN", "GRU", "GRU that resets after the product", "LSTM"
# The blocks of columns of each kind, under the names that TensorFlow gives them.
GATES = {RNN: "c", GRU: "ruc", GRU_AFTER: "ruc", LSTM: "ijfo"}


@dataclasses.dataclass(frozen=True)
class Layer:
    """A recurrent layer of one direction: NumPy arrays, gates in TensorFlow's order.

    Attributes:
        kind: `RNN`, `GRU`, `GRU_AFTER` or `LSTM`.
        inputs: The kernel of the inputs, `[depth, gates * units]`.
        state: The kernel of the state, `[size of the output, gates * units]`.
        bias: `[gates * units]`.
        state_bias: `[units]`, of `GRU_AFTER` alone: what the reset gate multiplies.
        peepholes: None, or those of i, f and o, each `[units]`.
        projection: None, or `[units, size of the output]`.
        forget_bias: What is added to the forget gate at run time.
        activation: As the cells take it; None for tanh.
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
        """`bias`, with what is added at run time."""
        if not self.forget_bias:
            return self.bias
        bias = self.bias.copy()
        f = GATES[LSTM].index("f") * self.units
        bias[f : f + self.units] += self.forget_bias
        return bias


def blocks(array: np.ndarray, order: str, names: str) -> np.ndarray:
    """The array whose last axis has its blocks in another order.

    Args:
        array: `[..., blocks * units]`.
        order: The names of its blocks, a letter each.
        names: The same letters in the order in which they are wanted.
    """
    parts = dict(zip(order, np.split(array, len(order), axis=-1), strict=True))
    return np.concatenate([parts[name] for name in names], axis=-1)


def bind(layers: Sequence[Layer]) -> BoundCell:
    """The cell that the layers make one on the other, with its parameters."""
    cells = [_cell(layer) for layer in layers]
    params = [_params(layer) for layer in layers]
    if len(layers) == 1:
        return cells[0].bind(params[0])
    named = {f"cell_{i}": each for i, each in enumerate(params)}
    return MultiRNNCell(tuple(cells)).bind(named)


def unbind(where: str, name: str, cell: Any) -> list[Layer]:
    """The layers of a cell with its parameters.

    Raises:
        TypeError: If it is none, or not of cells that have a counterpart elsewhere.
        ValueError: If a hyper-parameter has none.
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
    params = jax.tree.map(np.asarray, cell.params)
    if not isinstance(cell.cell, MultiRNNCell):
        return [_layer(where, name, cell.cell, params)]
    # One cell at two places has its parameters under the first.
    places = enumerate(zip(cell.cell.cells, cell.cell.owners, strict=True))
    return [
        _layer(where, f"{name}.cells[{i}]", each, params.get(f"cell_{owner}", {}))
        for i, (each, owner) in places
    ]


def as_numpy(
    where: str, name: str, value: Any, shape: tuple[int | None, ...] = ()
) -> np.ndarray:
    """A weight as NumPy's array, as it is or as PyTorch's `state_dict` gives it.

    Args:
        where: The function that asks.
        name: What the weight is called there.
        value: The weight.
        shape: What it must have, with None for any size; `()` for any shape.

    Raises:
        TypeError: If it is no array of floating numbers.
        ValueError: If it has another shape.
    """
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":  # Which `asarray` does not take.
            return as_numpy(where, name, value.float(), shape).astype(jnp.bfloat16)
    if isinstance(value, list | tuple | dict | str) or value is None:
        raise TypeError(f"{where}: `{name}` must be an array, got {describe(value)}.")
    array = np.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{where}: `{name}` must be floating, got {describe(array)}.")
    fits = len(shape) == array.ndim and all(
        want in (None, got) for want, got in zip(shape, array.shape, strict=False)
    )
    if shape and not fits:
        sizes = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(
            f"{where}: `{name}` must have shape [{sizes}], got {describe(array)}."
        )
    return array


def pick(where: str, weights: Mapping[str, Any], name: str) -> Any:
    """The weight of that name.

    Raises:
        ValueError: If it is missing; says what there is.
    """
    if name in weights:
        return weights[name]
    there = ", ".join(map(str, weights)) or "nothing"
    raise ValueError(f"{where}: `{name}` is missing. There is: {there}.")


def _cell(layer: Layer) -> Any:
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


def _params(layer: Layer) -> Params:
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


def _check_names(where: str, name: str, cell: Any, params: Any) -> None:
    want = {n for n, _ in named_leaves("params", cell.param_specs(1))}
    got = {n for n, _ in named_leaves("params", params)}
    if want != got:
        raise ValueError(
            f"{where}: `{name}` must have {', '.join(sorted(want))}, got "
            f"{', '.join(sorted(got)) or 'nothing'}."
        )


def _layer(where: str, name: str, cell: Any, params: Params) -> Layer:
    if isinstance(cell, AffineCell):
        _check_names(where, name, cell, params)
    if isinstance(cell, LSTMCell | BasicLSTMCell):
        return _lstm(where, name, cell, params)
    activation = getattr(cell, "activation", None)
    if isinstance(cell, BasicRNNCell):
        x, h = _split(params["kernel"], cell.num_units)
        return Layer(RNN, x, h, params["bias"], activation=activation)
    if not isinstance(cell, GRUCell | CudnnCompatibleGRUCell):
        raise TypeError(
            f"{where}: `{name}` must be a BasicRNNCell, BasicLSTMCell, LSTMCell, "
            "GRUCell, CudnnCompatibleGRUCell or a MultiRNNCell of these, got "
            f"{cell!r}. Of a wrapper convert the cell within."
        )
    gates, candidate = params["gates"], params["candidate"]
    x, h = _split(gates["kernel"], cell.num_units)
    if isinstance(cell, GRUCell):
        more_x, more_h = _split(candidate["kernel"], cell.num_units)
        kind, bias, state_bias = GRU, candidate["bias"], None
    else:
        of_x, of_h = candidate["input_projection"], candidate["hidden_projection"]
        more_x, more_h = of_x["kernel"], of_h["kernel"]
        kind, bias, state_bias = GRU_AFTER, of_x["bias"], of_h["bias"]
    return Layer(
        kind,
        np.concatenate([x, more_x], axis=1),
        np.concatenate([h, more_h], axis=1),
        np.concatenate([gates["bias"], bias]),
        state_bias,
        activation=activation,
    )


def _lstm(where: str, name: str, cell: Any, params: Params) -> Layer:
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
    return Layer(
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
    """What multiplies the inputs, and what the state."""
    return kernel[:-rows], kernel[-rows:]
