"""What the peers of jaxrnn share: the cell of a case, and the layout of parameters."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import jaxrnn

from ..core.cases import Case
from ..core.data import Data
from ..core.layouts import Layers
from . import _jax, _mgu

PyTree = Any

PACKAGES = ("jaxrnn", "jax", "jaxlib", "optax")


def make_net(
    case: Case, data: Data, run: Callable[..., tuple[PyTree, PyTree]], **wrappers: Any
) -> _jax.Net:
    """A network that is one cell, of one layer or two; time-major.

    `run(params, inputs, state, lengths)` gives outputs and final state of the cell;
    `wrappers` are those of `_jax.make_net`, around the cell's parameters.
    """
    stacked = len(data.weights) > 1

    def apply(params, inputs, state, lengths):
        state = tuple(state) if stacked else state[0]
        outputs, final = run(params, inputs, state, lengths)
        return outputs, list(final) if stacked else [final]

    to_params = functools.partial(_to_params, case)
    return _jax.make_net(data, apply, to_params, _layer_state(case), **wrappers)


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
        case "gru_after":
            return jaxrnn.CudnnCompatibleGRUCell(units)
        case "rnn":
            return jaxrnn.BasicRNNCell(units)
        case _:
            init = functools.partial(_mgu.init, units)
            return jaxrnn.FunctionCell(_mgu_step, units, units, init)


def _mgu_step(
    params: PyTree, inputs: jax.Array, state: jax.Array, key: None = None
) -> tuple[jax.Array, jax.Array]:
    state = _mgu.step(params, inputs, state)
    return state, state


def _layer_state(case: Case) -> tuple[Any, Any]:
    """How to make a layer's state, and how to read it."""
    if case.state_names == ("h",):
        return _jax.carry("h")
    return lambda state: jaxrnn.LSTMStateTuple(**state), lambda state: state._asdict()


def _to_params(case: Case, layers: Layers) -> PyTree:
    """The weights of all layers as the nested dict that the cell takes."""
    to_layer = {"gru_after": _gru_after, "mgu": _mgu.to_params}.get(case.cell, _nested)
    if len(layers) == 1:
        return to_layer(layers[0])
    return {f"cell_{number}": to_layer(layer) for number, layer in enumerate(layers)}


def _nested(weights: dict[str, np.ndarray]) -> PyTree:
    params: dict[str, Any] = {}
    for path, weight in weights.items():
        *folders, name = path.split("/")
        folder = params
        for part in folders:
            folder = folder.setdefault(part, {})
        folder[name] = weight
    return params


def _gru_after(weights: dict[str, np.ndarray]) -> PyTree:
    """The candidate's second bias is zero, not part of the data."""
    units = len(weights["bias"]) // 3
    depth = len(weights["kernel"]) - units
    gates, candidate = np.split(weights["kernel"], [2 * units], axis=1)
    gate_bias, bias = np.split(weights["bias"], [2 * units])
    of_inputs, of_state = np.split(candidate, [depth])
    return {
        "gates": {"kernel": gates, "bias": gate_bias},
        "candidate": {
            "input_projection": {"kernel": of_inputs, "bias": bias},
            "hidden_projection": {"kernel": of_state, "bias": np.zeros_like(bias)},
        },
    }
