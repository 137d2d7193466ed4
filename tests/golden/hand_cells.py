"""The cells by hand of the goldens in JAX; `README.md` says where TensorFlow's are."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import jaxrnn

from . import trees

Array = jax.Array
Params = dict[str, Array]


def gated_difference(inputs: Array, outputs: Array) -> Array:
    """A residual function that is not symmetric in its arguments."""
    return inputs * jax.nn.sigmoid(outputs) - 0.5 * outputs


def widening(inputs: Array, outputs: Array) -> Array:
    """A residual function that changes the width."""
    return jnp.concatenate([inputs, outputs], axis=-1)


RESIDUAL_FNS = {"gated_difference": gated_difference, "widening": widening}


def _dict_inputs(params: Params, inputs: Any, state: Any) -> tuple[Any, Any]:
    new = jnp.tanh(inputs["a"] @ params["w_a"] + inputs["b"] @ params["w_b"] + state)
    return new, new


def _pairs(params: Params, inputs: Any, state: Any) -> tuple[Any, Any]:
    (x, y), (first, second) = inputs, state
    new = (jnp.tanh(x + 0.5 * first), second * jax.nn.sigmoid(y) + x @ params["w"])
    return (new[1] * y, new[0] - x), new


def _grid(params: Params, inputs: Any, state: Any) -> tuple[Any, Any]:
    new = 0.5 * state + jnp.sin(inputs)
    return jnp.transpose(new, (0, 2, 1)), new


def _deep(params: Params, inputs: Any, state: Any) -> tuple[Any, Any]:
    new = jnp.tanh(state + jnp.sum(inputs, axis=(2, 3)))
    return jnp.sum(inputs, axis=3) * new[:, :, None], new


def _counter(params: Params, inputs: Any, state: Any) -> tuple[Any, Any]:
    count, value = state
    new = 0.5 * value + inputs
    return new * count, (count + 1, new)


def _int_counter(params: Params, inputs: Any, state: Any) -> tuple[Any, Any]:
    count, value = state
    new = 0.5 * value + inputs * count.astype(value.dtype)
    return new, (count + 1, new)


def _row_sum(params: Params, inputs: Any, state: Any) -> tuple[Any, Any]:
    new = 0.5 * state + jnp.sum(inputs, axis=1)
    return new * new, new


def _mixed(params: Params, inputs: Any, state: Any) -> tuple[Any, Any]:
    count = state["n"] + jnp.asarray([[1, 2]], jnp.int32)
    scale = 0.1 * count[:, :1].astype(inputs.dtype)
    new = jnp.tanh(state["s"] + inputs * scale)
    return new, {"n": count, "s": new}


def _dict_outputs(params: Params, inputs: Any, state: Any) -> tuple[Any, Any]:
    new = jnp.tanh(0.5 * state + inputs)
    return {"y": new, "z": (new * inputs)[:, :, None]}, new


def _list_state(params: Params, inputs: Any, state: Any) -> tuple[Any, Any]:
    first, second = state
    new = [jnp.tanh(first + inputs), second * 0.5 + first]
    return new[1] * inputs, new


def _lookup(params: Params, inputs: Any, state: Any) -> tuple[Any, Any]:
    new = jnp.tanh(params["table"][inputs[:, 0]] + 0.5 * state)
    return new, new


def _pooled(params: Params, inputs: Any, state: Any) -> tuple[Any, Any]:
    pool = jnp.mean(state, axis=0, keepdims=True)
    new = jnp.tanh(inputs + 0.5 * state) + pool * inputs * params["scale"][None]
    return new + pool, new


_STEPS: dict[str, Callable[..., tuple[Any, Any]]] = {
    "dict_inputs": _dict_inputs,
    "pairs": _pairs,
    "grid": _grid,
    "deep": _deep,
    "counter": _counter,
    "int_counter": _int_counter,
    "row_sum": _row_sum,
    "mixed": _mixed,
    "dict_outputs": _dict_outputs,
    "list_state": _list_state,
    "lookup": _lookup,
    "pooled": _pooled,
    "silent": lambda _, inputs, state: ((), 0.5 * state + inputs),
    "other_structure": lambda _, inputs, state: (inputs, (state, state)),
    "other_dtype": lambda _, inputs, state: (inputs, state.astype(jnp.float64)),
    "other_shape": lambda _, inputs, state: (inputs, jnp.tile(state, (1, 2))),
    "output_dtype": lambda _, inputs, state: (inputs.astype(jnp.float64), state),
    "extra_output": lambda _, inputs, state: ((inputs, inputs), state),
    "copy": lambda _, inputs, state: (inputs, state),
}


class ProtocolCell:
    """A cell that is none of jaxrnn's classes, but keeps their protocol."""

    def __init__(self, step: Callable[..., Any], state_size: Any, output_size: Any):
        """Takes `step(params, inputs, state)` of a cell without parameters."""
        self._step = step
        self.state_size = state_size
        self.output_size = output_size

    def __call__(self, inputs: Any, state: Any) -> tuple[Any, Any]:
        """One step."""
        return self._step({}, inputs, state)

    def zero_state(self, batch_size: int, dtype: Any) -> Any:
        """Zeros for each size of the state; the goldens' are leaves."""
        shape = self.state_size
        return jnp.zeros((batch_size, *tuple(shape)), dtype)

    def bind(self, params: Params, key: Any = None) -> "ProtocolCell":
        """Itself, so that tests treat all cells alike."""
        return self

    def init(self, key: Any, inputs: Any, dtype: Any = None) -> Params:
        """No parameters."""
        return {}


def make(spec: dict[str, Any]) -> Any:
    """The cell of a specification."""
    step = _STEPS[spec["custom"]]
    state_size = trees.sizes(spec["state_size"], _size)
    output_size = trees.sizes(spec["output_size"], _size)
    if spec["protocol"]:
        return ProtocolCell(step, state_size, output_size)

    def call(params, inputs, state, key=None):
        return step(params, inputs, state)

    return jaxrnn.FunctionCell(call, state_size, output_size, **spec.get("ours", {}))


def _size(leaf: dict[str, Any]) -> Any:
    """An int for a vector, as most cells declare it, else a shape."""
    shape = leaf["shape"]
    return shape[0] if len(shape) == 1 else jaxrnn.TensorShape(shape)
