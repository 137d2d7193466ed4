"""Variables of TensorFlow's v1 cells give the cells that TensorFlow ran.

The golden, and how to make it anew: `golden/generate/make_convert_tf1.py`.
"""

import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
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
