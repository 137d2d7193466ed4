"""What holds for the weights of every library, and what only PyTorch and Keras have."""

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, bound

import jaxrnn
from jaxrnn import GRUCell, LSTMCell, LSTMStateTuple, MultiRNNCell, contrib, convert
from jaxrnn.convert._gates import GatedCudnnGRUCell, GatedGRUCell, GatedLSTMCell

UNITS = 4
FREE = LSTMCell(UNITS, forget_bias=0)  # What most libraries have.
PEEPING = LSTMCell(UNITS, forget_bias=0, use_peepholes=True)
PROJECTED = LSTMCell(UNITS, forget_bias=0, num_proj=2)
GRU, AFTER = GRUCell(UNITS), jaxrnn.CudnnCompatibleGRUCell(UNITS)
RNN, RELU = jaxrnn.BasicRNNCell(UNITS), jaxrnn.BasicRNNCell(UNITS, activation="relu")
COUPLED = contrib.CoupledInputForgetGateLSTMCell(UNITS, True, forget_bias=0)
GATED = GatedCudnnGRUCell, GatedGRUCell, functools.partial(GatedLSTMCell, forget_bias=0)
HARD = {"recurrent_activation": "hard_sigmoid"}


class Converter(NamedTuple):
    """The two functions of a library, and the cells of its kinds of layers."""

    load: Callable
    save: Callable
    cells: dict[str, Any]  # By kind, as `load` returns them.
    of_rnn: dict[str, str] | None = None  # What `load` needs to know of a plain RNN.


# nnx's GRU lacks a bias, so that only some cells return (`test_peers.py`).
NNX = {"lstm": FREE, "rnn": RNN}
OPTIMIZED = functools.partial(convert.to_nnx, optimized=True)
TANH = {"activation": "tanh"}
# A new converter enters all tests of all libraries by its row.
CONVERTERS = {
    "equinox": Converter(
        convert.from_equinox, convert.to_equinox, {"lstm": FREE, "gru": AFTER}
    ),
    "haiku": Converter(
        convert.from_haiku,
        convert.to_haiku,
        {"lstm": LSTMCell(UNITS), "gru": GRU, "rnn": RELU},
    ),
    "keras": Converter(
        convert.from_keras,
        convert.to_keras,
        {"lstm": FREE, "gru": AFTER, "gru_before": GRU, "rnn": RNN},
        TANH,
    ),
    "linen": Converter(convert.from_flax, convert.to_linen, NNX | {"gru": AFTER}, TANH),
    "nnx": Converter(convert.from_flax, convert.to_nnx, NNX, TANH),
    "nnx_optimized": Converter(convert.from_flax, OPTIMIZED, {"lstm": FREE}),
    "onnx": Converter(
        convert.from_onnx,
        convert.to_onnx_nodes,
        {"lstm": PEEPING, "coupled": COUPLED, "gru": GRU, "gru_after": AFTER}
        | {"rnn": RNN},
    ),
    "tf1": Converter(
        convert.from_tf1,
        convert.to_tf1,
        {"lstm": LSTMCell(UNITS, num_proj=2), "gru": GRU, "gru_after": AFTER}
        | {"rnn": RNN},
    ),
    "torch": Converter(
        convert.from_torch,
        convert.to_torch,
        {"lstm": PROJECTED, "gru": AFTER, "rnn": RNN},
        {"nonlinearity": "tanh"},
    ),
}
ALL = list(CONVERTERS)
NOT_TF1 = [name for name in ALL if name != "tf1"]
TWO_WAYS = [
    name
    for name, own in CONVERTERS.items()
    if "bidirectional" in inspect.signature(own.load).parameters
]
# One layer in one direction of each kind, and, for the first kind of each library, of
# all kinds the directions and the stacks.
KINDS = [f"{name}-{kind}" for name, own in CONVERTERS.items() for kind in own.cells]
CASES = [
    f"{name}-{directions}-{layers}"
    for name in KINDS
    for directions in ("one", "both")
    for layers in ("layer", "stack")
    if directions == "one" or name.split("-")[0] in TWO_WAYS
]
every_kind = pytest.mark.parametrize("name", KINDS)


def copies(*cells):
    """Layers that share no parameters."""
    return [dataclasses.replace(cell) for cell in cells]


def stack(*cells):
    return MultiRNNCell(copies(*cells))


def case(name):
    """The functions of a library, and a cell or a pair that they convert."""
    name, kind, directions, layers, *_ = [*name.split("-"), "one", "layer"]
    own, count = CONVERTERS[name], 1 + (layers == "stack")
    fw, bw = (copies(*[own.cells[kind]] * count) for _ in range(2))
    cells = (fw, bw) if directions == "both" else MultiRNNCell(fw)
    cells = fw[0] if directions == "one" and layers == "layer" else cells
    options = own.of_rnn or {} if kind == "rnn" else {}
    if name == "tf1":
        inputs = jax.ShapeDtypeStruct((1, 3), np.float32)
        options = {"cell": cells, "inputs": inputs}
    return functools.partial(own.load, **options), own.save, bind(cells)


def bind(cells, dtype="bfloat16"):
    """Random parameters of a cell, or of the layers of two directions."""
    if not isinstance(cells, tuple):
        return bound(cells, dtype=dtype)
    depths = [3, *(2 * cell.output_size for cell in cells[0])]
    return tuple(
        tuple(
            bound(cell, depth, dtype, seed)
            for cell, depth in zip(side, depths[: len(side)], strict=True)
        )
        for seed, side in enumerate(cells)
    )


def is_array(leaf):
    return isinstance(leaf, np.ndarray | jax.Array)


@pytest.mark.fast("*-one-layer", "*-lstm-*-stack")
@pytest.mark.parametrize("name", CASES)
def test_there_and_back(name):
    """With and without `bidirectional`, which must fit the weights."""
    load, save, cells = case(name)
    saved = save(cells)
    loaded = load(saved)
    assert_same(loaded, cells)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(loaded))
    arrays = filter(is_array, jax.tree.leaves(saved))
    assert all(isinstance(array, np.ndarray) for array in arrays)
    if name.split("-")[0] in TWO_WAYS:
        both = "both" in name
        assert_same(load(saved, bidirectional=both), cells)
        match = f"^`bidirectional` must be None or {both}"
        with pytest.raises(ValueError, match=match):
            load(saved, bidirectional=not both)


# The converter, the cells, and options. Other kinds of cells are in `CONVERTERS` and,
# in float64, in `test_goldens.py` and `test_peers.py`.
ROWS = [
    ("haiku", stack(*[GRU] * 11), {}),  # Sorted names are in another order.
    ("keras", ([AFTER, GRU], copies(AFTER, GRU)), {}),
    # Kinds may differ from layer to layer, activations between the directions.
    ("onnx", ([RELU], [RNN]), {}),
    ("onnx", ([RNN, PEEPING], copies(RNN, PEEPING)), {}),
    ("onnx", stack(*(cell(UNITS, **HARD) for cell in GATED)), {}),
    ("tf1", stack(GRU, LSTMCell(UNITS)), {"inputs": jnp.ones((1, 3))}),
]


@pytest.mark.parametrize(("name", "cells", "options"), ROWS)
def test_mixed_layers(name, cells, options):
    own, options = CONVERTERS[name], options | ({"cell": cells} if options else {})
    cells = bind(cells)
    assert_same(own.load(own.save(cells), **options), cells)


@pytest.mark.parametrize("name", NOT_TF1)
def test_a_forget_bias_moves_into_the_bias(name):
    """All but the constant that the library adds at run time, in the bias's dtype."""
    own = CONVERTERS[name]
    cell = bound(jaxrnn.BasicLSTMCell(UNITS, forget_bias=1.5), dtype="bfloat16")
    again = own.load(own.save(cell))
    added = 1.0 if name == "haiku" else 0.0
    assert again.cell == LSTMCell(UNITS, forget_bias=added)
    i, j, f, o = np.split(cell.params["bias"].astype(np.float64), 4)
    want = np.concatenate([i, j, f + (1.5 - added), o]).astype(jnp.bfloat16)
    np.testing.assert_array_equal(again.params["bias"], want, strict=True)


@pytest.mark.fast("torch-lstm", "keras-lstm", "onnx-lstm")
@every_kind
def test_there_and_back_under_jit(name):
    """The same bits as of concrete weights; some weights may stay concrete."""
    load, save, cell = case(name)
    leaves, tree = jax.tree.flatten(save(cell))
    arrays = {i: leaf for i, leaf in enumerate(leaves) if is_array(leaf)}

    @jax.jit
    def load_traced(traced):
        own = [traced.get(i, leaf) for i, leaf in enumerate(leaves)]
        return load(tree.unflatten(own))

    @jax.jit
    def save_traced(params):
        return list(filter(is_array, jax.tree.leaves(save(cell.cell.bind(params)))))

    for traced in (arrays, dict(list(arrays.items())[1:2])):
        assert_same(load_traced(traced), cell)
    assert_same(save_traced(cell.params), list(arrays.values()))


@every_kind
def test_each_weight_is_checked(name):
    """For one dtype and a mask, also in the cell that is saved."""
    load, save, cell = case(name)
    other = lambda array: np.asarray(array, np.float32)
    masked = lambda array: np.ma.masked_greater(array, 0)
    save_params = lambda params: save(cell.cell.bind(params))
    for call, whole in ((load, save(cell)), (save_params, cell.params)):
        leaves, tree = jax.tree.flatten(whole)
        for i in [i for i, leaf in enumerate(leaves) if is_array(leaf)]:
            for change in (other, masked):
                changed = [*leaves[:i], change(leaves[i]), *leaves[i + 1 :]]
                with pytest.raises(TypeError, match=r"^`.*` must be"):
                    call(tree.unflatten(changed))


@every_kind
def test_wrappers_without_a_key_are_looked_through(name):
    """Also around the cells of a stack."""
    _, save, cell = case(name)
    wrapped = jaxrnn.DropoutWrapper(cell.cell, 0.5)
    assert_same(save(wrapped.bind(cell.params)), save(cell))
    stack = lambda own: save(MultiRNNCell([own]).bind({"cell_0": cell.params}))
    assert_same(stack(wrapped), stack(cell.cell))


# Where the weights are: on the device.


def test_a_loaded_cell_does_not_share_memory_with_the_weights():
    """Also if their bytes are in the other order."""
    load, save, cell = case("tf1-lstm")
    cell = bound(cell.cell)
    weights = {name: np.array(array) for name, array in save(cell).items()}
    foreign = {k: x.astype(x.dtype.newbyteorder(">")) for k, x in weights.items()}
    assert_same(load(foreign), cell)
    loaded = load(weights)
    for array in weights.values():
        array[...] = 9
    assert_same(loaded, cell)


def test_float64_without_x64():
    """It runs as float32, but its numbers stay."""
    weights = convert.to_keras(bound(FREE))
    with jax.enable_x64(False):
        loaded = convert.from_keras(weights)
        assert_same(convert.to_keras(loaded), weights)
        x = np.ones((2, 5, 3), np.float32)
        assert jaxrnn.dynamic_rnn(loaded, x, dtype=x.dtype)[0].dtype == np.float32


# PyTorch: tensors, models around a module, and states of modules.


@dataclasses.dataclass
class Tensor:
    """A tensor with what converters may use of PyTorch's, and its refusals."""

    array: np.ndarray
    dtype: str
    on_cpu: bool = False
    attached: bool = True

    def detach(self):
        return dataclasses.replace(self, attached=False)

    def cpu(self):
        return dataclasses.replace(self, on_cpu=True)

    def float(self):
        array = self.array.astype(np.float32)
        return dataclasses.replace(self, array=array, dtype="torch.float32")

    def __array__(self, dtype=None, copy=None):
        if self.dtype == "torch.bfloat16" or not self.on_cpu or self.attached:
            raise TypeError("Can't convert")
        return self.array


def test_tensors_of_torch():
    cell = bound(PROJECTED, dtype="bfloat16")
    weights = convert.to_torch(cell)
    assert all(array.flags.writeable for array in weights.values())
    tensors = {k: Tensor(v, "torch.bfloat16") for k, v in weights.items()}
    assert_same(convert.from_torch(tensors), cell)


@pytest.mark.parametrize("cell", [FREE, AFTER])
def test_what_files_of_torch_hold(cell):
    """Cells whose layer has no number, no biases, and other modules."""
    weights = convert.to_torch(bound(cell), at="a")
    load = lambda x: convert.from_torch(x, at="a")
    own = {name.removesuffix("_l0"): array for name, array in weights.items()}
    more = {"weight": 1, "bias_ih_scale": 1, "b.weight_ih_l0": 1, "weight_ih_l0": 1}
    for given in (own, weights | more):
        assert_same(load(given), bound(cell))
    zeros = {k: x * (0 if "bias" in k else 1) for k, x in weights.items()}
    without = {k: x for k, x in weights.items() if "bias" not in k}
    assert_same(load(without), load(zeros))


# What pruning, parametrizations, weight norm and dropping wrappers make of a weight,
# and what other equations have.
UNKNOWN = [
    *("weight_ih_l0_orig", "parametrizations.weight_ih_l0.original", "weight_ih_l0_g"),
    *("weight_ih_l0_raw", "weight_ch", "layernorm_i.weight", "h0"),
]


@pytest.mark.parametrize("name", UNKNOWN)
def test_more_weights_of_torch_are_refused(name):
    weights = convert.to_torch(bound(FREE), at="a")
    with pytest.raises(ValueError, match=re.escape(f"a.{name}")):
        convert.from_torch(weights | {f"a.{name}": np.ones(2)}, at="a")


def test_one_bias_without_the_other_is_refused():
    """Also in one layer or one direction; the message has full names."""
    weights = convert.to_torch(([bound(AFTER)], [bound(AFTER)]), at="a")
    for name in [name for name in weights if "bias" in name]:
        given = {k: x for k, x in weights.items() if k != name}
        with pytest.raises(ValueError, match=rf"^`{name}` is missing.*a\.weight_ih_l0"):
            convert.from_torch(given, at="a")


def test_torch_states_of_two_layers_in_two_directions_under_jit():
    h, c = (jnp.arange(24.0).reshape(4, 2, 3) + i for i in range(2))
    load, save = (
        functools.partial(convert_state, bidirectional=True)
        for convert_state in (convert.from_torch_state, convert.to_torch_state)
    )
    fw, bw = jax.jit(load)((h, c))
    assert len(fw) == len(bw) == 2
    chex.assert_trees_all_equal(fw[1], LSTMStateTuple(c[2], h[2]))
    chex.assert_trees_all_equal(save((fw, bw)), (h, c))
    layer, bare = save(([fw[0]], [bw[0]])), save((fw[0], bw[0]))
    chex.assert_trees_all_equal(bare, layer, (h[:2], c[:2]))
    one = convert.from_torch_state(h[:1])
    chex.assert_trees_all_equal(convert.to_torch_state(one), h[:1])


# Keras: gates without sigmoids, whose numbers `test_onnx_nodes.py` compares.


@pytest.mark.parametrize("make", GATED)
def test_other_gates_of_keras(make):
    hard = {"recurrent_activation": jax.nn.hard_sigmoid}  # Of Keras 3.
    cell = bound(make(UNITS, **hard))
    assert_same(convert.from_keras(convert.to_keras(cell), **hard), cell)
    plain = bound(RELU)  # It has no gates.
    hard["activation"] = "relu"
    assert_same(convert.from_keras(convert.to_keras(plain), **hard), plain)


# Flax.


def test_directions_of_flax_may_be_merged_in_any_way():
    """Here they are added."""
    pairs = [[bound(FREE, depth, seed=i) for i in range(2)] for depth in (3, UNITS)]
    modules = [convert.to_linen(tuple(pair)) for pair in pairs]
    params = {f"layers_{i}": module for i, module in enumerate(modules)}
    assert_same(convert.from_flax(params), tuple(zip(*pairs, strict=True)))
