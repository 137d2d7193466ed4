"""What converters refuse: a row is a change of valid weights, or a cell, and the error.

`...` in a message stands for any text. A check that libraries share has a row for each
library that passes its own path or sizes to the check.
"""

import functools
import re

import jax
import numpy as np
import pytest
from helpers import bound

from jaxrnn import (
    BasicRNNCell,
    CudnnCompatibleGRUCell,
    GRUCell,
    LSTMCell,
    MultiRNNCell,
    ResidualWrapper,
    convert,
)
from jaxrnn.contrib import (
    Conv1DLSTMCell,
    CoupledInputForgetGateLSTMCell,
    HighwayWrapper,
    UGRNNCell,
)

FREE, AFTER, GRU = LSTMCell(4, forget_bias=0), CudnnCompatibleGRUCell(4), GRUCell(4)
RNN, RELU = BasicRNNCell(4), BasicRNNCell(4, activation="relu")
LAYERS = MultiRNNCell([LSTMCell(4, forget_bias=0) for _ in range(3)])
FULL = LSTMCell(4, use_peepholes=True, num_proj=3)
ELU, UGRNN = BasicRNNCell(4, activation="elu"), UGRNNCell(4)
PROJECTED = LSTMCell(4, num_proj=2, forget_bias=0)
THREE = MultiRNNCell([BasicRNNCell(4) for _ in range(3)])
TWO = {"bidirectional": True}
ONE, BIAS = np.ones((4, 4)), np.ones(16)
ALL = convert.__all__
NOT_TF1 = [name for name in ALL if name != "tf1"]


def conv(**options):
    options = {"output_channels": 1, "kernel_shape": [2]} | options
    cell = Conv1DLSTMCell(input_shape=[4, 2], **options)
    return cell.bind({"kernel": np.ones((2, 3, 4)), "biases": np.ones(4)})


@functools.cache
def saved(name, *cells):
    """The weights of a cell, or of one layer in two directions."""
    cells = tuple(each if hasattr(each, "params") else bound(each) for each in cells)
    save = getattr(convert, name).save
    return save(cells, **TWO) if len(cells) == 2 else save(*cells)


_ALPHAS = {"activations": ["Sigmoid", "elu", "elu"], "activation_alpha": [1.0, 2.0]}
_HARD = {"activations": ["HardSigmoid"], "activation_beta": [0.4]}
_CELL = "rnn/lstm_cell"

# By a library and the cell whose weights are changed: the change, the error, and other
# arguments of `load`. In a change, a tuple is the shape of an array of ones, and None
# removes a weight.
CHANGES = {
    ("equinox", (AFTER,)): [
        ({"weight_hh": None}, "`cells[0].weight_hh` is missing. Found: weight_ih,"),
        ({"bias_n": None}, "`cells[0]` must hold ..., got no bias_n"),
        ({"weight_hh": (12, 5)}, "weight_hh` must have 4 or 3 blocks of size 5, "),
        ({"bias_n": (12,)}, "`cells[0].bias_n` must have shape [4], got"),
    ],
    ("haiku", (LSTMCell(4),)): [
        ({}, "be the name of a core, got 'a'. Found: lstm/", {"name": "a"}),
        ({"lstm/linear/scale": ONE}, "`lstm` must hold ..., got unknown /linear/scale"),
        (
            {"lstm/linear/w": (7, 15), "lstm/linear/b": (15,)},
            "w` must have shape [any, 12], got",
        ),
        ({"lstm/linear/w": (3, 16)}, "w` must have more rows than the cell"),
        ({"lstm/linear/b": (8,)}, "`lstm/linear/w` must have shape [any, 8], got"),
        ({}, "be omitted for cores that", {"input_shape": (4,)}),
        ({}, "`name` must be the name of a module or a list of names", {"name": []}),
        ({"gru": {}}, "`name` must be given unless all cores are in one module"),
    ],
    ("haiku", (GRU,)): [
        ({"gru/w_h": None}, "`gru` must hold /w_i, /w_h, /b, got no /w_h"),
    ],
    ("haiku", (RELU,)): [
        ({"vanilla_rnn/linear_1": {"w": ONE, "x": ONE}}, "got unknown /linear_1/x"),
        ({"vanilla_rnn/linear_1/w": (2, 2)}, "linear_1/w` must have shape [4, 4]"),
    ],
    ("keras", (FREE,)): [
        ({3: ONE, 4: ONE}, "`layers[0]` must hold 2 or 3 weights per direction"),
        ({1: (4, 8), 2: None}, "`layers[0][1]` must have 1 or 3 or 4 blocks ..."),
        ({0: (4, 4)}, "`layers[0][0]` must have shape [any, 16], got float64[4, 4]"),
        ({2: (24,)}, "`layers[0][2]` must have shape [16], got float64[24]"),
        ({}, "`activation` must be one of ..., got 'tan'", {"activation": "tan"}),
        ({}, "`reset_after` must be True or False, got 3", {"reset_after": 3}),
        ({}, "must be False, because `layers[0]` has one direction", TWO),
    ],
    ("keras", (FREE, FREE)): [
        ({3: (2, 16)}, "`layers[0]` must have input size 3, ..., got 2", TWO),
        ({}, "because `layers[0]` has two directions, got False. For two layers,"),
    ],
    ("linen", (AFTER,)): [
        ({"hn": None}, "`params` must hold ..., got no hn/kernel, no hn/bias"),
        ({"hz/kernel": (3, 4)}, "`params/hz/kernel` must have shape [4, 4], got"),
        ({}, "must be False, because `params` has one direction", TWO),
    ],
    ("linen", (THREE,)): [
        ({"layers_1": None}, "`layers_1` is missing. Found: layers_0, layers_2"),
    ],
    ("nnx", (FREE,)): [
        ({"if_/kernel": None, "ii/kernel": None}, "got no ii/kernel, no if_/kernel"),
        ({"dense_i": {}}, "`params/dense_h/kernel` is missing. Found:"),
        ({}, "must be False, because `params` has one direction", TWO),
    ],
    ("nnx", (RNN,)): [
        ({"dense_h/kernel": (3, 12)}, "got no dense_h/bias, unknown dense_i/bias"),
        ({"dense_h/kernel": (5, 12)}, "must have 4 or 3 or 1 blocks ...[5, 12]"),
        ({"dense_i/kernel": (3, 8)}, "`params/dense_i/kernel` must have shape [any, 4"),
    ],
    ("onnx", (FREE,)): [
        ({"W": None}, "`nodes[0]['W']` is missing. Found: op_type, R, B"),
        ({"initial_h": ONE}, "must hold only op_type, ..., got initial_h"),
        ({"R": (1, 12, 4)}, "['R']` must have shape [1, 16, any], got float64[1,"),
        ({"R": (1, 16, 5)}, "['R']` must have 1 or 3 or 4 blocks of size 5"),
        ({"B": (1, 16)}, "`nodes[0]['B']` must have shape [1, 32], got float64[1"),
        ({"P": (1, 4)}, "`nodes[0]['P']` must have shape [1, 12], got float64[1, 4]"),
        ({"linear_before_reset": 1}, "before_reset']` must be 0 for the operator LSTM"),
        ({"op_type": "GRU"}, "`nodes[0]['op_type']` must be LSTM to match `R` (fl"),
        ({"hidden_size": 5}, "`nodes[0]['hidden_size']` must be 4 to match `R` (fl"),
        ({"clip": 104.0}, "`nodes[0]['clip']` must be omitted, because no cell clips"),
        ({"input_forget": 2}, "`nodes[0]['input_forget']` must be 0 or 1, got 2"),
        (_ALPHAS, "`nodes[0]['activation_alpha']` must begin with [1.0, 1.0], got"),
        ({"activations": ["HardSigmoid", "Tanh", "Tanh"]}, "be Sigmoid, Tanh,"),
        ({"activations": ["Sigmoid", "Tanh", "Relu"]}, "be Sigmoid, Relu"),
        ({"direction": ["forward"]}, "must be forward to match `R` ..., got ['forw"),
        ({"direction": "reverse"}, "got 'reverse'. Pass ...`reverse_sequence`"),
        ({"direction": "bidirectional"}, "['direction']` must be forward to match `R`"),
        ({}, "must be False, because `nodes[0]` has one direction", TWO),
    ],
    ("onnx", (AFTER,)): [
        ({"P": (1, 12)}, "`nodes[0]['P']` must be omitted for the operator GRU"),
        (
            {"input_forget": 1},
            "['input_forget']` must be 0 for the operator GRU, got 1",
        ),
    ],
    ("onnx", (ELU,)): [
        (_HARD, "begin with [0.5], got [0.4]"),
        ({"activations": ["LeakyRelu"]}, "must be Elu or HardSigmoid or Relu"),
        ({"activations": "Tanh"}, "must be a list of names, got 'Tanh'"),
    ],
    ("onnx", (FREE, FREE)): [
        ({"activations": ["Tanh"]}, "must have length 6, got 1", TWO),
    ],
    ("tf1", (FULL,)): [
        ({}, "begin with 'a/', got rnn/...", {"scope": "a"}),
        ({f"{_CELL}/bias": None}, f"`cell`, got no {_CELL}/bias. Found: {_CELL}/ke"),
        ({f"{_CELL}/gamma": (4,)}, f"of `cell`, got unknown {_CELL}/gamma. Found"),
        ({f"{_CELL}/bias": (13,)}, "bias` must have shape [16], got float64[13]"),
        ({}, "`cell` must be the ...Found: rnn/lstm_cell/bias, ", {"cell": None}),
        ({}, "`inputs` must be one step of the inputs ...None", {"inputs": None}),
        ({}, "`cell` must be an unbound cell, got BoundCell", {"cell": bound(GRU)}),
        ({}, "`cell` must be a pair (cells_fw, ...For one direction,", TWO),
        ({}, "hold names that begin with 'rnn/fw/'", TWO | {"cell": [FULL] * 2}),
    ],
    ("tf1", (UGRNN,)): [
        ({"rnn/ugrnn_cell/kernel": None}, "got no ...Check that the scope"),
        ({"rnn/ugrnn_cell/bias": (5,)}, "bias` must have shape [8], got"),
    ],
    ("torch", (FREE,)): [
        ({}, "`a.weight_ih_l0` is missing. ...`prefix`", {"prefix": "a."}),
        ({}, "`prefix` must be a string, got 3", {"prefix": 3}),
        ({"bias_hh_l0": None}, "`bias_hh_l0` is missing"),
        (
            {"weight_hh_l0": None, "weight_hh_l0_g": 1},
            "`weight_hh_l0` ... weight norm,",
        ),
        ({"weight_ih_l0": (3, 16)}, "`weight_ih_l0` must have shape [16, any], got"),
        (
            {},
            "must have the activation tanh, as in PyTorch, got relu",
            {"nonlinearity": "relu"},
        ),
        ({}, "`bidirectional` must be True or False", {"bidirectional": "yes"}),
        ({}, "must be False, because `state_dict` has one direction", TWO),
    ],
    ("torch", (RNN,)): [
        ({"weight_hh_l0": (8, 4)}, "must have 1 or 3 or 4 blocks of size 4, ..."),
        ({"weight_hh_l0": [1.0]}, "`weight_hh_l0` must be an array, got [1.0]"),
        ({"weight_hh_l0": ONE.astype(int)}, "must be floating-point, got int64[4, 4]"),
    ],
    ("torch", (PROJECTED,)): [
        ({"weight_ih_l1": (16, 2), "weight_hh_l1": (16, 2)}, "`weight_hr_l1` is ..."),
    ],
    ("torch", (LAYERS,)): [
        (
            {"weight_ih_l1": (16, 3)},
            "`layers[1]` must have input size 4, like the outputs below",
        ),
    ],
}


class OfOnesOwn(LSTMCell):
    """A cell of unknown equations."""


def free(**params):
    return FREE.bind({"kernel": np.ones((7, 16)), "bias": BIAS} | params)


_named_tanh = functools.wraps(np.tanh)(lambda x: x)
_PAIR = MultiRNNCell([FREE, LSTMCell(4)])
_FREE = bound(FREE).params
_MIXED = MultiRNNCell([conv().cell, FREE])
_MIXED = _MIXED.bind({"cell_0": conv().params, "cell_1": _FREE})
_PROJECTED = MultiRNNCell([FREE, LSTMCell(4, num_proj=2)])
_COUPLED, _PEEPING = CoupledInputForgetGateLSTMCell(4), LSTMCell(4, use_peepholes=True)
_BASE = "equinox haiku keras linen nnx".split()
_ROWS = "must have more rows than the cell has outputs (4), got"

# The libraries, the cell that `save` gets, or a pair for two directions, and the error.
CELLS = [
    (ALL, FREE.bind(None), "`cell.params` must be a dict"),
    (
        ALL,
        FREE.bind({"kernel": 1}),
        "`cell.params` must hold kernel, bias, got no bias",
    ),
    (
        ALL,
        free(kernel=[[1.0]]),
        "`cell.params['kernel']` must be an array, got [[1.0]]",
    ),
    (ALL, free(bias=BIAS.astype(int)), "must be floating-point, got int64[16]"),
    (ALL, free(kernel=np.ones((7, 15))), "have shape [any, 16], got float64[7, 15"),
    (ALL, free(kernel=np.ones((4, 16))), f"`cell.params['kernel']` {_ROWS}"),
    (ALL, free(bias=BIAS[None]), "must have shape [16], got float64[1, 16]"),
    (ALL, free(bias=BIAS.astype("f")), "be float64 like `cell.params['kernel']`"),
    (ALL, _PAIR.bind({"cell_0": _FREE}), "`cell.cells[1].params` must"),
    (ALL, _PAIR.bind({"cell_0": 3, "cell_1": 3}), "`cell.cells[0].params` must"),
    (NOT_TF1, OfOnesOwn(4), "`cell` must be one of BasicRNNCell, ... got"),
    (NOT_TF1, ResidualWrapper(FREE), "`cell` must be one of BasicRNNCell, ... got"),
    ([*_BASE, "torch"], _PEEPING, "does not support, got peepholes."),
    ([*_BASE, "onnx"], _PROJECTED, "`cell.cells[1]` must have ..., got projection."),
    (NOT_TF1, LSTMCell(4, cell_clip=3.0), "does not support, got clips."),
    ([*_BASE, "torch"], _COUPLED, "does not support, got coupled gates."),
    (["equinox"], RNN, "LSTMCell, CudnnCompatibleGRUCell, ...got Basic"),
    (["equinox"], LSTMCell(4, activation="relu"), "activation tanh, as in Equinox"),
    (["equinox"], LSTMCell(4, activation=_named_tanh), "got a function tanh"),
    (["haiku"], AFTER, "`cell` must be one of LSTMCell, GRUCell, BasicRNNCell, which"),
    (["haiku"], GRUCell(4, "relu"), "have the activation tanh, as in Haiku, got relu"),
    (["haiku"], conv(skip_connection=True), "`cell.skip_connection` must be False"),
    (["haiku"], _MIXED, "`cell.cells[1]` must be a convolutional LSTM, because"),
    (["linen", "nnx"], GRU, "must be one of LSTMCell, CudnnCompatibleGRUCell,"),
    (["nnx"], AFTER, "hidden_projection/bias']` must hold zeros"),
    (["onnx"], GRUCell(4, activation="linear"), "activation elu or hard_sigmoid or"),
    (["onnx"], (FREE, GRU), "`cells_bw[0]` must be LSTM (size 4) like `cells_fw[0]`, "),
    (
        ["tf1"],
        LSTMCell(3).bind({"bias": BIAS[:12]}),
        "must hold kernel, bias, got no kernel",
    ),
    (
        ["tf1"],
        HighwayWrapper(FREE).bind({"carry_w": ONE}),
        "must have the key 'lstm_cell'",
    ),
    (["torch"], GRU, "`cell` must be one of BasicRNNCell, CudnnCompatibleGRUCell,"),
    (["torch"], BasicRNNCell(4, "softsign"), "activation tanh or relu, as in PyTorch,"),
    (
        ["torch"],
        MultiRNNCell([FREE, LSTMCell(5)]),
        "got LSTM of size 4, ..., LSTM of size 5",
    ),
    (
        ["torch"],
        (FREE, LAYERS),
        "`cells_bw[0]` must be one of Basic..., got MultiRNNCell",
    ),
]


def call(function, message, *args, **options):
    return function, message, args, options


_GATES = {"kernel": ONE, "bias": np.ones(4)}
_CONV = {"w": np.ones((2, 1, 4)), "b": np.ones(4)}
_CONVS = {f"conv1_dlstm/{k}_to_hidden": _CONV for k in ("input", "hidden")}
_THREE_GRUS = bound(MultiRNNCell([GRUCell(4) for _ in range(3)]))
_SIDE = (bound(FREE),)
CALLS = [
    call("equinox.load", "`cells` must contain at least one layer, got none"),
    call("equinox.load", "must be an LSTMCell or ... got jaxrnn.LSTMCell", FREE),
    call("haiku.load", "`params` must be a dict of weights, got 3", 3),
    call("haiku.load", "`input_shape` must hold the sizes of the ...got None", _CONVS),
    call("haiku.load", "shape [any, any, any, any]", _CONVS, input_shape=(4, 1)),
    call("haiku.load", "`input_shape[0]` must be", _CONVS, input_shape=[-1]),
    call("haiku.save", "`name` must hold one ...(3), got a", _THREE_GRUS, "a"),
    call("haiku.save", "be the name of a module or a list ..., got 3", bound(GRU), 3),
    call("keras.load", "`layers` must contain at least one layer, got none"),
    call("keras.load", "must be a list ..., got object. Pass `layer.get_", object()),
    call("linen.load", "`params` must be a dict of weights, got 3", 3),
    call("linen.load", "`params/cell` must be a dict of weights", {"cell": ONE}),
    call("linen.load", "must be the parameters of an LSTMCell", {"a": {"hi": _GATES}}),
    call("linen.load", "got no backward_rnn", {"forward_rnn": {}}, **TWO),
    call("nnx.load", "`layers/1` is missing. Found: ...", {"layers": {0: {}, 2: {}}}),
    call("onnx.load", "must be a dict ..., got float64...`convert.onnx.no", ONE, ONE),
    call(
        "tf1.load",
        "Read a checkpoint with `tf.train.load_checkpoint(path)`",
        "model.ckpt",
    ),
    call("tf1.load", "`scope` must be a string, got 3", {"a/k": 0}, 3),
    call("tf1.save", "`scope` must be a string, got 3", bound(GRU), 3),
    call("torch.load", "must be a dict ..., got [float64[4, 4]]. Pass `module", [ONE]),
    call("torch.save", "must be a bound cell, ..., got GRUCell", GRU),
    call(
        "torch.save",
        "got tuple of length 2. ...For several layers, ...`bidir",
        _SIDE * 2,
    ),
    call("torch.save", "must have the depth of", (_SIDE, _SIDE * 2), **TWO),
    call("torch.save", "a pair (cells_fw, ...BoundCell. For one dir", _SIDE[0], **TWO),
    call("torch.save", "`prefix` must be a string, got 3", _SIDE[0], 3),
    call("torch.load_state", "`state` must be h or ..., got [float64[4]]", ONE[0]),
    call("torch.load_state", "[float64[4, 4], float64[3, 4]]", (ONE, ONE[:3])),
    call("torch.load_state", "must be h or (h, c), each [layers, ", (ONE, ONE, ONE)),
    call("torch.load_state", "must have an even number ...3", ONE[:3], **TWO),
    call("torch.save_state", "be the pair (states_fw, states_bw)", ONE, **TWO),
]
# Names that are no strings.
CALLS += [call(f"{n}.load", "1", {1: ONE}) for n in ALL if n != "keras"]


def pattern(name, function, message):
    text = ".*".join(map(re.escape, message.split("...")))
    return f"^.*{text}"


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
    # What `tf1` asks for.
    given = {"cell": cells[0], "inputs": ONE[:, :3], "scope": "rnn"}
    options = (given if name == "tf1" else {}) | dict(*options)
    weights = changed(saved(name, *cells), change)
    with pytest.raises((TypeError, ValueError), match=pattern(name, "load", message)):
        getattr(convert, name).load(weights, **options)


@pytest.mark.parametrize(
    ("name", "cell", "message"),
    [(name, cell, text) for names, cell, text in CELLS for name in names],
)
def test_cells_without_an_equivalent(name, cell, message):
    cells = cell if isinstance(cell, tuple) else (cell,)
    with pytest.raises((TypeError, ValueError), match=pattern(name, "save", message)):
        saved(name, *cells)


@pytest.mark.parametrize(("function", "message", "args", "options"), CALLS)
def test_wrong_arguments(function, message, args, options):
    library, name = function.split(".")
    with pytest.raises((TypeError, ValueError), match=pattern(library, name, message)):
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
