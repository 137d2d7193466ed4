"""Records `convert/tf1_*.json`: the names of variables in graphs of TensorFlow 1.

It needs what `contrib_sources.py` needs:

    python -m tests.golden.record.convert_names WHEEL

`tf1_names.json` and `tf1_attention.json` hold the shapes of the variables of each
graph, by name. `tf1_contrib.json` holds, for the first case of each setting of
contrib's cells, the keys of jaxrnn's parameters by the names of the variables.
"""

import json
from collections.abc import Callable
from typing import Any

from .. import store
from . import contrib as recorded, graphs
from .contrib_sources import contrib
from .graphs import Case, tf, tf1

BATCH, TIME, DEPTH = 2, 3, 3
FOLDER = store.HERE / "convert"
nn, attention = tf1.nn.rnn_cell, contrib.attention_wrapper


class PreNet(nn.RNNCell):
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


class Gated(nn.RNNCell):
    """Two cells of one kind, the second of which TensorFlow numbers."""

    state_size, output_size = (4, 4), 4

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.GRUCell(4), nn.GRUCell(4)

    def call(self, inputs: Any, state: Any) -> Any:
        """A step."""
        first, state_1 = self.first(inputs, state[0])
        second, state_2 = self.second(inputs, state[1])
        return first * second, (state_1, state_2)


CELLS = {
    "named": lambda: nn.LSTMCell(4, name="enc"),
    "named_in_a_stack": lambda: nn.MultiRNNCell(
        [nn.GRUCell(4, name="low"), nn.GRUCell(4)]
    ),
    "residual": lambda: nn.ResidualWrapper(nn.BasicLSTMCell(3)),
    "residual_in_a_stack": lambda: nn.MultiRNNCell(
        [nn.BasicLSTMCell(3), nn.ResidualWrapper(nn.BasicLSTMCell(3))]
    ),
    "users": lambda: PreNet(nn.LSTMCell(4)),
    "users_named": lambda: PreNet(PreNet(nn.GRUCell(4), "inner"), "outer"),
    "users_of_a_stack": lambda: PreNet(
        nn.MultiRNNCell([nn.GRUCell(4), PreNet(nn.GRUCell(4))])
    ),
    "two_of_a_kind": Gated,
}


def decoder() -> None:
    """`dynamic_decode`, with mechanism and `output_layer` as scripts have them."""
    mechanism = attention.LuongAttention(4, tf.zeros((BATCH, 5, 6)), scale=True)
    cell = attention.AttentionWrapper(nn.LSTMCell(4), mechanism, 5)
    inputs = tf.zeros((BATCH, TIME, DEPTH))
    helper = contrib.helper.TrainingHelper(inputs, [TIME] * BATCH)
    # The layer is from `tf.layers`, whose class the decoder accepts.
    layer = attention.layers_core.Dense(7)
    model = cell, helper, cell.zero_state(BATCH, tf.float32), layer
    contrib.decoder.dynamic_decode(contrib.basic_decoder.BasicDecoder(*model))


def scoped() -> None:
    """The same, all of it in a scope of the script's."""
    with tf1.variable_scope("model/decoding"):
        decoder()


def attending(kind: Any, memories: Any, sizes: Any, **options: Any) -> Any:
    """A cell that attends to one memory, or to a list of them."""
    mechanism = lambda shape: kind(4, tf.zeros((BATCH, *shape)), **options)
    several = isinstance(memories, list)
    mechanisms = [mechanism(m) for m in memories] if several else mechanism(memories)
    return attention.AttentionWrapper(nn.GRUCell(4), mechanisms, sizes)


def several() -> None:
    """`dynamic_rnn` with two mechanisms of one kind."""
    kind, memories = attention.BahdanauAttention, [(5, 6), (7, 2)]
    over_time(attending(kind, memories, [5, 3], normalize=True))


def stacked() -> None:
    """`dynamic_rnn` of a stack, each layer of which attends."""
    kind, memories = attention.LuongAttention, ((5, 6), (7, 2))
    over_time(nn.MultiRNNCell([attending(kind, memory, 5) for memory in memories]))


def over_time(cell: Any) -> None:
    """A graph of `dynamic_rnn`."""
    options = {"initial_state": cell.zero_state(BATCH, tf.float32), "dtype": tf.float32}
    tf1.nn.dynamic_rnn(cell, tf.zeros((BATCH, TIME, DEPTH)), **options)


def write(file: str, named: dict[str, Callable[[], Any]]) -> None:
    """Writes for each graph the shapes of its variables under their names."""
    parts = []
    for name, build in named.items():
        with tf1.Graph().as_default():
            build()
            lines = [
                f" {json.dumps(v.name.removesuffix(':0'))}: {v.shape.as_list()}"
                for v in tf1.trainable_variables()
            ]
        parts.append(f"{json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n}")
    (FOLDER / file).write_text("{\n" + ",\n".join(parts) + "\n}\n")


def keys_of(case: Case) -> dict[str, str]:
    """The keys of the parameters of a case's graph, by the variables' names."""
    with tf1.Graph().as_default():
        given, _, call = recorded.build(case, graphs.Draw(case))
        _, weights = call(graphs.placeholders(given))
        paths = {v.name: path for path, v in graphs.trees.leaves(weights["params"])}
        names = [variable.name for variable in tf1.trainable_variables()]
    return {name.removesuffix(":0"): paths[name][1:] for name in names}


def settings() -> dict[str, Case]:
    """The first case of each setting of a cell."""
    found: dict[str, Case] = {}
    for family in recorded.FAMILIES:
        for case in store.recorded("contrib", family)["cases"]:
            named = {f"{family}/{case['name']}": case}
            found |= (
                {} if case["cell"] in [c["cell"] for c in found.values()] else named
            )
    return found


if __name__ == "__main__":
    over = {name: lambda make=make: over_time(make()) for name, make in CELLS.items()}
    write("tf1_names.json", over)
    graphs_of_attention = (decoder, scoped, several, stacked)
    write("tf1_attention.json", {f.__name__: f for f in graphs_of_attention})
    keys = {name: keys_of(case) for name, case in settings().items()}
    (FOLDER / "tf1_contrib.json").write_text(json.dumps(keys, indent=1) + "\n")
