"""Writes `tests/golden/convert/tf1_names.json`: the names of variables of users' cells.

It runs on TensorFlow 2.21 with `tf_keras`:

    python tests/golden/generate/make_convert_names.py

For each cell of `CELLS` there are the shapes of its variables under their names.
"""

import os
import pathlib
import sys
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

GOLDEN = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(GOLDEN.parent))

import tensorflow as tf  # noqa: E402
from golden.generate import variable_names  # noqa: E402

tf1 = tf.compat.v1
cells = tf1.nn.rnn_cell
PATH = GOLDEN / "convert" / "tf1_names.json"


class PreNet(cells.RNNCell):
    """A dense layer before a cell, which has the scope of its class or its name."""

    def __init__(self, cell: Any, name: str | None = None):
        super().__init__(name=name)
        self.cell = cell

    state_size = property(lambda self: self.cell.state_size)
    output_size = property(lambda self: self.cell.output_size)

    def build(self, shape: Any) -> None:
        """Makes the dense layer's kernel."""
        self.prenet = self.add_variable("prenet", [shape[-1], 2])
        self.built = True

    def call(self, inputs: Any, state: Any) -> Any:
        """A step."""
        return self.cell(tf.nn.relu(inputs @ self.prenet), state)


class Gated(cells.RNNCell):
    """Two cells of one kind, the second of which TensorFlow numbers."""

    def __init__(self):
        super().__init__()
        self.first, self.second = cells.GRUCell(4), cells.GRUCell(4)

    state_size = property(lambda self: (4, 4))
    output_size = property(lambda self: 4)

    def call(self, inputs: Any, state: Any) -> Any:
        """A step."""
        first, state_1 = self.first(inputs, state[0])
        second, state_2 = self.second(inputs, state[1])
        return first * second, (state_1, state_2)


CELLS = {
    "named": lambda: cells.LSTMCell(4, name="enc"),
    "named_in_a_stack": lambda: cells.MultiRNNCell(
        [cells.GRUCell(4, name="low"), cells.GRUCell(4)]
    ),
    "residual": lambda: cells.ResidualWrapper(cells.BasicLSTMCell(3)),
    "residual_in_a_stack": lambda: cells.MultiRNNCell(
        [cells.BasicLSTMCell(3), cells.ResidualWrapper(cells.BasicLSTMCell(3))]
    ),
    "users": lambda: PreNet(cells.LSTMCell(4)),
    "users_named": lambda: PreNet(PreNet(cells.GRUCell(4), "inner"), "outer"),
    "users_of_a_stack": lambda: PreNet(
        cells.MultiRNNCell([cells.GRUCell(4), PreNet(cells.GRUCell(4))])
    ),
    "two_of_a_kind": Gated,
}


def main() -> None:
    """Writes the file."""
    run = lambda cell: tf1.nn.dynamic_rnn(cell, tf.ones((2, 3, 3)), dtype=tf.float32)
    graphs = {name: lambda make=make: run(make()) for name, make in CELLS.items()}
    variable_names.write(PATH, graphs)


if __name__ == "__main__":
    main()
