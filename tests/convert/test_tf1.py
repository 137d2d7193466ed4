"""Names of TensorFlow's variables, of cells alone, wrapped, stacked and of users.

The names are those of real graphs, in `golden/convert/tf1_*.json`. `golden/record/`
has the program that recorded them, `convert_names.py`.
"""

import dataclasses
import functools
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, KINDS
from helpers import Around, assert_same, bound, drawn, refusals

import jaxrnn
from jaxrnn import GRUCell, LSTMCell, MultiRNNCell, ResidualWrapper, contrib
from jaxrnn.convert import from_tf1, to_tf1

from ..golden import replay, store

# These have no parameters, or kernels without rows for the inputs.
LACKED = re.compile("_memory|linear_attention|_added")
HERE = pathlib.Path(__file__).parents[1] / "golden" / "convert"
STEP = jax.ShapeDtypeStruct((1, 3), jnp.float32)


def graphs(kind):
    """For each graph the shapes, or places in the parameters, of its variables."""
    return json.loads((HERE / f"tf1_{kind}.json").read_text())


@dataclasses.dataclass(frozen=True, eq=False)
class PreNet(Around):
    """A dense layer before a cell, which has the scope of its class or its name."""

    name: str | None = None

    def init(self, key, inputs, dtype=None):
        hidden = jax.ShapeDtypeStruct((*inputs.shape[:-1], 2), inputs.dtype)
        kernel = jnp.ones((inputs.shape[-1], 2), dtype or inputs.dtype)
        return {"prenet": kernel, "cell": self.cell.init(key, hidden, dtype)}


@dataclasses.dataclass(frozen=True, eq=False)
class Gated(jaxrnn.RNNCell):
    """Two cells of one kind, the second of which TensorFlow numbers."""

    first: jaxrnn.RNNCell
    second: jaxrnn.RNNCell

    state_size = output_size = property(lambda self: (4, 4))
    apply = None

    def init(self, key, inputs, dtype=None):
        init = lambda cell: cell.init(key, inputs, dtype)
        return {"first": init(self.first), "second": init(self.second)}


def attention(cell, depth, size, make=contrib.LuongAttention, **options):
    return contrib.AttentionWrapper(cell, make(4, memory_depth=depth, **options), size)


LUONG = attention(LSTMCell(4), 6, 5, scale=True)
MECHANISMS = [contrib.BahdanauAttention(4, d, normalize=True) for d in (6, 2)]
LAYERS = [attention(GRUCell(4), depth, 5) for depth in (6, 2)]
BASIC, RESIDUAL = jaxrnn.BasicLSTMCell(3), ResidualWrapper(jaxrnn.BasicLSTMCell(3))
CELLS = {
    "named": LSTMCell(4, name="enc"),
    "named_in_a_stack": MultiRNNCell([GRUCell(4, name="low"), GRUCell(4)]),
    "residual": RESIDUAL,
    "residual_in_a_stack": MultiRNNCell([BASIC, RESIDUAL]),
    "users": PreNet(LSTMCell(4)),
    "users_named": PreNet(PreNet(GRUCell(4), "inner"), "outer"),
    "users_of_a_stack": PreNet(MultiRNNCell([GRUCell(4), PreNet(GRUCell(4))])),
    "two_of_a_kind": Gated(GRUCell(4), GRUCell(4, name="gru_cell_1")),
    "decoder": LUONG,
    "scoped": LUONG,
    "several": contrib.AttentionWrapper(GRUCell(4), MECHANISMS, [5, 3]),
    "stacked": MultiRNNCell(LAYERS),
}
# Of the cell and of its mechanisms, where these are not "rnn" and none.
SCOPES = {
    "decoder": ("decoder", ""),
    "scoped": ("model/decoding/decoder", "model/decoding"),
}
# Of users and of attention, numbered so that each variable differs.
VARIABLES = {
    graph: {full: np.full(shape, i, "f") for i, (full, shape) in enumerate(own.items())}
    for graph, own in (graphs("names") | graphs("attention")).items()
}


def there_and_back(variables, cell, scope="rnn", inputs=STEP, memory=""):
    """Assert that `from_tf1` and `to_tf1` are the inverse of each other."""
    where = {"at": scope} | ({"memory_at": memory} if memory else {})
    loaded = from_tf1(variables, cell=cell, inputs=inputs, **where)
    assert loaded.cell == cell
    saved = to_tf1(loaded, **where)
    # The `output_layer` of a decoder is not the cell's.
    assert_same(saved, {k: x for k, x in variables.items() if "/dense/" not in k})
    return loaded.params


@pytest.mark.parametrize("graph", VARIABLES)
def test_graphs(graph):
    scope, memory = SCOPES.get(graph, ("rnn", ""))
    there_and_back(VARIABLES[graph], CELLS[graph], scope, memory=memory)


# Cells of contrib: the golden of each setting holds its parameters.
PLACES = graphs("contrib")


@functools.cache
def recorded():
    return {
        f"{case['family']}/{case['name']}": case
        for path in sorted((store.HERE / "contrib").glob("*.json"))
        for case in store.recorded("contrib", path.stem)["cases"]
    }


def test_each_setting_of_a_cell_has_its_names():
    settings = {json.dumps(case["cell"]) for case in recorded().values()}
    assert settings == {json.dumps(recorded()[name]["cell"]) for name in PLACES}


@pytest.mark.fast(*{name.split("/")[0]: name for name in PLACES}.values())
@pytest.mark.parametrize("name", PLACES)
def test_graphs_of_contrib(name):
    case, places = recorded()[name], PLACES[name]
    params, inputs = (replay.golden(case, key) for key in ("params", "inputs"))
    if case["function"] not in ("cell", "fused"):  # Inputs of a whole sequence.
        inputs = jax.tree.map(lambda x: x[0] if case["time_major"] else x[:, 0], inputs)
    by_place = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    variables = {full: by_place[place] for full, place in places.items()}
    scope = "rnn" if all(full.startswith("rnn/") for full in places) else ""
    cell = replay.build(case["cell"])
    assert_same(there_and_back(variables, cell, scope, inputs), params)


@pytest.mark.fast(*KINDS.values())
@pytest.mark.parametrize("name", [n for n in CASES if not LACKED.search(n)])
def test_each_cell_there_and_back(name):
    case = CASES[name]
    params = drawn(case.cell, case.inputs)
    saved = to_tf1(case.cell.bind(params), at="rnn")
    assert_same(there_and_back(saved, case.cell, inputs=case.inputs), params)


def test_what_lies_beside_the_cell_is_ignored():
    """Also slots of a memory layer."""
    slots = {"memory_layer/kernel/Adam": np.ones(1), "memory_layer_1/kernel": 1}
    for cell, scope, beside in (
        (contrib.UGRNNCell(3), "rnn", {"rnn/dense/kernel": 1}),
        (LUONG, "decoder", slots),
    ):
        variables = to_tf1(bound(cell), at=scope)
        load = functools.partial(from_tf1, at=scope, cell=cell, inputs=STEP)
        assert_same(load(variables | beside), load(variables))


# What holds the variables, and names.


class Reader:
    """As `tf.train.load_checkpoint` gives it."""

    def __init__(self, arrays):
        self.arrays, self.read = arrays, []

    def get_variable_to_shape_map(self):
        return {name: list(array.shape) for name, array in self.arrays.items()}

    def get_tensor(self, name):
        self.read.append(name)
        return self.arrays[name]


def test_reads_a_checkpoint_and_names_with_the_number_of_their_output():
    cell = bound(GRUCell(3))
    saved = to_tf1(cell)
    more = {f"{name}/Adam": array for name, array in saved.items()}
    reader = Reader(saved | more | {"beta1_power": np.ones(())})
    load = functools.partial(from_tf1, cell=cell.cell, inputs=STEP)
    assert_same(load(reader), cell)
    assert sorted(reader.read) == sorted(saved)  # And nothing else.
    numbered = {f"{name}:0": array for name, array in reader.arrays.items()}
    assert_same(load(numbered), cell)


def test_a_cell_at_two_places():
    """It is saved at both, as if two cells had the same parameters."""
    shared = MultiRNNCell([ResidualWrapper(GRUCell(3, "relu"))] * 2)
    saved = to_tf1(bound(shared))
    load = lambda given: from_tf1(given, cell=shared, inputs=STEP)
    first = {name: array for name, array in saved.items() if "/cell_0/" in name}
    for given in (saved, first):  # TensorFlow itself stores the first copy alone.
        assert_same(load(given), bound(shared))
    other = {name.replace("cell_0", "cell_1"): 2 * x for name, x in first.items()}
    with pytest.raises(ValueError, match=r"cell_1.* must equal .*cell_0.* same object"):
        load(first | other)


def test_one_object_for_both_directions():
    """TensorFlow creates its variables in the scope of the forward direction."""
    fw = LSTMCell(4)
    cell, bw = bound(fw), jaxrnn.DropoutWrapper(fw)
    saved = to_tf1(cell, at="bidirectional_rnn/fw")
    options = {"at": "bidirectional_rnn", "inputs": STEP}
    load = lambda given, bw=bw: from_tf1(given, cell=(fw, bw), **options)
    assert_same(load(saved), ((cell,), (bw.bind(cell.params),)))
    # Old versions have variables for each direction.
    other = {name.replace("/fw/", "/bw/"): 2 * x for name, x in saved.items()}
    (_,), (backward,) = load(saved | other)
    assert_same(backward.params, jax.tree.map(lambda x: 2 * x, cell.params))
    with pytest.raises(ValueError, match=r"`variables` must .* one cell for both"):
        load(saved, LSTMCell(4))


# `test_refusals.py` has more.
SEVERAL, GRU = VARIABLES["several"].copy(), to_tf1(bound(GRUCell(4)), at="rnn")
SCOPED = VARIABLES["scoped"], LUONG, SCOPES["scoped"][0]
UNNAMED = Gated(GRUCell(4), GRUCell(4))
del SEVERAL["memory_layer_1/kernel"]
load = lambda *given, **options: lambda: there_and_back(*given, **options)
WIDE = jax.ShapeDtypeStruct((2, 9), "f")
test_refusals = refusals(
    [
        (ValueError, "memory_layer", load(*SCOPED)),
        (ValueError, "memory_layer_1/kernel", load(SEVERAL, CELLS["several"])),
        (ValueError, "`cell` must", lambda: to_tf1(bound(UNNAMED))),
        (ValueError, "`rnn/gru_cell/", load(GRU, GRUCell(4), inputs=WIDE)),
    ]
)
