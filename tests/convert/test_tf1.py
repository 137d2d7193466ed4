"""Variables of TensorFlow's v1 cells give the cells that TensorFlow ran.

The golden, and how to make it anew: `golden/generate/make_convert_tf1.py`.
"""

import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from convert_checks import messages
from helpers import bound, with_prefix

import jaxrnn
from jaxrnn.convert import tf1
from jaxrnn.testing._oracle import weighted_sum

FILE = pathlib.Path(__file__).parents[1] / "golden" / "convert" / "tf1.npz"
RTOL, ATOL = 1e-12, 1e-13
STACKED = "stack_bidirectional_rnn"
# The scope of each case, and what TensorFlow's cells were given besides.
CASES = {
    "stack": ("rnn", {"cell_clip": 0.4, "proj_clip": 0.2}),
    "scoped": ("encoder/lstm", {"forget_bias": 0.25, "activation": "relu"}),
    "wrapped": ("rnn", {}),
    "both_ways": ("bidirectional_rnn", {}),
    "stack_both_ways": (STACKED, {}),
}
ONE_WAY = [name for name in CASES if "both" not in name]


GOLDEN = dict(np.load(FILE))
VARIABLES = {name: with_prefix(f"{name}/variables/", GOLDEN) for name in CASES}


def load(case):
    scope, options = CASES[case]
    both = case not in ONE_WAY
    return tf1.load(VARIABLES[case], scope, bidirectional=both, **options)


def save(cells, case):
    scope, options = CASES[case]
    if isinstance(cells, tuple):
        return tf1.save(cells, scope, bidirectional=True, **options)
    return tf1.save(cells, scope, **options)


def run(case, cells, x):
    if case in ONE_WAY:
        return jaxrnn.dynamic_rnn(cells, x, dtype=x.dtype)
    if case == "both_ways":
        (fw,), (bw,) = cells
        return jaxrnn.bidirectional_dynamic_rnn(fw, bw, x, dtype=x.dtype)
    made = jaxrnn.stack_bidirectional_dynamic_rnn(*cells, x, dtype=x.dtype)
    outputs, *states = made
    return outputs, tuple(zip(*states, strict=True))


def assert_near(got, want):
    np.testing.assert_allclose(got, want, RTOL, ATOL)


@pytest.mark.fast("scoped", "stack_both_ways")
@pytest.mark.parametrize("case", CASES)
def test_same_as_tensorflow(case):
    def loss(cells, x):
        results = run(case, cells, x)
        # Leaf by leaf, as make_convert_tf1.py weighs them.
        return sum(map(weighted_sum, jax.tree.leaves(results))), results

    golden = with_prefix(f"{case}/", GOLDEN)
    x = jnp.asarray(golden["inputs"])
    by_all = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
    (slopes, slope), results = by_all(load(case), x)
    for key, tree in zip(("outputs", "states"), results, strict=True):
        for i, leaf in enumerate(jax.tree.leaves(tree)):
            assert_near(leaf, golden[f"{key}/{i}"])
    want = with_prefix("gradients/", golden)
    assert_near(slope, want.pop("inputs"))
    got = save(slopes, case)
    assert got.keys() == want.keys()
    for name, array in want.items():
        assert_near(got[name], array)


@pytest.mark.parametrize("case", CASES)
def test_there_and_back_are_the_same_bits(case):
    variables, cells = VARIABLES[case], load(case)
    saved = save(cells, case)
    assert saved.keys() == {k for k in variables if "Adam" not in k and "beta" not in k}
    for name, array in saved.items():
        np.testing.assert_array_equal(array, variables[name], strict=True)


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
    want = tf1.save(load("wrapped"))
    reader = Reader(VARIABLES["wrapped"])
    numbered = {f"{name}:0": array for name, array in VARIABLES["wrapped"].items()}
    for variables in (reader, numbered):
        got = tf1.save(tf1.load(variables))
        assert got.keys() == want.keys()
        chex.assert_trees_all_equal(got, want)
    assert sorted(reader.read) == sorted(want)  # And nothing else.


SHAPES = {
    "basic_rnn_cell": jaxrnn.BasicRNNCell(4),
    "basic_lstm_cell": jaxrnn.BasicLSTMCell(4, 0.5),
    "lstm_cell": jaxrnn.LSTMCell(4, use_peepholes=True, num_proj=2, forget_bias=0.5),
    "gru_cell": jaxrnn.GRUCell(4),
    "cudnn_compatible_gru_cell": jaxrnn.CudnnCompatibleGRUCell(4),
}


def test_the_names_of_contrib():
    """As `tf.contrib.cudnn_rnn` has them; `CudnnLSTM` adds no forget bias."""
    shapes = {
        "gates/kernel": (7, 8),
        "gates/bias": (8,),
        "candidate/input_projection/kernel": (3, 4),
        "candidate/input_projection/bias": (4,),
        "candidate/hidden_projection/kernel": (4, 4),
        "candidate/hidden_projection/bias": (4,),
    }
    arrays = {
        f"rnn/cudnn_compatible_gru_cell/{k}": np.ones(v) for k, v in shapes.items()
    }
    assert tf1.load(arrays).cell == jaxrnn.CudnnCompatibleGRUCell(4)
    name = "a/rnn/multi_rnn_cell/cell_0/cudnn_compatible_lstm_cell"
    arrays = {f"{name}/kernel": np.ones((7, 16)), f"{name}/bias": np.ones(16)}
    kind = "cudnn_compatible_lstm_cell"
    want = jaxrnn.MultiRNNCell([jaxrnn.LSTMCell(4, forget_bias=0, name=kind)])
    back = tf1.load(arrays, "a/rnn")
    assert back.cell == want
    assert tf1.save(back, "a/rnn").keys() == arrays.keys()


def test_a_cell_at_two_places_is_saved_at_both():
    cell = jaxrnn.GRUCell(3)
    stack = bound(jaxrnn.MultiRNNCell([cell, cell]))
    saved = tf1.save(stack)
    back = tf1.load(saved)
    assert back.params.keys() == {"cell_0", "cell_1"}
    for params in back.params.values():
        chex.assert_trees_all_equal(params, stack.params["cell_0"])


# Refusals.

LSTM, STACK, BOTH = (VARIABLES[name] for name in ("scoped", "stack", "both_ways"))
CELL, SLOT = "encoder/lstm/lstm_cell", "rnn/lstm_cell/kernel/Adam:0"


def without(variables, *names):
    return {k: v for k, v in variables.items() if k not in names}


def changed(**more):
    named = {f"{CELL}/{name.replace('__', '/')}": value for name, value in more.items()}
    return lambda: tf1.load(LSTM | named, "encoder/lstm")


GRU = bound(jaxrnn.GRUCell(3))
VALUES = {
    "`scope` must contain a variable, got 'rnn'. Found: beta1_power,": lambda: tf1.load(
        LSTM
    ),
    "Found: rnn/lstm_cell/kernel.$": lambda: tf1.load(
        dict.fromkeys(["rnn/lstm_cell/kernel", SLOT], 0), "decoder"
    ),
    "`encoder` must hold one of basic_rnn_cell, gru_cell,": lambda: tf1.load(
        LSTM, "encoder"
    ),
    "`rnn` must hold one of basic_rnn_cell, gru_cell,": lambda: tf1.load(
        {f"rnn/{k}/bias": np.ones(4) for k in ("lstm_cell", "lstm_cell_1")}
    ),
    "`bidirectional_rnn` must hold one direction, got bw, fw. Pass `bidi": lambda: (
        tf1.load(BOTH, "bidirectional_rnn")
    ),
    "must hold one direction, got cell_0, cell_1. Pass `bidirectional": lambda: (
        tf1.load(VARIABLES["stack_both_ways"], STACKED)
    ),
    "`rnn` must hold two directions, fw and bw, got multi_rnn_cell. Omit": lambda: (
        tf1.load(STACK, "rnn", bidirectional=True)
    ),
    "`bw` is missing. Found: fw": lambda: tf1.load(
        {k: v for k, v in BOTH.items() if "/bw/" not in k}, bidirectional=True
    ),
    f"`{CELL}/bias` is missing. Found: kernel": lambda: tf1.load(
        without(LSTM, *(f"{CELL}/bias{slot}" for slot in ("", "/Adam", "/Adam_1"))),
        "encoder/lstm",
    ),
    f"must hold the variables of `cell`; missing: {CELL}/w_i_diag": lambda: tf1.load(
        {k: v for k, v in LSTM.items() if "w_i_diag" not in k}, "encoder/lstm"
    ),
    f"must hold the variables of `cell`; unknown: {CELL}/gamma": changed(
        gamma=np.ones(3)
    ),
    "`cell_1` is missing. Found: cell_0, cell_2, cell_3": lambda: tf1.load(
        {k: v for k, v in STACK.items() if "cell_1" not in k}
    ),
    "`rnn` must hold the variables of `cell`; unknown:": lambda: tf1.load(
        STACK | {"rnn/multi_rnn_cell/cell_0/glstm_cell/kernel": np.ones(3)}
    ),
    rf"`{CELL}/kernel` must have shape \[4, 12\], got float64\[4, 8\]": changed(
        kernel=np.ones((4, 8))
    ),
    rf"`{CELL}/bias` must have 4 blocks of equal size, got 13": changed(
        bias=np.ones(13)
    ),
    rf"`{CELL}/kernel` must have .* and 2 rows for the state, got 1": changed(
        kernel=np.ones((1, 12))
    ),
    rf"`{CELL}/projection/kernel` must have shape \[3, any\], got .*\[2, 2\]": changed(
        projection__kernel=np.ones((2, 2))
    ),
    "`cell_clip` must be None, since there is no lstm_cell .*, got 1.0": lambda: (
        tf1.load(VARIABLES["wrapped"], cell_clip=1.0)
    ),
    r"`cell` must hold params\['bias'\], params\['kernel'\]; missing:": lambda: (
        tf1.save(jaxrnn.LSTMCell(3).bind({"bias": np.ones(12)}))
    ),
    r"`cell` must have forget_bias 1.0, the argument of `save`,": lambda: tf1.save(
        bound(jaxrnn.LSTMCell(3, forget_bias=0))
    ),
    r"`cell.cells\[1\]` must have forget_bias 1.0": lambda: tf1.save(
        bound(jaxrnn.MultiRNNCell([GRU.cell, jaxrnn.BasicLSTMCell(3, 0.5)]))
    ),
    r"`cell` must have activation tanh, the argument of `save`, got relu": lambda: (
        tf1.save(bound(jaxrnn.GRUCell(3, activation="relu")))
    ),
    r"`cells_bw\[0\]` must have cell_clip None, .*, got 2.0": lambda: tf1.save(
        (GRU, bound(jaxrnn.LSTMCell(3, cell_clip=2))), bidirectional=True
    ),
}
TYPES = {
    "`variables` must be a dict of weights, got 3": lambda: tf1.load(3),
}
test_messages = messages(VALUES, TYPES)
