"""The names of the variables that TensorFlow makes for graphs, as a file of JSON."""

import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

tf1 = tf.compat.v1


def write(path: pathlib.Path, graphs: Mapping[str, Callable[[], Any]]) -> None:
    """Writes for each graph the shapes of its variables under their names."""
    tf1.disable_eager_execution()
    found = {}
    for name, build in graphs.items():
        with tf1.Graph().as_default():
            build()
            found[name] = {
                v.name.removesuffix(":0"): v.shape.as_list()
                for v in tf1.trainable_variables()
            }
    lines = [
        f"{json.dumps(name)}: {{\n"
        + ",\n".join(f" {json.dumps(n)}: {json.dumps(s)}" for n, s in shapes.items())
        + "\n}"
        for name, shapes in found.items()
    ]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
