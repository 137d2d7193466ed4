"""What the peers of jaxrnn share: the cell of a case, and how its parameters lie."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import jaxrnn

from ..cases import Case
from ..data import Data
from . import _jax, _mgu

PyTree = Any


def make_net(
    case: Case,
    data: Data,
    run: Callable[..., tuple[PyTree, PyTree]],
    params: PyTree,
    cell_params: Callable[[PyTree], PyTree],
) -> _jax.Net:
    """A network that is one cell, of one layer or two; time-major.

    `run(params, inputs, state, lengths)` gives outputs and final state of the cell,
    `cell_params` the cell's parameters in those, or in a gradient.
    """
    stacked = len(data.weights) > 1

    def apply(
        params: PyTree, inputs: jax.Array, state: PyTree, lengths: jax.Array | None
    ) -> tuple[PyTree, PyTree]:
        state = tuple(state) if stacked else state[0]
        outputs, final = run(params, inputs, state, lengths)
        return outputs, list(final) if stacked else [final]

    return _jax.make_net(
        data,
        apply,
        params,
        lambda params: from_params(case, cell_params(params)),
        *state_layout(case),
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


def state_layout(case: Case) -> tuple[Any, Any]:
    """How to make a layer's state, and how to read it."""
    if case.state_names == ("h",):
        return _jax.carry("h")
    return lambda state: jaxrnn.LSTMStateTuple(**state), lambda state: state._asdict()


def to_params(case: Case, layers: list[dict[str, np.ndarray]]) -> PyTree:
    """The weights of all layers as the nested dict that the cell takes."""
    to_layer, _ = _LAYOUTS.get(case.cell, _BY_PATHS)
    if len(layers) == 1:
        return to_layer(layers[0])
    return {f"cell_{number}": to_layer(layer) for number, layer in enumerate(layers)}


def from_params(case: Case, params: PyTree) -> list[dict[str, np.ndarray]]:
    """The way back of `to_params`."""
    _, from_layer = _LAYOUTS.get(case.cell, _BY_PATHS)
    count = len(case.layer_depths)
    layers = [params] if count == 1 else [params[f"cell_{i}"] for i in range(count)]
    return [from_layer(layer) for layer in layers]


def _nested(weights: dict[str, np.ndarray]) -> PyTree:
    params: dict[str, Any] = {}
    for path, weight in weights.items():
        *folders, name = path.split("/")
        folder = params
        for part in folders:
            folder = folder.setdefault(part, {})
        folder[name] = weight
    return params


def _flat(params: PyTree) -> dict[str, np.ndarray]:
    leaves, _ = jax.tree.flatten_with_path(params)
    return {"/".join(key.key for key in path): np.asarray(x) for path, x in leaves}


def _gru_after(weights: dict[str, np.ndarray]) -> PyTree:
    """The candidate's second bias is zero, no part of the data."""
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


def _from_gru_after(params: PyTree) -> dict[str, np.ndarray]:
    gates, candidate = params["gates"], params["candidate"]
    x, h = candidate["input_projection"], candidate["hidden_projection"]
    kernel = np.concatenate([x["kernel"], h["kernel"]])
    return {
        "kernel": np.concatenate([gates["kernel"], kernel], axis=1),
        "bias": np.concatenate([gates["bias"], x["bias"]]),
    }


_BY_PATHS = (_nested, _flat)

_LAYOUTS = {
    "gru_after": (_gru_after, _from_gru_after),
    "mgu": (_mgu.to_params, _mgu.from_params),
}
