"""The cells of the goldens in TensorFlow: its own, contrib's and those by hand."""

from typing import Any

import numpy as np

from .. import trees
from .graphs import tf, tf1

rnn_cell = tf1.nn.rnn_cell
# Where classes of cells are looked up; recorders of contrib add its modules.
MODULES = [rnn_cell]
# The second is not symmetric in its arguments, and the first changes the width.
RESIDUAL_FNS = {
    "widening": lambda inputs, outputs: tf.concat([inputs, outputs], axis=-1),
    "gated_difference": lambda x, y: x * tf.sigmoid(y) - 0.5 * y,
}


def _dict_inputs(params, inputs, state):
    new = tf.tanh(inputs["a"] @ params["w_a"] + inputs["b"] @ params["w_b"] + state)
    return new, new


def _pairs(params, inputs, state):
    (x, y), (first, second) = inputs, state
    new = (tf.tanh(x + 0.5 * first), second * tf.sigmoid(y) + x @ params["w"])
    return (new[1] * y, new[0] - x), new


def _grid(params, inputs, state):
    new = 0.5 * state + tf.sin(inputs)
    return tf.transpose(new, [0, 2, 1]), new


def _deep(params, inputs, state):
    new = tf.tanh(state + tf.reduce_sum(inputs, axis=[2, 3]))
    return tf.reduce_sum(inputs, axis=3) * new[:, :, None], new


def _counter(params, inputs, state):
    count, value = state
    new = 0.5 * value + inputs
    return new * count, (count + 1, new)


def _int_counter(params, inputs, state):
    count, value = state
    new = 0.5 * value + inputs * tf.cast(count, value.dtype)
    return new, (count + 1, new)


def _row_sum(params, inputs, state):
    new = 0.5 * state + tf.reduce_sum(inputs, axis=1)
    return new * new, new


def _mixed(params, inputs, state):
    count = state["n"] + tf.constant([1, 2])
    scale = 0.1 * tf.cast(count[:, :1], inputs.dtype)
    new = tf.tanh(state["s"] + inputs * scale)
    return new, {"n": count, "s": new}


def _dict_outputs(params, inputs, state):
    new = tf.tanh(0.5 * state + inputs)
    return {"y": new, "z": (new * inputs)[:, :, None]}, new


def _list_state(params, inputs, state):
    first, second = state
    new = [tf.tanh(first + inputs), second * 0.5 + first]
    return new[1] * inputs, new


def _lookup(params, inputs, state):
    new = tf.tanh(tf.gather(params["table"], inputs[:, 0]) + 0.5 * state)
    return new, new


def _pooled(params, inputs, state):
    (scale,) = params.values()  # In a stack, its name is a path.
    pool = tf.reduce_mean(state, axis=0, keepdims=True)
    new = tf.tanh(inputs + 0.5 * state) + pool * inputs * scale
    return new + pool, new


def _recorder(params, inputs, state):
    array, value, count = state
    new = tf.tanh(0.5 * value + inputs)
    return new * inputs, (array.write(count, 2 * value), new, count + 1)


STEPS = {
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
    "recorder": _recorder,
    "plus_one": lambda _, inputs, state: (state + 1, state + 1),
    "silent": lambda _, inputs, state: ((), 0.5 * state + inputs),
    "other_structure": lambda _, inputs, state: (inputs, (state, state)),
    "other_dtype": lambda _, inputs, state: (inputs, tf.cast(state, tf.float64)),
    "other_shape": lambda _, inputs, state: (inputs, tf.concat([state, state], 1)),
    "output_dtype": lambda _, inputs, state: (tf.cast(inputs, tf.float64), state),
    "extra_output": lambda _, inputs, state: ((inputs, inputs), state),
    "copy": lambda _, inputs, state: (inputs, state),
}


class HandCell:
    """A cell that is none of TensorFlow's classes, but keeps their protocol."""

    def __init__(self, spec: dict[str, Any], dtype: str):
        """Takes the case's cell, and makes its variables."""
        self.step = STEPS[spec["custom"]]
        with tf1.variable_scope(None, default_name="hand"):
            self.params = {
                name: tf1.get_variable(name, shape, dtype)
                for name, shape in spec["params"].items()
            }
        self.state_size = trees.sizes(spec["state_size"], _size)
        self.output_size = trees.sizes(spec["output_size"], _size)

    def __call__(self, inputs: Any, state: Any, scope: Any = None) -> tuple[Any, Any]:
        """One step."""
        return self.step(self.params, inputs, state)

    def zero_state(self, batch_size: int, dtype: Any) -> Any:
        """Zeros for each size of the state."""

        def zeros(size):
            return tf.zeros([batch_size, *tf.TensorShape(size).as_list()], dtype)

        return tf.nest.map_structure(zeros, self.state_size)


def _size(leaf: dict[str, Any]) -> Any:
    """An int for a vector, as most cells declare it, else a shape."""
    shape = leaf["shape"]
    return shape[0] if len(shape) == 1 else tf.TensorShape(shape)


def build(spec: Any, dtype: str) -> Any:
    """The cell of a specification; equal specifications in a stack are one object."""
    if "not_a_cell" in spec:
        return spec["not_a_cell"]
    if "custom" in spec:
        return HandCell(spec, dtype)
    args, kwargs = list(spec.get("args", ())), dict(spec["kwargs"])
    if "residual_fn" in kwargs:
        kwargs["residual_fn"] = RESIDUAL_FNS[kwargs["residual_fn"]]
    for key, value in kwargs.items():
        if isinstance(value, dict):
            kwargs[key] = getattr(tf.nn, value["function"])
    if "cells" in spec:
        args = [_stack(spec["cells"], dtype), *args]
    elif "cell" in spec:
        args = [build(spec["cell"], dtype), *args]
    module = next(m for m in MODULES if hasattr(m, spec["class"]))
    return getattr(module, spec["class"])(*args, **kwargs)


def _stack(specs: Any, dtype: str) -> Any:
    if not isinstance(specs, list):
        return build(specs, dtype)
    built: list[Any] = []
    for index, spec in enumerate(specs):
        first = specs.index(spec)
        built.append(built[first] if first < index else build(spec, dtype))
    return built


def argument(value: Any) -> Any:
    """An argument of an error or an option, as TensorFlow takes it."""
    if not isinstance(value, dict):
        return value
    ((kind, inner), *rest) = value.items()
    if kind in ("array", "values"):
        dtype = tf.as_dtype(rest[0][1]).as_numpy_dtype
        return tf.constant(
            np.zeros(inner, dtype) if kind == "array" else np.asarray(inner, dtype)
        )
    if kind == "dict":
        return {key: argument(part) for key, part in inner.items()}
    parts = [argument(part) for part in inner]
    if kind == "LSTMStateTuple":
        return rnn_cell.LSTMStateTuple(*parts)
    return parts if kind == "list" else tuple(parts)
