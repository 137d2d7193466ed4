"""What class of exception TensorFlow raises for a bad call."""

from typing import Any

import numpy as np
import tensorflow as tf

from .. import trees
from . import tf1_cells

tf1 = tf.compat.v1


def argument(value: Any) -> Any:
    """An argument of an error as TensorFlow takes it."""
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
        return tf1_cells.rnn_cell.LSTMStateTuple(*parts)
    return parts if kind == "list" else tuple(parts)


def _call(error: dict[str, Any]) -> Any:
    """Makes the call and returns what it gives."""
    cell = tf1_cells.build(error["cell"], "float32")
    given = {key: argument(value) for key, value in error["arguments"].items()}
    function = error["function"]
    if function == "build":
        return ()
    if function == "zero_state":
        return cell.zero_state(**given)
    if function == "cell":
        return cell(**given)
    if function == "dynamic_rnn":
        return tf1.nn.dynamic_rnn(cell, **given)
    cell_bw = tf1_cells.build(error["cell_bw"], "float32")
    return tf1.nn.bidirectional_dynamic_rnn(cell, cell_bw, **given)


def raised(error: dict[str, Any]) -> str | None:
    """The name of the class that is raised, or None if nothing is."""
    with tf1.Graph().as_default(), tf1.Session() as session:
        try:
            results = _call(error)
            session.run(tf1.global_variables_initializer())
            session.run([leaf for _, leaf in trees.leaves(results)])
        except Exception as exception:
            return type(exception).__name__
    return None
