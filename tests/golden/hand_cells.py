"""The cells of the goldens, of JAX or of the library that recorded them.

Steps call `xp`, a `Library`, by the names of `jax.numpy`. In TensorFlow's graphs, `==`
compares identities, so write `xp.equal`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from . import trees


class Library:
    """The modules of a library as one; `named` are objects under JAX's names."""

    def __init__(self, *modules: Any, **named: Any):
        """Takes the modules in the order in which names are looked up."""
        self.modules = list(modules)
        vars(self).update(named)

    def __getattr__(self, name: str) -> Any:
        """The object of this name."""
        for module in self.modules:
            if hasattr(module, name):
                return getattr(module, name)
        raise AttributeError(name)


# It is not symmetric in its arguments.
_RESIDUAL_FNS: dict[str, Callable[..., Any]] = {
    "gated_difference": lambda xp, x, outputs: x * xp.sigmoid(outputs) - 0.5 * outputs,
}


def _dict_inputs(xp: Any, params: Any, inputs: Any, state: Any) -> tuple[Any, Any]:
    new = xp.tanh(inputs["a"] @ params["w_a"] + inputs["b"] @ params["w_b"] + state)
    return new, new


def _pairs(xp: Any, params: Any, inputs: Any, state: Any) -> tuple[Any, Any]:
    (x, y), (first, second) = inputs, state
    new = (xp.tanh(x + 0.5 * first), second * xp.sigmoid(y) + x @ params["w"])
    return (new[1] * y, new[0] - x), new


def _grid(xp: Any, params: Any, inputs: Any, state: Any) -> tuple[Any, Any]:
    new = 0.5 * state + xp.sin(inputs)
    return xp.permute_dims(new, (0, 2, 1)), new


def _counter(xp: Any, params: Any, inputs: Any, state: Any) -> tuple[Any, Any]:
    count, value = state
    new = 0.5 * value + inputs
    return new * count, (count + 1, new)


def _int_counter(xp: Any, params: Any, inputs: Any, state: Any) -> tuple[Any, Any]:
    count, value = state
    new = 0.5 * value + inputs * xp.astype(count, value.dtype)
    return new, (count + 1, new)


def _row_sum(xp: Any, params: Any, inputs: Any, state: Any) -> tuple[Any, Any]:
    new = 0.5 * state + xp.sum(inputs, axis=1)
    return new * new, new


def _mixed(xp: Any, params: Any, inputs: Any, state: Any) -> tuple[Any, Any]:
    count = state["n"] + xp.asarray([[1, 2]], "int32")
    scale = 0.1 * xp.astype(count[:, :1], inputs.dtype)
    new = xp.tanh(state["s"] + inputs * scale)
    return new, {"n": count, "s": new}


def _dict_outputs(xp: Any, params: Any, inputs: Any, state: Any) -> tuple[Any, Any]:
    new = xp.tanh(0.5 * state + inputs)
    return {"y": new, "z": (new * inputs)[:, :, None]}, new


def _lookup(xp: Any, params: Any, inputs: Any, state: Any) -> tuple[Any, Any]:
    new = xp.tanh(xp.take(params["table"], inputs[:, 0], axis=0) + 0.5 * state)
    return new, new


def _pooled(xp: Any, params: Any, inputs: Any, state: Any) -> tuple[Any, Any]:
    pool = xp.mean(state, axis=0, keepdims=True)
    new = xp.tanh(inputs + 0.5 * state) + pool * inputs * params["scale"][None]
    return new + pool, new


def _recorder(xp: Any, params: Any, inputs: Any, state: Any) -> tuple[Any, Any]:
    writes, value, count = state
    new = xp.tanh(0.5 * value + inputs)
    return new * inputs, (writes.write(count, 2 * value), new, count + 1)


def _other_shape(xp: Any, params: Any, inputs: Any, state: Any) -> tuple[Any, Any]:
    return inputs, xp.concat([state, state], axis=1)


_STEPS: dict[str, Callable[..., tuple[Any, Any]]] = {
    "dict_inputs": _dict_inputs,
    "pairs": _pairs,
    "grid": _grid,
    "counter": _counter,
    "int_counter": _int_counter,
    "row_sum": _row_sum,
    "mixed": _mixed,
    "dict_outputs": _dict_outputs,
    "lookup": _lookup,
    "pooled": _pooled,
    "recorder": _recorder,
    "plus_one": lambda xp, _, inputs, state: (state + 1, state + 1),
    "silent": lambda xp, _, inputs, state: ((), 0.5 * state + inputs),
    "other_dtype": lambda xp, _, inputs, state: (inputs, xp.astype(state, "float64")),
    "other_shape": _other_shape,
    "extra_output": lambda xp, _, inputs, state: ((inputs, inputs), state),
    "copy": lambda xp, _, inputs, state: (inputs, state),
}


def build(xp: Library, spec: Any) -> Any:
    """The cell of a specification; equal specifications in a stack are one object."""
    if "not_a_cell" in spec:
        return spec["not_a_cell"]
    if "custom" in spec:
        name, size = spec["custom"], lambda leaf: _size(xp, leaf)
        step = lambda *given: _STEPS[name](xp, *given)
        nests = [trees.sizes(spec[f"{key}_size"], size) for key in ("state", "output")]
        return xp.hand_cell(spec, step, *nests)
    args, kwargs = list(spec.get("args", ())), spec["kwargs"] | xp.extras(spec)
    if "residual_fn" in kwargs:
        residual_fn = _RESIDUAL_FNS[kwargs["residual_fn"]]
        kwargs["residual_fn"] = lambda *given: residual_fn(xp, *given)
    for key, value in kwargs.items():
        if isinstance(value, dict):
            kwargs[key] = getattr(xp, value["function"])
    if "cells" in spec:
        args = [_stack(xp, spec["cells"]), *args]
    elif "cell" in spec:
        args = [build(xp, spec["cell"]), *args]
    return getattr(xp, spec["class"])(*args, **kwargs)


def _stack(xp: Library, specs: Any) -> Any:
    if not isinstance(specs, list):
        return build(xp, specs)
    built: list[Any] = []
    for index, spec in enumerate(specs):
        first = specs.index(spec)
        built.append(built[first] if first < index else build(xp, spec))
    return built


def _size(xp: Library, leaf: dict[str, Any]) -> Any:
    """An int for a vector, as most cells declare it, else a shape."""
    shape = leaf["shape"]
    return shape[0] if len(shape) == 1 else xp.TensorShape(shape)


def argument(xp: Library, value: Any) -> Any:
    """An argument of an error or an option, as the library takes it."""
    if not isinstance(value, dict):
        return value
    ((kind, inner), *rest) = value.items()
    if kind in ("array", "values"):
        make = np.zeros if kind == "array" else np.asarray
        return xp.asarray(make(inner, rest[0][1]))
    if kind == "dict":
        return {key: argument(xp, part) for key, part in inner.items()}
    parts = [argument(xp, part) for part in inner]
    if kind == "LSTMStateTuple":
        return xp.LSTMStateTuple(*parts)
    return parts if kind == "list" else tuple(parts)
