"""The cells of the goldens in TensorFlow: the built-in ones and those by hand."""

from typing import Any

import tensorflow as tf

from ..trees import sizes

tf1 = tf.compat.v1
rnn_cell = tf1.nn.rnn_cell
# Where the classes of cells are looked up.
MODULES = [rnn_cell]


def gated_difference(inputs: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """A residual function that is not symmetric in its arguments."""
    return inputs * tf.sigmoid(outputs) - 0.5 * outputs


def widening(inputs: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """A residual function that changes the width."""
    return tf.concat([inputs, outputs], axis=-1)


RESIDUAL_FNS = {"gated_difference": gated_difference, "widening": widening}


def _dict_inputs(params, inputs, state):
    new = tf.tanh(inputs["a"] @ params["w_a"] + inputs["b"] @ params["w_b"] + state)
    return new, new


def _pairs(params, inputs, state):
    first, second = state
    x, y = inputs
    new = (tf.tanh(x + 0.5 * first), second * tf.sigmoid(y) + x @ params["w"])
    return (new[1] * y, new[0] - x), new


def _grid(params, inputs, state):
    del params
    new = 0.5 * state + tf.sin(inputs)
    return tf.transpose(new, [0, 2, 1]), new


def _deep(params, inputs, state):
    del params
    new = tf.tanh(state + tf.reduce_sum(inputs, axis=[2, 3]))
    return tf.reduce_sum(inputs, axis=3) * new[:, :, None], new


def _counter(params, inputs, state):
    del params
    count, value = state
    new = 0.5 * value + inputs
    return new * count, (count + tf.ones([], count.dtype), new)


def _int_counter(params, inputs, state):
    del params
    count, value = state
    new = 0.5 * value + inputs * tf.cast(count, value.dtype)
    return new, (count + 1, new)


def _row_sum(params, inputs, state):
    del params
    new = 0.5 * state + tf.reduce_sum(inputs, axis=1)
    return new * new, new


def _mixed(params, inputs, state):
    del params
    count = state["n"] + tf.constant([1, 2])
    scale = 0.1 * tf.cast(count[:, :1], inputs.dtype)
    new = tf.tanh(state["s"] + inputs * scale)
    return new, {"n": count, "s": new}


def _silent(params, inputs, state):
    del params
    return (), 0.5 * state + inputs


def _dict_outputs(params, inputs, state):
    del params
    new = tf.tanh(0.5 * state + inputs)
    return {"y": new, "z": (new * inputs)[:, :, None]}, new


def _list_state(params, inputs, state):
    del params
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


def _other_structure(params, inputs, state):
    del params
    return inputs, (state, state)


def _other_dtype(params, inputs, state):
    del params
    return inputs, tf.cast(state, tf.float64)


def _other_shape(params, inputs, state):
    del params
    return inputs, tf.concat([state, state], axis=1)


def _output_dtype(params, inputs, state):
    del params
    return tf.cast(inputs, tf.float64), state


def _extra_output(params, inputs, state):
    del params
    return (inputs, inputs), state


def _copy(params, inputs, state):
    del params
    return inputs, state


STEPS = {
    "dict_inputs": _dict_inputs,
    "pairs": _pairs,
    "grid": _grid,
    "deep": _deep,
    "counter": _counter,
    "int_counter": _int_counter,
    "row_sum": _row_sum,
    "mixed": _mixed,
    "silent": _silent,
    "dict_outputs": _dict_outputs,
    "list_state": _list_state,
    "lookup": _lookup,
    "pooled": _pooled,
    "other_structure": _other_structure,
    "other_dtype": _other_dtype,
    "other_shape": _other_shape,
    "output_dtype": _output_dtype,
    "extra_output": _extra_output,
    "copy": _copy,
}


class HandCell:
    """A cell that is none of TensorFlow's classes, but keeps their protocol."""

    def __init__(self, spec: dict[str, Any], params: dict[str, tf.Variable]):
        """Takes the case's cell and its variables."""
        self._step = STEPS[spec["custom"]]
        self._params = params
        self.state_size = sizes(spec["state_size"], _size)
        self.output_size = sizes(spec["output_size"], _size)

    def __call__(self, inputs: Any, state: Any, scope: Any = None) -> tuple[Any, Any]:
        """One step."""
        del scope
        return self._step(self._params, inputs, state)

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
        return HandCell(spec, _variables(spec["params"], dtype))
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
    """The cells of a stack."""
    if not isinstance(specs, list):
        return build(specs, dtype)
    built: list[Any] = []
    for index, spec in enumerate(specs):
        first = specs.index(spec)
        built.append(built[first] if first < index else build(spec, dtype))
    return built


def _variables(shapes: dict[str, list[int]], dtype: str) -> dict[str, tf.Variable]:
    """Variables for a cell by hand; their values are assigned later."""
    with tf1.variable_scope(None, default_name="hand"):
        return {
            name: tf1.get_variable(name, shape, dtype) for name, shape in shapes.items()
        }
