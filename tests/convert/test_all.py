"""What holds for the weights of every library, what only PyTorch has, and refusals."""

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
ALL = convert.__all__
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
    """The arguments of `load` that `tf1` asks for."""
    tf1 = {"cell": cells, "inputs": jax.ShapeDtypeStruct((1, 3), np.float32)}
    return tf1 if name.startswith("tf1") else {}


def is_array(leaf):
    return isinstance(leaf, np.ndarray | jax.Array)


# The library, the cells, and the options of `save` and of `load`. Other kinds of cells
# are in `test_goldens.py` and `test_peers.py`, in float64.
ROWS = [(name, cell, {}) for name, cell in CELLS.items()]
ROWS += [
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
    """All but the constant that the library adds at run time."""
    cell = bound(jaxrnn.BasicLSTMCell(UNITS, forget_bias=1.5))
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


@every_cell
def test_masked_weights(name):
    """Each weight separately, also in the cell that `save` gets."""
    cell = bound(CELLS[name])
    save = library(name).save
    load = functools.partial(library(name).load, **given(name, CELLS[name]))
    for call, tree in (
        (load, save(cell)),
        (lambda p: save(cell.cell.bind(p)), cell.params),
    ):
        leaves, tree = jax.tree.flatten(tree)
        for i in [i for i, leaf in enumerate(leaves) if is_array(leaf)]:
            masked = np.ma.masked_greater(np.asarray(leaves[i]), 0)
            with pytest.raises(
                TypeError, match=r"without a mask. Pass `.*filled\(0\)`"
            ):
                call(tree.unflatten([*leaves[:i], masked, *leaves[i + 1 :]]))


@every_cell
def test_wrappers_without_a_key_are_looked_through(name):
    """Also around the cells of a stack."""
    cell = bound(CELLS[name])
    wrapped = jaxrnn.DropoutWrapper(cell.cell, 0.5)
    assert_same(library(name).save(wrapped.bind(cell.params)), library(name).save(cell))
    stacked = MultiRNNCell([wrapped]).bind({"cell_0": cell.params})
    plain = MultiRNNCell([cell.cell]).bind({"cell_0": cell.params})
    assert_same(library(name).save(stacked), library(name).save(plain))


@pytest.mark.parametrize("name", ["keras", "linen", "nnx", "onnx", "tf1", "torch"])
def test_one_layer_of_two_directions_needs_no_lists(name):
    fw, bw = bound(FREE), bound(LSTMCell(UNITS, forget_bias=0))
    save = functools.partial(library(name).save, bidirectional=True)
    assert_same(save((fw, bw)), save(([fw], [bw])))


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
def test_a_cell_of_torch_and_a_single_bias(cell):
    """An `nn.LSTMCell` does not number its layer. Some files have one sum of biases."""
    weights = torch.save(bound(cell), "a.")
    own = {name.removesuffix("_l0"): array for name, array in weights.items()}
    assert_same(torch.load(own, "a."), bound(cell))
    second = weights.pop("a.bias_hh_l0")
    zeros = weights | {"a.bias_hh_l0": np.zeros_like(second)}
    assert_same(torch.load(weights, "a."), torch.load(zeros, "a."))


def test_other_modules_of_a_model_are_passed_over():
    weights = torch.save(bound(AFTER), "a.")
    more = {"weight": np.ones(2), "a.out.weight_x": np.ones(2), "b.weight_ih_l0": 1}
    assert_same(torch.load(weights | more, "a."), bound(AFTER))


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


# Keras: gates without sigmoids.


def hard(x):
    return np.clip(0.2 * x + 0.5, 0, 1)


def keras_lstm(w, r, b, x):
    h = c = np.zeros((len(x), UNITS))
    for step in np.swapaxes(x, 0, 1):
        i, f, g, o = np.split(step @ w + h @ r + b, 4, -1)
        c = hard(f) * c + hard(i) * np.tanh(g)
        h = hard(o) * np.tanh(c)
    return h


def keras_gru(w, r, b, x):
    after, h = b.ndim == 2, np.zeros((len(x), UNITS))
    of_x, of_h = b if after else (b, np.zeros_like(b))
    for step in np.swapaxes(x, 0, 1):
        z, s, g = np.split(step @ w + of_x, 3, -1)
        u, t, k = np.split(h @ r + of_h, 3, -1)
        z, s = hard(z + u), hard(s + t)
        k = s * k if after else (s * h) @ r[:, 2 * UNITS :]
        h = z * h + (1 - z) * np.tanh(g + k)
    return h


GATES = {"lstm": (keras_lstm, 4, (16,)), "gru": (keras_gru, 3, (12,))}
GATES["gru_after"] = keras_gru, 3, (2, 12)


@pytest.mark.parametrize("kind", GATES)
def test_other_gates_of_keras(kind):
    """With the hard sigmoid of Keras 2, as the equations of Keras."""
    compute, gates, bias = GATES[kind]
    draw = np.random.default_rng(0).normal
    shapes = (3, gates * UNITS), (UNITS, gates * UNITS), bias
    weights = [draw(size=shape) for shape in shapes]
    cell = convert.keras.load(weights, **HARD)
    x = draw(size=(2, 7, 3))
    outputs, _ = jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)
    np.testing.assert_allclose(outputs[:, -1], compute(*weights, x), rtol=0, atol=1e-12)
    assert_same(convert.keras.load(convert.keras.save(cell), **HARD), cell)


# What converters refuse: a row is a change of valid weights, or a cell, and the error.
# `...` in a message stands for any text. A check that libraries share has one row, and
# more only where a library passes its own path or sizes to the check.

ELU, LAYERS = jaxrnn.BasicRNNCell(4, activation="elu"), stack(FREE, FREE, FREE)
FULL = LSTMCell(4, use_peepholes=True, num_proj=3)
ONE, BIAS = np.ones((4, 4)), np.ones(16)


def conv(**options):
    options = {"output_channels": 1, "kernel_shape": [2]} | options
    cell = contrib.Conv1DLSTMCell(input_shape=[4, 2], **options)
    return cell.bind({"kernel": np.ones((2, 3, 4)), "biases": np.ones(4)})


@functools.cache
def saved(name, *cells):
    """The weights of a cell, or of one layer in two directions."""
    cells = tuple(each if hasattr(each, "params") else bound(each) for each in cells)
    save = getattr(convert, name).save
    return save(cells, **BOTH) if len(cells) == 2 else save(*cells)


_ALPHAS = {"activations": ["Sigmoid", "elu", "elu"], "activation_alpha": [1.0, 2.0]}
_HARD = {"activations": ["HardSigmoid"], "activation_beta": [0.4]}
_CELL = "rnn/lstm_cell"

# By a library and the cell whose weights are changed: the change, the error, and other
# arguments of `load`. In a change, a tuple is the shape of an array of ones, and None
# removes a weight.
CHANGES = {
    ("equinox", (AFTER,)): [
        ({"weight_hh": None}, "`cells[0].weight_hh` is missing. Found: weight_ih,"),
        ({"weight_hh": (12, 5)}, "weight_hh` must have 4 or 3 blocks of size 5, "),
    ],
    ("haiku", (LSTMCell(4),)): [
        ({}, "be the name of a core, got 'a'. Found: lstm/", {"name": "a"}),
        ({"lstm/linear/b": (8,)}, "`lstm/linear/w` must have shape [any, 8], got"),
        ({}, "be omitted for cores that", {"input_shape": (4,)}),
        ({}, "`name` must be the name of a module or a list of names", {"name": []}),
        ({"gru": {}}, "`name` must be given unless all cores are in one module"),
    ],
    ("keras", (FREE,)): [
        ({3: ONE, 4: ONE}, "`layers[0]` must hold 2 or 3 weights per direction"),
        ({2: (24,)}, "`layers[0][2]` must have shape [16], got float64[24]"),
        (
            {},
            "`recurrent_activation` must be one of elu",
            {"recurrent_activation": "a"},
        ),
    ],
    ("keras", (FREE, FREE)): [
        (
            {0: (50, 3), 1: (3, 16), 2: (4, 16), 3: (16,), 4: (4, 2), 5: (2,)},
            "must hold the weights of one layer, got [50, 3], [3, 16], ...Pass `layer",
        ),
        ({3: (2, 16)}, "`layers[0]` must have input size 3, ..., got 2", BOTH),
        ({}, "because `layers[0]` has two directions, got False. For two layers,"),
    ],
    ("linen", (AFTER,)): [({"hn": None}, "`params` must hold ..., got no hn/kernel")],
    ("linen", (LAYERS,)): [({"layers_1": None}, "`layers_1` is missing. Found: lay")],
    ("nnx", (FREE,)): [({"dense_i": {}}, "`params/dense_h/kernel` is missing.")],
    ("nnx", (RNN,)): [({"dense_h/kernel": (3, 12)}, "unknown dense_i/bias")],
    ("onnx", (FREE,)): [
        ({"W": None}, "`nodes[0]['W']` is missing. Found: op_type, R, B"),
        (
            {"initial_h": ONE},
            "['initial_h']` must be omitted, ...`initial_h = node.pop",
        ),
        ({"lengths": ONE}, "must hold only op_type, ..., got lengths"),
        ({"R": (1, 12, 4)}, "['R']` must have shape [1, 16, any], got float64[1,"),
        ({"linear_before_reset": 1}, "before_reset']` must be 0 for the operator LSTM"),
        ({"op_type": "GRU"}, "`nodes[0]['op_type']` must be LSTM to match `R` (fl"),
        ({"clip": 104.0}, "`nodes[0]['clip']` must be omitted, because no cell clips"),
        ({"input_forget": 2}, "`nodes[0]['input_forget']` must be 0 or 1, got 2"),
        (_ALPHAS, "`nodes[0]['activation_alpha']` must begin with [1.0, 1.0], got"),
        ({"activations": ["Tanh", "Tanh", "Relu"]}, "be Tanh, Relu, Relu for each dir"),
        (
            {"activations": ["Elu", "Tanh", "Tanh"], "input_forget": 1},
            "be Sigmoid, Tan",
        ),
        ({"direction": "reverse"}, "got 'reverse'. Pass ...`reverse_sequence`"),
    ],
    ("onnx", (AFTER,)): [({"P": (1, 12)}, "['P']` must be omitted for the")],
    ("onnx", (ELU,)): [
        (_HARD, "begin with [0.5], got [0.4]"),
        ({"activations": ["LeakyRelu"]}, "must be Elu or HardSigmoid or Relu"),
        ({"activations": "Tanh"}, "must be a list of names, got 'Tanh'"),
    ],
    ("tf1", (FULL,)): [
        ({}, "begin with 'a/', got rnn/...", {"scope": "a"}),
        ({f"{_CELL}/bias": None}, f"`cell`, got no {_CELL}/bias. Found: {_CELL}/ke"),
        ({}, "`cell` must be the ...Found: rnn/lstm_cell/bias, ", {"cell": None}),
        ({}, "`cell` must be an unbound cell, got BoundCell", {"cell": bound(GRU)}),
        ({}, "begin with 'bidirectional_rnn/fw/'", BOTH | {"cell": [FULL] * 2}),
    ],
    ("torch", (FREE,)): [
        ({}, "`a.weight_ih_l0` is missing. ... Pass `prefix=''`.", {"prefix": "a."}),
        ({}, "`{}0.weight_ih_l0` is missing. ...", {"prefix": "{}0."}),
        ({"weight_hh_l0": None}, "`weight_hh_l0` is missing. ... remove weight norm"),
        ({"weight_ih_l1": (16, 4), "weight_hh_l1": (16, 4)}, "`bias_ih_l1` is missing"),
        ({}, "must have the activation tanh, as in", {"nonlinearity": "relu"}),
        ({}, "`bidirectional` must be True or False", {"bidirectional": "yes"}),
    ],
    ("torch", (RNN,)): [
        ({"weight_hh_l0": [1.0]}, "`weight_hh_l0` must be an array, got [1.0]"),
        ({"weight_hh_l0": (0, 0)}, "`weight_hh_l0` must not be empty, got float64[0"),
        ({"weight_hh_l0": ONE.astype(int)}, "must be floating-point, got int64[4, 4]"),
    ],
    ("torch", (PROJECTED,)): [
        ({"weight_ih_l1": (16, 2), "weight_hh_l1": (16, 2)}, "`weight_hr_l1` is ..."),
    ],
    ("torch", (LAYERS,)): [({"weight_ih_l1": (16, 3)}, "`layers[1]` must have inp")],
}


class OfOnesOwn(LSTMCell):
    """A cell of unknown equations."""


def free(**params):
    return FREE.bind({"kernel": np.ones((7, 16)), "bias": BIAS} | params)


_named_tanh = functools.wraps(np.tanh)(lambda x: x)
_FREE = bound(FREE).params
_PAIR = MultiRNNCell([FREE, LSTMCell(4)]).bind({"cell_0": _FREE})
_MIXED = MultiRNNCell([conv().cell, FREE])
_MIXED = _MIXED.bind({"cell_0": conv().params, "cell_1": _FREE})
_PROJECTED = MultiRNNCell([FREE, LSTMCell(4, num_proj=2)])
_COUPLED, _WRAPPED = (
    contrib.CoupledInputForgetGateLSTMCell(4),
    contrib.HighwayWrapper(FREE),
)
_OTHERS = "equinox haiku linen nnx".split()
_BASE = [*_OTHERS, "keras"]
_KERNEL = "`cell.params['kernel']`"

# The libraries, the cell that `save` gets, or a pair for two directions, and the error.
UNSUPPORTED = [
    (ALL, FREE.bind(None), "`cell.params` must be a dict"),
    (ALL, FREE.bind({"kernel": 1}), "`cell.params` must hold ..., got no bias"),
    (ALL, free(kernel=[[1.0]]), f"{_KERNEL} must be an array, got [[1.0]]"),
    (ALL, free(kernel=np.ones((4, 16))), f"{_KERNEL} must have more rows than the"),
    (ALL, free(bias=BIAS.astype("f")), f"be float64 like {_KERNEL}"),
    (ALL, _PAIR, "`cell.cells[1].params` must"),
    (
        NOT_TF1,
        OfOnesOwn(4),
        "must be one of BasicRNNCell, ...CoupledInputForget... got",
    ),
    (NOT_TF1, jaxrnn.ResidualWrapper(FREE), "`cell` must be one of BasicRNNCell,"),
    ([*_BASE, "torch"], PEEPING, "does not support, got peepholes."),
    ([*_BASE, "onnx"], _PROJECTED, "`cell.cells[1]` must have ..., got projection."),
    (NOT_TF1, LSTMCell(4, cell_clip=3.0), "does not support, got clips."),
    ([*_BASE, "torch"], _COUPLED, "does not support, got coupled gates."),
    (
        [*_OTHERS, "torch"],
        GATED[2](4, **HARD),
        "got gates with another activation than",
    ),
    (
        ["onnx"],
        GatedLSTMCell(4, recurrent_activation="mish"),
        "gates with the activation",
    ),
    (["equinox"], RNN, "LSTMCell, CudnnCompatibleGRUCell, ...got Basic"),
    (["equinox", "linen", "nnx", "torch"], GRU, "CudnnCompatibleGRUCell, ...got GRU"),
    (["haiku"], AFTER, "`cell` must be one of LSTMCell, GRUCell, BasicRNNCell, which"),
    (["equinox", "torch"], LSTMCell(4, activation="relu"), "the activation tanh, as"),
    (["equinox"], LSTMCell(4, activation=_named_tanh), "got a function tanh"),
    (["haiku"], conv(skip_connection=True), "`cell.skip_connection` must be False"),
    (["haiku"], _MIXED, "`cell.cells[1]` must be a convolutional LSTM, because"),
    (["nnx"], AFTER, "hidden_projection/bias']` must hold zeros"),
    (["onnx"], GRUCell(4, activation="linear"), "activation elu or hard_sigmoid or"),
    (["onnx"], (FREE, GRU), "`cells_bw[0]` must be LSTM (size 4) like `cells_fw[0]`, "),
    (["tf1"], _WRAPPED.bind({"carry_w": ONE}), "must have the key 'lstm_cell'"),
    (["torch"], jaxrnn.BasicRNNCell(4, "softsign"), "activation tanh or relu, as in"),
    (["torch"], MultiRNNCell([FREE, LSTMCell(5)]), "LSTM of size 4, ..., LSTM of size"),
]


def call(function, message, *args, **options):
    return function, message, args, options


_GATES = {"kernel": ONE, "bias": np.ones(4)}
_CONV = {"w": np.ones((2, 1, 4)), "b": np.ones(4)}
_CONVS = {f"conv1_dlstm/{k}_to_hidden": _CONV for k in ("input", "hidden")}
_THREE_GRUS = bound(MultiRNNCell([GRUCell(4) for _ in range(3)]))
_SIDE = (bound(FREE),)
_LSTM, _MASKED = torch.save(bound(FREE), "lstm."), np.ma.masked_greater(ONE, 0)
CALLS = [
    call("equinox.load", "`cells` must contain at least one layer, got none"),
    call("equinox.load", "must be an LSTMCell or ... got jaxrnn.LSTMCell", FREE),
    call("haiku.load", "`input_shape` must hold the sizes of the ...got None", _CONVS),
    call("haiku.save", "`name` must hold one ...(3), got a", _THREE_GRUS, "a"),
    call("keras.load", "must be a list ..., got object. Pass `layer.get_", object()),
    call("linen.load", "must be the parameters of an LSTMCell", {"a": {"hi": _GATES}}),
    call("linen.load", "got no backward_rnn", {"forward_rnn": {}}, **BOTH),
    call("nnx.load", "`layers/1` is missing. Found: ...", {"layers": {0: {}, 2: {}}}),
    call("onnx.load", "must be a dict ..., got float64...`convert.onnx.no", ONE, ONE),
    call("tf1.load", "Read a checkpoint with `tf.train.load_ch", "model.ckpt"),
    call("torch.load", "`lstmweight_ih_l0` ... Pass `prefix='lstm.'`.", _LSTM, "lstm"),
    call(
        "torch.load",
        "Pass `state_dict['a']['b']` with `prefix='lstm.'` or",
        {"a": {"b": _LSTM}, "c": _LSTM},
    ),
    call("torch.load_state", "`state[1]` must be an array without", (ONE, _MASKED)),
    call("torch.save_state", "`state` must be an array without a mask", _MASKED),
    call("torch.save", "must be a bound cell, ..., got GRUCell", GRU),
    call("torch.save", "a pair (cells_fw, ...BoundCell. For one dir", _SIDE[0], **BOTH),
    call("torch.load_state", "`state` must be h or ..., got [float64[4]]", ONE[0]),
    call("torch.load_state", "[float64[4, 4], float64[3, 4]]", (ONE, ONE[:3])),
    call("torch.load_state", "must be h or (h, c), each [layers, ", (ONE, ONE, ONE)),
    call("torch.load_state", "must have an even number ...3", ONE[:3], **BOTH),
    call("torch.save_state", "be the pair (states_fw, states_bw)", ONE, **BOTH),
    call("torch.save_state", "pass `bidirectional=True`", ((ONE, ONE), (ONE, ONE))),
]
# Names that are no strings.
CALLS += [call(f"{n}.load", "1", {1: ONE}) for n in ALL if n != "keras"]


def refused(message):
    text = ".*".join(map(re.escape, message.split("...")))
    return pytest.raises((TypeError, ValueError), match=f"^.*{text}")


def changed(weights, change):
    """The weights with a change, whose keys may be paths `module/weight`."""
    if isinstance(weights, list):
        is_node = isinstance(weights[0], dict)
        own = weights[0] if is_node else dict(enumerate(weights[0]))
        own = changed(own, change)
        return [own if is_node else [own[k] for k in sorted(own)]]
    made = dict(weights)
    for path, value in change.items():
        holder, _, key = str(path).rpartition("/")
        if isinstance(made.get(holder), dict):
            made[holder] = changed(made[holder], {key: value})
        elif value is None:
            del made[path]
        else:
            made[path] = np.ones(value) if isinstance(value, tuple) else value
    return made


@pytest.mark.parametrize(
    ("name", "cells", "row"),
    [(*key, row) for key, rows in CHANGES.items() for row in rows],
)
def test_changed_weights(name, cells, row):
    change, message, *options = row
    options = given(name, cells[0]) | dict(*options)
    weights = changed(saved(name, *cells), change)
    with refused(message):
        getattr(convert, name).load(weights, **options)


@pytest.mark.parametrize(("names", "cell", "message"), UNSUPPORTED)
def test_cells_without_an_equivalent(names, cell, message):
    cells = cell if isinstance(cell, tuple) else (cell,)
    for name in names:
        with refused(message):
            saved(name, *cells)


@pytest.mark.parametrize(("function", "message", "args", "options"), CALLS)
def test_wrong_arguments(function, message, args, options):
    library, name = function.split(".")
    with refused(message):
        getattr(getattr(convert, library), name)(*args, **options)


def test_traced_weights_whose_values_are_needed():
    """A bias that nnx's GRU lacks must be zero; two copies of TensorFlow, equal."""
    save = lambda params: convert.nnx.save(AFTER.bind(params))
    wanted = r"bias'\]` must be concrete, since `save` must check"
    with pytest.raises(TypeError, match=wanted):
        jax.eval_shape(save, bound(AFTER).params)
    cell = bound(MultiRNNCell([AFTER, AFTER]), depth=4)
    load = lambda weights: convert.tf1.load(weights, cell=cell.cell, inputs=ONE)
    wanted = r"`variables.*` must be concrete, since two layers of `cell`"
    with pytest.raises(TypeError, match=wanted):
        jax.eval_shape(load, convert.tf1.save(cell))
