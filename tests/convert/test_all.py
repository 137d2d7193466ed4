"""What holds for the weights of every library, and what only PyTorch and Keras have."""

import dataclasses
import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, bound

import jaxrnn
from jaxrnn import GRUCell, LSTMCell, LSTMStateTuple, MultiRNNCell, contrib, convert
from jaxrnn.convert import torch
from jaxrnn.convert._gates import GatedCudnnGRUCell, GatedGRUCell, GatedLSTMCell

UNITS = 4
FREE = LSTMCell(UNITS, forget_bias=0)  # What most libraries have.
PEEPING = LSTMCell(UNITS, forget_bias=0, use_peepholes=True)
PROJECTED = LSTMCell(UNITS, forget_bias=0, num_proj=2)
GRU, AFTER = GRUCell(UNITS), jaxrnn.CudnnCompatibleGRUCell(UNITS)
RNN, RELU = jaxrnn.BasicRNNCell(UNITS), jaxrnn.BasicRNNCell(UNITS, activation="relu")
GATED = GatedCudnnGRUCell, GatedGRUCell, functools.partial(GatedLSTMCell, forget_bias=0)
HARD = {"recurrent_activation": "hard_sigmoid"}
BOTH = {"bidirectional": True}
ALL = [name for name in convert.__all__ if name != "transformers"]  # No cells.
NOT_TF1 = [name for name in ALL if name != "tf1"]

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


def copies(*cells):
    """Layers that share no parameters."""
    return [dataclasses.replace(cell) for cell in cells]


def stack(*cells):
    return MultiRNNCell(copies(*cells))


def library(name):
    return getattr(convert, name.split("_")[0])


def given(name, cells):
    """The arguments of `load` that `tf1` and plain RNNs ask for."""
    if name.startswith("tf1"):
        return {"cell": cells, "inputs": jax.ShapeDtypeStruct((1, 3), np.float32)}
    return {"activation": "tanh"} if name.endswith("rnn") else {}


def is_array(leaf):
    return isinstance(leaf, np.ndarray | jax.Array)


# The library, the cells, and the options of `save` and of `load`. Other kinds of cells
# are in `CELLS` and, in float64, in `test_goldens.py` and `test_peers.py`.
ROWS = [
    ("haiku", stack(*[GRU] * 11), {}),  # Sorted names are in another order.
    ("keras", ([AFTER, GRU], copies(AFTER, GRU)), BOTH),
    # Kinds may differ from layer to layer, activations between the directions.
    ("onnx", ([RELU], [RNN]), BOTH),
    ("onnx", ([RNN, PEEPING], copies(RNN, PEEPING)), BOTH),
    ("onnx", contrib.CoupledInputForgetGateLSTMCell(UNITS, True, forget_bias=0), {}),
    ("onnx", stack(*(cell(UNITS, **HARD) for cell in GATED)), {}),
    ("tf1", stack(GRU, LSTMCell(UNITS)), {"scope": ""}),
]


@pytest.mark.parametrize(("name", "cells", "options"), ROWS)
def test_load_takes_what_save_gives(name, cells, options):
    bind, of_tf1 = functools.partial(bound, dtype="bfloat16"), given(name, cells)
    if isinstance(cells, tuple):
        depths = [3, *(2 * cell.output_size for cell in cells[0])]
        other = functools.partial(bind, seed=1)
        cells = tuple(map(bind, cells[0], depths)), tuple(map(other, cells[1], depths))
    else:
        cells = bind(cells)
    saved = library(name).save(cells, **options)
    assert_same(library(name).load(saved, **options, **of_tf1), cells)


@pytest.mark.parametrize("name", NOT_TF1)
def test_a_forget_bias_moves_into_the_bias(name):
    """All but the constant that the library adds at run time, in the bias's dtype."""
    cell = bound(jaxrnn.BasicLSTMCell(UNITS, forget_bias=1.5), dtype="bfloat16")
    again = library(name).load(library(name).save(cell))
    added = 1.0 if name == "haiku" else 0.0
    assert again.cell == LSTMCell(UNITS, forget_bias=added)
    i, j, f, o = np.split(cell.params["bias"].astype(np.float64), 4)
    want = np.concatenate([i, j, f + (1.5 - added), o]).astype(jnp.bfloat16)
    np.testing.assert_array_equal(again.params["bias"], want, strict=True)


@every_cell
def test_there_and_back_under_jit(name):
    """The same bits as of concrete weights; some weights may stay concrete."""
    load, save = library(name).load, library(name).save
    options, cell = given(name, CELLS[name]), bound(CELLS[name], dtype="bfloat16")
    leaves, tree = jax.tree.flatten(save(cell))
    arrays = {i: leaf for i, leaf in enumerate(leaves) if is_array(leaf)}

    @jax.jit
    def load_traced(traced):
        own = [traced.get(i, leaf) for i, leaf in enumerate(leaves)]
        return load(tree.unflatten(own), **options)

    @jax.jit
    def save_traced(params):
        return list(filter(is_array, jax.tree.leaves(save(cell.cell.bind(params)))))

    for traced in (arrays, dict(list(arrays.items())[1:2])):
        assert_same(load_traced(traced), cell)
    assert_same(save_traced(cell.params), list(arrays.values()))


@every_cell
def test_each_weight_is_checked(name):
    """For one dtype and a mask, also in the cell that `save` gets."""
    cell, save = bound(CELLS[name]), library(name).save
    load = functools.partial(library(name).load, **given(name, CELLS[name]))
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


@every_cell
def test_wrappers_without_a_key_are_looked_through(name):
    """Also around the cells of a stack."""
    save, cell = library(name).save, bound(CELLS[name])
    wrapped = jaxrnn.DropoutWrapper(cell.cell, 0.5)
    assert_same(save(wrapped.bind(cell.params)), save(cell))
    stack = lambda own: save(MultiRNNCell([own]).bind({"cell_0": cell.params}))
    assert_same(stack(wrapped), stack(cell.cell))


@pytest.mark.parametrize("name", ["keras", "linen", "nnx", "onnx", "tf1", "torch"])
def test_one_layer_of_two_directions_needs_no_lists(name):
    cells, own = (FREE, LSTMCell(UNITS, forget_bias=0)), library(name)
    fw, bw = bound(cells[0]), bound(cells[1], seed=1)
    saved = own.save((fw, bw), **BOTH)
    assert_same(saved, own.save(([fw], [bw]), **BOTH))
    assert_same(own.load(saved, **BOTH, **given(name, cells)), ((fw,), (bw,)))


# Where the weights are: on the device.


@every_cell
def test_a_second_call_does_not_transfer_the_weights(name):
    cell = bound(CELLS[name])
    loaded = library(name).load(library(name).save(cell), **given(name, CELLS[name]))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(loaded))
    run = jax.jit(lambda cell, x: jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)[0])
    x = jnp.ones((2, 5, 3))
    want = run(loaded, x)
    with jax.transfer_guard("disallow"):
        got = run(loaded, x)
    np.testing.assert_array_equal(got, want)
    saved = filter(is_array, jax.tree.leaves(library(name).save(loaded)))
    assert all(isinstance(array, np.ndarray) for array in saved)


def test_convolutions_are_on_the_device():
    cell = contrib.Conv1DLSTMCell(
        input_shape=[4, 2], output_channels=1, kernel_shape=[3]
    )
    params = {"kernel": np.ones((3, 3, 4)), "biases": np.ones(4)}
    saved = convert.haiku.save(cell.bind(params))
    loaded = convert.haiku.load(saved, input_shape=[4])
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(loaded))


def test_big_endian_weights():
    cell = bound(LSTMCell(UNITS))
    weights = convert.tf1.save(cell)
    foreign = {k: x.astype(x.dtype.newbyteorder(">")) for k, x in weights.items()}
    options = given("tf1", cell.cell)
    assert_same(
        convert.tf1.load(foreign, **options), convert.tf1.load(weights, **options)
    )


def test_a_loaded_cell_does_not_share_memory_with_the_weights():
    weights = convert.tf1.save(bound(LSTMCell(UNITS)))
    weights = {name: np.array(array) for name, array in weights.items()}
    loaded = convert.tf1.load(weights, **given("tf1", LSTMCell(UNITS)))
    for array in weights.values():
        array[...] = 9
    assert_same(loaded, bound(LSTMCell(UNITS)))


def test_float64_without_x64():
    """It runs as float32, but its numbers stay."""
    weights = convert.keras.save(bound(FREE))
    with jax.enable_x64(False):
        loaded = convert.keras.load(weights)
        assert_same(convert.keras.save(loaded), weights)
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


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tensors_of_torch(dtype):
    cell = bound(PROJECTED, dtype=dtype)
    weights = torch.save(cell)
    assert all(array.flags.writeable for array in weights.values())
    tensors = {k: Tensor(v, f"torch.{dtype}") for k, v in weights.items()}
    assert_same(torch.load(tensors), cell)


@pytest.mark.parametrize("cell", [FREE, AFTER, RNN])
def test_what_files_of_torch_hold(cell):
    """Cells whose layer has no number, no biases, and other modules, also inside."""
    activation = "tanh" if cell is RNN else None
    weights = torch.save(bound(cell), "a.")
    load = lambda given: torch.load(given, "a.", activation)
    own = {name.removesuffix("_l0"): array for name, array in weights.items()}
    more = {"weight": 1, "bias_ih_scale": 1, "b.weight_ih_l0": 1, "b.weight_x": 1}
    for place in ("", "a.inner."):
        more |= {f"{place}weight_ih_l0": 1, f"{place}weight_hh_l0": 1}
    for given in (own, weights | more):
        assert_same(load(given), bound(cell))
    zeros = {k: x * (0 if "bias" in k else 1) for k, x in weights.items()}
    assert_same(
        load({k: x for k, x in weights.items() if "bias" not in k}), load(zeros)
    )


# What PyTorch's utilities, and a wrapper, make of the weights of a module at "a.".
RENAMED = {
    "pruned": ("{0}_orig", "{0}_mask"),
    "parametrized": ("parametrizations.{0}.original",),
    "weight norm": tuple(f"parametrizations.{{0}}.original{i}" for i in range(2)),
    "old weight norm": ("{0}_g", "{0}_v"),
}


@pytest.mark.parametrize("options", RENAMED)
@pytest.mark.parametrize("weight", ["weight_ih_l0", "weight_hh_l0", "bias_hh_l1"])
@pytest.mark.parametrize("prefix", ["", "a."])
def test_weights_that_torch_renamed_are_refused(options, weight, prefix):
    made = torch.save(bound(stack(FREE, FREE)), prefix)
    array = made.pop(prefix + weight)
    made |= {prefix + name.format(weight): array for name in RENAMED[options]}
    with pytest.raises(ValueError, match=re.escape(RENAMED[options][0].format(weight))):
        torch.load(made, prefix)


@pytest.mark.parametrize("name", ["weight_ch", "bias_l0", "layernorm_i.weight", "h0"])
def test_weights_of_other_equations_are_refused(name):
    weights = torch.save(bound(FREE), "a.")
    with pytest.raises(ValueError, match=f"got a.{name}"):
        torch.load(weights | {f"a.{name}": np.ones(2)}, "a.")
    root = torch.save(bound(FREE))
    if "." in name:  # Of another module, beside the weights of the root.
        assert_same(torch.load(root | {name: np.ones(2)}), bound(FREE))
    else:
        with pytest.raises(ValueError, match=f"got {name}"):
            torch.load(root | {name: np.ones(2)})


@pytest.mark.parametrize("outer", ["a.", "a.module."])
def test_the_dropped_weights_of_a_wrapper_are_refused(outer):
    """The trained weights are beside the dropped ones, or in the wrapper."""
    made = torch.save(bound(PROJECTED), outer)
    raw = {"a.weight_hh_l0_raw": made[f"{outer}weight_hh_l0"]}
    with pytest.raises(ValueError, match=r"a\.weight_hh_l0_raw"):
        torch.load(made | raw, outer)
    assert_same(torch.load(made, outer), bound(PROJECTED))


def test_one_bias_without_the_other_is_refused():
    """Also in one layer or one direction; the message has full names."""
    weights = torch.save(([bound(AFTER)], [bound(AFTER)]), "a.", **BOTH)
    for name in [name for name in weights if "bias" in name]:
        given = {k: x for k, x in weights.items() if k != name}
        with pytest.raises(ValueError, match=rf"^`{name}` is missing.*a\.weight_ih_l0"):
            torch.load(given, "a.", **BOTH)


@pytest.mark.parametrize("name", ["keras", "linen", "nnx", "torch"])
def test_a_plain_rnn_needs_its_activation(name):
    """Its weights do not tell whether it has tanh or relu."""
    argument = "nonlinearity" if name == "torch" else "activation"
    for cell, activation in ((RNN, "tanh"), (RELU, "relu")):
        saved = library(name).save(bound(cell))
        loaded = library(name).load(saved, **{argument: activation})
        assert_same(loaded, bound(jaxrnn.BasicRNNCell(UNITS, activation)))
        with pytest.raises(ValueError, match=f"^`{argument}` must be given"):
            library(name).load(saved)


def test_torch_states_of_two_layers_in_two_directions_under_jit():
    h, c = (jnp.arange(24.0).reshape(4, 2, 3) + i for i in range(2))
    fw, bw = jax.jit(functools.partial(torch.load_state, **BOTH))((h, c))
    assert len(fw) == len(bw) == 2
    chex.assert_trees_all_equal(fw[1], LSTMStateTuple(c[2], h[2]))
    chex.assert_trees_all_equal(torch.save_state((fw, bw), **BOTH), (h, c))
    layer = torch.save_state(([fw[0]], [bw[0]]), **BOTH)
    bare = torch.save_state((fw[0], bw[0]), **BOTH)
    chex.assert_trees_all_equal(bare, layer, (h[:2], c[:2]))
    one = torch.load_state(h[:1])
    chex.assert_trees_all_equal(torch.save_state(one), h[:1])


# Keras: gates without sigmoids, whose numbers `test_onnx_nodes.py` compares.


@pytest.mark.parametrize("make", GATED)
def test_other_gates_of_keras(make):
    hard = {"recurrent_activation": jax.nn.hard_sigmoid}  # Of Keras 3.
    cell = bound(make(UNITS, **hard))
    assert_same(convert.keras.load(convert.keras.save(cell), **hard), cell)
    plain = bound(RELU)  # It has no gates.
    hard["activation"] = "relu"
    assert_same(convert.keras.load(convert.keras.save(plain), **hard), plain)
