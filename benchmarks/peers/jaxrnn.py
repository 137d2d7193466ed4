"""jaxrnn itself, time-major."""

from typing import Any

import jax
import numpy as np

import jaxrnn

from ..built import Built
from ..cases import Case
from ..data import Data
from . import _jax, _mgu

USES = ("jaxrnn", "jax", "jaxlib", "optax")

PyTree = Any


def build(case: Case, data: Data) -> Built:
    """`dynamic_rnn` as a user calls it."""
    return _jax.build(case, data, {"": _net(case, data)})


def _net(case: Case, data: Data) -> _jax.Net:
    cell = make_cell(case)

    def apply(
        params: PyTree, inputs: jax.Array, state: PyTree, lengths: jax.Array | None
    ) -> tuple[PyTree, PyTree]:
        outputs, final = jaxrnn.dynamic_rnn(
            cell.bind(_join(params)),
            inputs,
            lengths,
            tuple(state) if case.cell == "lstm2" else state[0],
            time_major=True,
        )
        return outputs, list(final) if case.cell == "lstm2" else [final]

    make_state, read_state = state_layout(case)
    params = [to_params(case, weights) for weights in data.weights]
    return _jax.make_net(
        data,
        apply,
        params,
        lambda params: [from_params(case, layer) for layer in params],
        make_state,
        read_state,
    )


def make_cell(case: Case) -> jaxrnn.RNNCell:
    """The cell of a case."""
    units = case.units
    match case.cell:
        case "lstm":
            return jaxrnn.LSTMCell(units)
        case "lstm2":
            return jaxrnn.MultiRNNCell([jaxrnn.LSTMCell(units) for _ in range(2)])
        case "peephole":
            return jaxrnn.LSTMCell(units, use_peepholes=True)
        case "gru":
            return jaxrnn.GRUCell(units)
        case "rnn":
            return jaxrnn.BasicRNNCell(units)
        case _:
            return jaxrnn.FunctionCell(_mgu_step, units, units)


def _mgu_step(
    params: PyTree, inputs: jax.Array, state: jax.Array, key: None = None
) -> tuple[jax.Array, jax.Array]:
    state = _mgu.step(params, inputs, state)
    return state, state


def state_layout(case: Case) -> tuple[Any, Any]:
    """How to make a layer's state, and how to read it."""
    if case.state_names == ("h",):
        return _jax.carry("h")
    return lambda state: jaxrnn.LSTMStateTuple(**state), lambda state: state._asdict()


def to_params(case: Case, weights: dict[str, np.ndarray]) -> PyTree:
    """A layer's weights as the nested dict that the cell takes."""
    if case.cell == "mgu":
        return _mgu.to_params(weights)
    params: dict[str, Any] = {}
    for path, weight in weights.items():
        *folders, name = path.split("/")
        folder = params
        for part in folders:
            folder = folder.setdefault(part, {})
        folder[name] = weight
    return params


def from_params(case: Case, params: PyTree) -> dict[str, np.ndarray]:
    """The way back of `to_params`."""
    if case.cell == "mgu":
        return _mgu.from_params(params)
    leaves, _ = jax.tree.flatten_with_path(params)
    return {"/".join(key.key for key in path): np.asarray(x) for path, x in leaves}


def _join(layers: list[PyTree]) -> PyTree:
    if len(layers) == 1:
        return layers[0]
    return {f"cell_{number}": layer for number, layer in enumerate(layers)}
