"""`save` and `load` of every cell; names of users' cells as TensorFlow gives them.

The names, and how to record them anew: `golden/generate/make_convert_names.py`.
"""

import dataclasses
import json
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES
from helpers import bound, drawn

import jaxrnn
from jaxrnn import (
    BasicLSTMCell,
    GRUCell,
    LSTMCell,
    MultiRNNCell,
    ResidualWrapper,
    contrib,
)
from jaxrnn.convert import tf1

FILE = pathlib.Path(__file__).parents[1] / "golden" / "convert" / "tf1_names.json"
GRAPHS = json.loads(FILE.read_text())
STEP = jax.ShapeDtypeStruct((1, 3), jnp.float32)


class PreNet(jaxrnn.RNNCell):
    """A dense layer before a cell, which has the scope of its class or its name."""

    def __init__(self, cell, name=None):
        self.cell, self.name = cell, name

    state_size = property(lambda self: self.cell.state_size)
    output_size = property(lambda self: self.cell.output_size)

    def init(self, key, inputs, dtype=None):
        hidden = jax.ShapeDtypeStruct((*inputs.shape[:-1], 2), inputs.dtype)
        kernel = jnp.ones((inputs.shape[-1], 2), dtype or inputs.dtype)
        return {"prenet": kernel, "cell": self.cell.init(key, hidden, dtype)}

    def zero_state(self, batch_size, dtype):
        return self.cell.zero_state(batch_size, dtype)

    def apply(self, params, inputs, state, key=None):
        hidden = jax.nn.relu(inputs @ params["prenet"])
        return self.cell.apply(params["cell"], hidden, state, key)


@dataclasses.dataclass(frozen=True, eq=False)
class Gated(jaxrnn.RNNCell):
    """Two cells of one kind, the second of which TensorFlow numbers."""

    first: jaxrnn.RNNCell
    second: jaxrnn.RNNCell

    state_size = output_size = property(lambda self: (4, 4))

    def init(self, key, inputs, dtype=None):
        init = lambda cell: cell.init(key, inputs, dtype)
        return {"first": init(self.first), "second": init(self.second)}

    def apply(self, params, inputs, state, key=None):
        raise NotImplementedError


CELLS = {
    "named": LSTMCell(4, name="enc"),
    "named_in_a_stack": MultiRNNCell([GRUCell(4, name="low"), GRUCell(4)]),
    "residual": ResidualWrapper(BasicLSTMCell(3)),
    "residual_in_a_stack": MultiRNNCell(
        [BasicLSTMCell(3), ResidualWrapper(BasicLSTMCell(3))]
    ),
    "users": PreNet(LSTMCell(4)),
    "users_named": PreNet(PreNet(GRUCell(4), "inner"), "outer"),
    "users_of_a_stack": PreNet(MultiRNNCell([GRUCell(4), PreNet(GRUCell(4))])),
    "two_of_a_kind": Gated(GRUCell(4), GRUCell(4, name="gru_cell_1")),
}


def there_and_back(variables, scope, cell, inputs=STEP, **options):
    """Asserts that `load` and `save` are the inverse of each other."""
    where = {k: v for k, v in options.items() if k == "memory_scope"}
    loaded = tf1.load(variables, scope, cell=cell, inputs=inputs, **where)
    saved = tf1.save(loaded, scope, **options)
    assert saved.keys() == variables.keys()
    for name, array in variables.items():
        np.testing.assert_array_equal(saved[name], array, strict=True)
    return loaded


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graphs_variables_give_the_cell_and_back(name):
    variables = {
        full: np.full(shape, i, np.float32)
        for i, (full, shape) in enumerate(GRAPHS[name].items())
    }
    there_and_back(variables, "rnn", CELLS[name])


@pytest.mark.parametrize("name", CASES)
def test_each_cell_there_and_back(name):
    case = CASES[name]
    hyper = ("forget_bias", "activation", "cell_clip", "proj_clip")
    options = {k: getattr(case.cell, k) for k in hyper if hasattr(case.cell, k)}
    params = drawn(case.cell, case.inputs)
    saved = tf1.save(case.cell.bind(params), **options)
    loaded = there_and_back(saved, "rnn", case.cell, case.inputs, **options)
    assert loaded.cell == case.cell
    chex.assert_trees_all_equal(loaded.params, params)


def test_layers_that_differ_are_saved_as_they_are_loaded():
    """No argument of `load` gives both of them, so it is given the cell."""
    stack = MultiRNNCell([LSTMCell(4, forget_bias=0.0), LSTMCell(4, forget_bias=0.5)])
    there_and_back(tf1.save(bound(stack)), "rnn", stack)


@pytest.mark.parametrize("memory_scope", ["", "model"])
def test_attention_inside_a_users_wrapper(memory_scope):
    mechanism = contrib.LuongAttention(4, memory_depth=6)
    attention = contrib.AttentionWrapper(GRUCell(4), mechanism, 5)
    saved = tf1.save(bound(PreNet(attention)), "decoder", memory_scope=memory_scope)
    memory = f"{memory_scope}/memory_layer/kernel".removeprefix("/")
    inner = "decoder/pre_net/attention_wrapper"
    assert saved.keys() == {
        memory,
        "decoder/pre_net/prenet",
        f"{inner}/attention_layer/kernel",
        *(f"{inner}/gru_cell/{x}/kernel" for x in ("gates", "candidate")),
        *(f"{inner}/gru_cell/{x}/bias" for x in ("gates", "candidate")),
    }
    there_and_back(saved, "decoder", PreNet(attention), memory_scope=memory_scope)


class Renamed(PreNet):
    """One whose parameters are not under the name of the attribute that it holds."""

    def init(self, key, inputs, dtype=None):
        params = super().init(key, inputs, dtype)
        return {"prenet": params["prenet"], "inner": params["cell"]}


def test_a_memory_scope_without_attention_in_sight():
    attention = contrib.AttentionWrapper(GRUCell(4), contrib.LuongAttention(4, 6), 5)
    for cell in (Renamed(attention), GRUCell(4)):
        message = "`memory_scope` must be omitted for a cell without an"
        with pytest.raises(ValueError, match=message):
            tf1.save(bound(cell), memory_scope="model")
        with pytest.raises(ValueError, match=message):
            tf1.load({}, cell=cell, inputs=STEP, memory_scope="model")


def test_the_second_stack_in_a_scope_is_numbered():
    stack = bound(MultiRNNCell([GRUCell(4), GRUCell(3)]))
    renamed = {
        name.replace("multi_rnn_cell", "multi_rnn_cell_1"): array
        for name, array in tf1.save(stack).items()
    }
    chex.assert_trees_all_equal(tf1.load(renamed).params, stack.params)


class _Hidden(PreNet):
    """TensorFlow puts "private" before the name."""


def test_a_private_class():
    names = tf1.save(bound(_Hidden(GRUCell(2))))
    assert {name.split("/")[1] for name in names} == {"private__hidden"}


def test_two_cells_of_one_scope_need_names():
    cell = Gated(GRUCell(4), GRUCell(4))
    match = "`cell` must have one variable of each name, got two `rnn/.*gru_cell"
    with pytest.raises(ValueError, match=match):
        tf1.save(bound(cell))
