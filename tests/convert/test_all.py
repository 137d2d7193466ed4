"""What holds for the weights of every library."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, bound

from jaxrnn import (
    BasicLSTMCell,
    BasicRNNCell,
    CudnnCompatibleGRUCell,
    DropoutWrapper,
    GRUCell,
    LSTMCell,
    MultiRNNCell,
    convert,
)
from jaxrnn.contrib import CoupledInputForgetGateLSTMCell

UNITS = 4
FREE = LSTMCell(UNITS, forget_bias=0)  # What most libraries have.
PEEPING = LSTMCell(UNITS, forget_bias=0, use_peepholes=True)
PROJECTED = LSTMCell(UNITS, forget_bias=0, num_proj=2)
GRU, AFTER = GRUCell(UNITS), CudnnCompatibleGRUCell(UNITS)
RNN, RELU = BasicRNNCell(UNITS), BasicRNNCell(UNITS, activation="relu")
COUPLED = CoupledInputForgetGateLSTMCell(UNITS, use_peepholes=True, forget_bias=0)
BOTH = {"bidirectional": True}
FULL = LSTMCell(UNITS, use_peepholes=True, num_proj=2, forget_bias=0.5)

# A cell for each way in which a library keeps weights, as `load` gives it.
CELLS = {
    "equinox": FREE,
    "equinox_gru": AFTER,
    "haiku": LSTMCell(UNITS),
    "haiku_gru": GRU,
    "keras": FREE,
    "keras_gru": AFTER,
    "linen": FREE,
    "nnx": FREE,
    "nnx_rnn": RNN,
    "onnx": PEEPING,
    "tf1": LSTMCell(UNITS, num_proj=2),
    "tf1_gru": AFTER,
    "torch": PROJECTED,
    "torch_gru": AFTER,
}
every_cell = pytest.mark.parametrize("name", CELLS)


def stack(*cells):
    """Layers that share no parameters."""
    return MultiRNNCell([dataclasses.replace(cell) for cell in cells])


def sides(*cells, **of_backward):
    """The layers of two directions."""
    return cells, [dataclasses.replace(cell, **of_backward) for cell in cells]


def library(name):
    return getattr(convert, name.split("_")[0])


def given(name, cells):
    """The arguments of `load` that `tf1` asks for."""
    tf1 = {"cell": cells, "inputs": jax.ShapeDtypeStruct((1, 3), np.float32)}
    return tf1 if name.startswith("tf1") else {}


def is_array(leaf):
    return isinstance(leaf, np.ndarray | jax.Array)


# The library, the cells, and the options of `save` and of `load`. Other kinds of cells
# are in `test_goldens.py` and `test_peers.py`, in float64.
ROWS = [(name, cell, {}, {}) for name, cell in CELLS.items()]
ROWS += [
    ("haiku", stack(*[GRU] * 11), {}, {}),  # Sorted names are in another order.
    ("keras", stack(FREE, GRU, AFTER), {}, {}),
    ("keras", sides(AFTER, GRU), BOTH, BOTH),
    ("nnx", FREE, {"optimized": True}, {}),
    ("nnx", sides(FREE, FREE), BOTH, BOTH),
    ("onnx", GRUCell(UNITS, activation="softplus"), {}, {}),
    ("onnx", COUPLED, {}, {}),
    ("onnx", stack(PEEPING, GRU, AFTER), {}, {}),
    # Kinds may differ from layer to layer, activations between the directions.
    ("onnx", sides(RELU, activation="tanh"), BOTH, BOTH),
    ("onnx", sides(RNN, PEEPING), BOTH, BOTH),
    *[("tf1", cell, {}, {}) for cell in (RNN, GRU)],
    *[("tf1", cell, {}, {}) for cell in (BasicLSTMCell(UNITS, 0.5), FULL, RELU)],
    ("tf1", stack(GRU, LSTMCell(UNITS)), {"scope": ""}, {"scope": ""}),
    ("tf1", sides(LSTMCell(UNITS), GRU), BOTH, BOTH),
]


@pytest.mark.parametrize(("name", "cells", "to", "of"), ROWS)
def test_load_takes_what_save_gives(name, cells, to, of):
    bind = functools.partial(bound, dtype="bfloat16")
    of = of | given(name, cells)
    if isinstance(cells, tuple):
        depths = [3, *(2 * cell.output_size for cell in cells[0])]
        cells = tuple(
            tuple(map(functools.partial(bind, seed=i), side, depths))
            for i, side in enumerate(cells)
        )
    else:
        cells = bind(cells)
    again = library(name).load(library(name).save(cells, **to), **of)
    assert_same(again, cells)


@pytest.mark.parametrize("name", [name for name in convert.__all__ if name != "tf1"])
def test_a_forget_bias_moves_into_the_bias(name):
    """All but the constant that the library adds at run time."""
    cell = bound(BasicLSTMCell(UNITS, forget_bias=1.5))
    again = library(name).load(library(name).save(cell))
    added = 1.0 if name == "haiku" else 0.0
    assert again.cell == LSTMCell(UNITS, forget_bias=added)
    i, j, f, o = np.split(cell.params["bias"], 4)
    want = np.concatenate([i, j, f + (1.5 - added), o])
    np.testing.assert_array_equal(again.params["bias"], want)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_a_forget_bias_is_added_in_the_dtype_of_the_bias(dtype):
    cell = bound(LSTMCell(1, forget_bias=0.5), dtype=dtype)
    got = convert.torch.save(cell)["bias_ih_l0"]
    i, j, f, o = cell.params["bias"].astype(np.float64)
    want = np.array([i, f + 0.5, j, o]).astype(dtype)  # PyTorch's order is i, f, j, o.
    np.testing.assert_array_equal(got, want, strict=True)


@every_cell
def test_traced_weights(name):
    """The same bits as of concrete weights; some weights may stay concrete."""
    load, save = library(name).load, library(name).save
    options = given(name, CELLS[name])
    cell = bound(CELLS[name], dtype="float32")
    weights = save(cell)
    leaves, tree = jax.tree.flatten(weights)
    arrays = {i: leaf for i, leaf in enumerate(leaves) if is_array(leaf)}

    @jax.jit
    def load_traced(traced):
        own = [traced.get(i, leaf) for i, leaf in enumerate(leaves)]
        return load(tree.unflatten(own), **options)

    @jax.jit
    def save_traced(params):
        return list(filter(is_array, jax.tree.leaves(save(cell.cell.bind(params)))))

    for traced in (arrays, dict(list(arrays.items())[1:2])):
        assert_same(load_traced(traced), load(weights, **options))
    assert_same(save_traced(cell.params), list(arrays.values()))


@every_cell
def test_weights_of_two_dtypes(name):
    """Each weight separately."""
    leaves, tree = jax.tree.flatten(library(name).save(bound(CELLS[name])))
    for i in [i for i, leaf in enumerate(leaves) if is_array(leaf)]:
        changed = [*leaves[:i], leaves[i].astype(np.float32), *leaves[i + 1 :]]
        with pytest.raises(TypeError, match=r"must be float.* like `.*`, got float"):
            library(name).load(tree.unflatten(changed), **given(name, CELLS[name]))


@pytest.mark.parametrize("name", [name for name in CELLS if name[:3] != "tf1"])
def test_weights_of_no_units(name):
    def emptied(leaf):
        if not is_array(leaf):
            return leaf
        return np.zeros([size if size % UNITS else 0 for size in leaf.shape])

    weights = jax.tree.map(emptied, library(name).save(bound(CELLS[name])))
    with pytest.raises(ValueError, match=r"`.+` must not be empty, got float64"):
        library(name).load(weights)


@every_cell
def test_wrappers_without_a_key_are_looked_through(name):
    """Also around the cells of a stack."""
    cell = bound(CELLS[name])
    wrapped = DropoutWrapper(cell.cell, 0.5)
    assert_same(library(name).save(wrapped.bind(cell.params)), library(name).save(cell))
    stacked = MultiRNNCell([wrapped]).bind({"cell_0": cell.params})
    plain = MultiRNNCell([cell.cell]).bind({"cell_0": cell.params})
    assert_same(library(name).save(stacked), library(name).save(plain))


@pytest.mark.parametrize("name", ["keras", "linen", "nnx", "onnx", "tf1", "torch"])
def test_one_layer_of_two_directions_needs_no_lists(name):
    fw, bw = bound(FREE), bound(LSTMCell(UNITS, forget_bias=0))
    save = functools.partial(library(name).save, bidirectional=True)
    assert_same(save((fw, bw)), save(([fw], [bw])))
