"""What converters refuse: a row is a change of valid weights, or a cell, and the error.

`...` in a message stands for any text. A check that libraries share has a row for each
library that passes its own path or sizes to the check.
"""

import re

import numpy as np
import pytest
from convert_checks import bound

from jaxrnn import (
    BasicLSTMCell,
    BasicRNNCell,
    CudnnCompatibleGRUCell,
    GRUCell,
    LSTMCell,
    MultiRNNCell,
    RNNCell,
    convert,
)
from jaxrnn.contrib import Conv1DLSTMCell, HighwayWrapper, UGRNNCell

FREE, AFTER, GRU = LSTMCell(4, forget_bias=0), CudnnCompatibleGRUCell(4), GRUCell(4)
RNN, RELU = BasicRNNCell(4), BasicRNNCell(4, activation="relu")
LAYERS = MultiRNNCell([LSTMCell(4, forget_bias=0) for _ in range(3)])
TWO = {"bidirectional": True}
ONE = np.ones((4, 4))


def conv(**options):
    options = {"output_channels": 1, "kernel_shape": [2]} | options
    cell = Conv1DLSTMCell(input_shape=[4, 2], **options)
    return cell.bind({"kernel": np.ones((2, 3, 4)), "biases": np.ones(4)})


def save(library, *cells, **options):
    """The weights of a bound cell, or of one layer in two directions."""
    if len(cells) == 2:
        return library.save(cells, bidirectional=True, **options)
    return library.save(cells[0], **options)


def saved(library, *cells):
    return save(library, *map(bound, cells))


def row(change, message, *args, **options):
    """A change of the weights, the error, and the other arguments of `load`.

    In a change, a tuple is the shape of an array of ones, and None removes a weight.
    """
    return change, message, args, options


_PREFIXED = {f"a.rnn.{k}": v for k, v in saved(convert.torch, FREE).items()}
_SECOND = {k.replace("0", "1"): v for k, v in saved(convert.torch, RNN).items()}
_NODE = {"activations": ["Sigmoid", "elu", "elu"], "activation_alpha": [1.0, 2.0]}
_CELL = "rnn/lstm_cell"
_GATES = {"kernel": ONE, "bias": np.ones(4)}
_CONV = {"w": np.ones((2, 1, 4)), "b": np.ones(4)}
_CONVS = {f"conv1_dlstm/{k}_to_hidden": _CONV for k in ("input", "hidden")}
_MIXED = MultiRNNCell([conv().cell, FREE])
_MIXED = _MIXED.bind({"cell_0": conv().params, "cell_1": bound(FREE).params})
_ARRAYS = saved(convert.keras, FREE)[0]
_HAIKU_STACK = bound(MultiRNNCell([GRUCell(4) for _ in range(3)]))
_SLOT = "rnn/lstm_cell/kernel/Adam:0"
_UGRNN = {"cell": UGRNNCell(4), "inputs": np.ones((1, 3))}
_STACK = "rnn/multi_rnn_cell/cell"
_SIDE = (bound(FREE),)
_GRU_CELL = convert.tf1.save(bound(GRU))
_NEAR = {k: {"kernel": ONE} for k in ("if", "hf", "in", "hn")}
_PEEPING = LSTMCell(4, use_peepholes=True, num_proj=3)
_RELU_LAYERS = MultiRNNCell([BasicRNNCell(4), BasicRNNCell(4, activation="relu")])

# By the name of a library and the cell whose weights are changed.
WEIGHTS = {
    "equinox": (AFTER,),
    "equinox lstm": (FREE,),
    "haiku": (LSTMCell(4),),
    "haiku gru": (GRU,),
    "haiku rnn": (RELU,),
    "keras": (FREE,),
    "keras gru": (GRU,),
    "keras both": (FREE, FREE),
    "linen": (AFTER,),
    "linen stack": (MultiRNNCell([BasicRNNCell(4) for _ in range(3)]),),
    "nnx": (FREE,),
    "nnx rnn": (RNN,),
    "onnx": (FREE,),
    "onnx gru": (AFTER,),
    "onnx rnn": (BasicRNNCell(4, activation="elu"),),
    "onnx both": (FREE, FREE),
    "tf1": (_PEEPING,),
    "tf1 stack": (MultiRNNCell([BasicRNNCell(4) for _ in range(3)]),),
    "tf1 ugrnn": (_UGRNN["cell"],),
    "torch": (FREE,),
    "torch rnn": (RNN,),
    "torch projected": (LSTMCell(4, num_proj=2, forget_bias=0),),
    "torch layers": (LAYERS,),
}
CHANGES = {
    "equinox": [
        row({"weight_hh": None}, "`cells[0].weight_hh` is missing. Found: weight_ih,"),
        row({"bias_n": None}, "`cells[0]` must hold ...; missing: bias_n"),
        row({"weight_hr": (2,)}, "`cells[0]` must hold ...; unknown: weight_hr"),
        row({"weight_hh": (12, 5)}, "weight_hh` must have 4 or 3 blocks of 5 units"),
        row({"weight_hh": (4, 4)}, "`cells[0].weight_hh` must have 4 or 3 blocks ..."),
        row({"bias_n": (12,)}, "`cells[0].bias_n` must have shape [4], got"),
    ],
    "equinox lstm": [
        row({"bias_n": (4,)}, "must hold weight_ih, weight_hh, bias; unknown: bias_n"),
    ],
    "haiku": [
        row({}, "`core` (of a GRU) or `core/linear` is missing. Found:", "core"),
        row({"lstm/linear/scale": ONE}, "`lstm/linear` must hold w, b; unknown: scale"),
        row({"lstm/linear/w": (7, 15), "lstm/linear/b": (15,)}, "[depth + units, 4 *"),
        row({"lstm/linear/w": (3, 16)}, "for an LSTM, got float64[3, 16]"),
        row({"lstm/linear/b": (8,)}, "`lstm/linear/b` must have shape [16], got"),
        row({}, "`input_shape` must be omitted for cores without", input_shape=(4,)),
        row({}, "`name` must be the name of a module or a list of names", []),
        row({"gru": {}}, "`name` must be given unless all cores are in one module"),
    ],
    "haiku gru": [
        row({"gru/w_h": None}, "`gru` must hold w_i, w_h, b; missing: w_h"),
        row({"gru": ONE}, "`gru` must be a dict of weights, got float64[4, 4]"),
    ],
    "haiku rnn": [
        row({"vanilla_rnn/linear_1": None}, "`vanilla_rnn/linear_1` is missing. Found"),
        row({"vanilla_rnn/linear_1/x": ONE}, "must hold w, b; unknown: x"),
        row({"vanilla_rnn/linear_1": {"w": ONE, "x": ONE}}, "hold w; unknown: x"),
        row({"vanilla_rnn/linear_1/w": (2, 2)}, "linear_1/w` must have shape [4, 4]"),
    ],
    "keras": [
        row(
            {3: ONE, 4: ONE}, "`layers[0]` must hold 2 or 3 weights per direction, got"
        ),
        row({1: (4, 8), 2: None}, "`layers[0][1]` must have 1 or 3 or 4 blocks ..."),
        row({0: (4, 4)}, "`layers[0][0]` must have shape [any, 16], got float64[4, 4]"),
        row({2: (32,)}, "`layers[0][2]` must have shape [16], got float64[32]"),
        row({}, "`activation` must be one of ..., got 'tan'", activation="tan"),
        row({}, "`reset_after` must be True or False, got 'no'", reset_after="no"),
    ],
    "keras gru": [
        row({2: (1, 12)}, "`layers[0][2]` must have shape [2, 12], got float64[1, 12]"),
    ],
    "keras both": [
        row({5: ONE}, "`layers[0][5]` must have shape [16], got", **TWO),
        row({3: (2, 16)}, "`layer 0` must have 3 inputs in each direction, got", **TWO),
        row({3: (3, 12), 4: (4, 12), 5: (12,)}, "of one kind, got LSTM, GRU", **TWO),
    ],
    "linen": [
        row({"hn": None}, "`params` must hold ...; missing: hn/kernel, hn/bias"),
        row({"hz/bias": (4,)}, "unknown: hz/bias"),
        row({"hz/kernel": (3, 4)}, "`params/hz/kernel` must have shape [4, 4], got"),
        row({"cell": (2,)}, "`params` must hold ...unknown: cell"),
    ],
    "linen stack": [
        row({"layers_1": None}, "`layers_1` is missing. Found: layers_0, layers_2"),
    ],
    "nnx": [
        row({"if_/kernel": None, "ii/kernel": None}, "missing: ii/kernel, if_/kernel"),
        row({"hi/scale": ONE}, "unknown: hi/scale"),
        row({"dense_i": {}}, "`params/dense_h/kernel` is missing. Found:"),
    ],
    "nnx rnn": [
        row({"dense_i/kernel": None}, "missing: dense_i/kernel"),
        row(
            {"dense_h/kernel": (3, 12)}, "missing: dense_h/bias; unknown: dense_i/bias"
        ),
        row({"dense_h/kernel": (5, 12)}, "must have 4 or 3 or 1 blocks ...[5, 12]"),
        row(
            {"dense_i/kernel": (3, 8)},
            "`params/dense_i/kernel` must have shape [any, 4",
        ),
    ],
    "onnx": [
        row({"W": None}, "`nodes[0]['W']` is missing. Found: op_type, R, B"),
        row({"R": None}, "`nodes[0]['R']` is missing. Found: op_type, W"),
        row({"initial_h": ONE}, "must hold only op_type, ..., got initial_h"),
        row({"R": (1, 12, 4)}, "['R']` must have shape [1, 16, any], got float64[1,"),
        row({"R": (1, 16, 5)}, "['R']` must have 1 or 3 or 4 blocks of 5 units"),
        row({"B": (1, 16)}, "`nodes[0]['B']` must have shape [1, 32], got float64[1"),
        row(
            {"P": (1, 4)}, "`nodes[0]['P']` must have shape [1, 12], got float64[1, 4]"
        ),
        row({"linear_before_reset": 1}, "before_reset']` must be 0 for LSTM, got 1"),
        row({"op_type": "GRU"}, "`nodes[0]['op_type']` must be LSTM to match `R` (fl"),
        row({"op_type": "Gemm"}, "must be LSTM, GRU or RNN, got 'Gemm'"),
        row(
            {"hidden_size": 5}, "`nodes[0]['hidden_size']` must be 4 to match `R`, got"
        ),
        row({"clip": 104.0}, "`nodes[0]['clip']` must be at least 745.1, so that it"),
        row({"input_forget": 2}, "`nodes[0]['input_forget']` must be 0 or 1, got 2"),
        row(_NODE, "`nodes[0]['activation_alpha']` must be 1.0 for Elu, got 2.0"),
        row({"activations": ["HardSigmoid", "Tanh", "Tanh"]}, "be like ['Sigmoid', 'T"),
        row({"activations": ["Sigmoid", "Tanh", "Relu"]}, "be like ['Sigmoid', 'Relu'"),
        row({"direction": "reverse"}, "got 'reverse'. Load ...`reverse_sequence`"),
        row({"direction": ["forward"]}, "must be forward or bidirectional, got list"),
        row({"direction": "sideways"}, "must be forward or ..., got 'sideways'"),
        row(
            {"direction": "bidirectional"}, "['W']` must have 2 rows, as bidirectional"
        ),
    ],
    "onnx gru": [
        row({"P": (1, 12)}, "`nodes[0]['P']` must be omitted for GRU"),
        row({"input_forget": 1}, "['input_forget']` must be 0 for GRU ..., got 1"),
        row({"linear_before_reset": "no"}, "_reset']` must be 0 or 1, got 'no'"),
    ],
    "onnx rnn": [
        row({"clip": 9999.0, "activations": ["relu"]}, "1.798e+308, ...got 9999"),
        row({"clip": 0}, "`nodes[0]['clip']` must be at least 1.798e+308, ...got 0"),
        row({"clip": "3"}, "must be a number, got '3'"),
        row({"activation_alpha": [0.0]}, "must be 1.0 for Elu, got 0.0"),
        row({"activations": ["HardSigmoid"], "activation_beta": [0.4]}, "be 0.5 for H"),
        row({"activations": ["LeakyRelu"]}, "must be Elu or HardSigmoid or Relu"),
        row({"activations": []}, "`nodes[0]['activations']` must have 1 names, got []"),
        row({"activations": "Tanh"}, "must be a list of names, got 'Tanh'"),
    ],
    "onnx both": [
        row({"activations": ["Tanh"]}, "must have 6 names, got ['Tanh']", **TWO),
    ],
    "tf1": [
        row(
            {}, "`scope` must contain a variable, got 'decoder'. Found: ...", "decoder"
        ),
        row({}, "`` must hold one of basic_rnn_cell, gru_cell, ...got rnn", ""),
        row({"rnn/lstm_cell_1/bias": (16,)}, "`rnn` must hold one of basic_rnn_cell"),
        row(
            {"rnn/fw/x": ONE}, "`rnn` must hold one direction, got fw, lstm_cell. Pass"
        ),
        row({"rnn/cell_0/x": ONE}, "`rnn` must hold one direction, got cell_0, lstm"),
        row({}, "must hold two directions, fw and bw, got lstm_cell", "rnn", **TWO),
        row({"rnn/fw/x": ONE}, "`bw` is missing. Found: lstm_cell, fw", "rnn", **TWO),
        row({f"{_CELL}/bias": None}, f"`{_CELL}/bias` is missing. Found: kernel"),
        row({f"{_CELL}/w_i_diag": None}, f"of `cell`; missing: {_CELL}/w_i_diag"),
        row({f"{_CELL}/gamma": (4,)}, f"of `cell`; unknown: {_CELL}/gamma. Found"),
        row({f"{_CELL}/kernel": (6, 8)}, "kernel` must have shape [6, 16], got"),
        row({f"{_CELL}/bias": (13,)}, "bias` must have 4 blocks of equal size, got 13"),
        row({f"{_CELL}/kernel": (1, 16)}, "and 3 rows for the state, got 1"),
        row({f"{_CELL}/projection/kernel": (2, 2)}, "must have shape [4, any], got"),
        row({}, "`forget_bias` must be omitted with `cell`", cell=GRU, forget_bias=0.5),
        row({}, "`inputs` must be one step of the inputs of `cell`, ...None", cell=GRU),
        row({}, "`cell` must be an unbound cell, got None", inputs=ONE),
        row({}, "`cell` must be an unbound cell, got Bo", cell=bound(GRU), inputs=ONE),
    ],
    "tf1 stack": [
        row(
            dict.fromkeys([f"{_STACK}_1/basic_rnn_cell/{k}" for k in _GATES]),
            "`cell_1` is missing. Found: cell_0, cell_2",
        ),
        row({f"{_STACK}_0/glstm_cell/kernel": ONE}, "`rnn` must hold ...; unknown:"),
    ],
    "tf1 ugrnn": [
        row({}, "must hold one of ...multi_rnn_cell, got ugrnn_cell. For another cell"),
        row({"rnn/ugrnn_cell/kernel": None}, "; missing: ...The scope, the", **_UGRNN),
        row({"rnn/ugrnn_cell/x": ONE}, "of `cell`; unknown:", **_UGRNN),
        row({}, "`rnn/ugrnn_cell` must hold ...; missing", "rnn/ugrnn_cell", **_UGRNN),
        row({"rnn/ugrnn_cell/bias": (5,)}, "bias` must have shape [8], got", **_UGRNN),
    ],
    "torch": [
        row({"weight_ih_l0": None, **_PREFIXED}, "`weight_ih_l0` is missing. Found:"),
        row({}, "`a.weight_ih_l0` is missing. Found: weight_ih_l0, ...`prefix`", "a."),
        row({"bias_hh_l0": None}, "`bias_hh_l0` is missing"),
        row({"weight_hh_l0_g": ONE}, "must hold weight_ih, ..., got 'weight_hh_l0_g'"),
        row({"weight_ih": ONE}, "`state_dict` must hold weight_ih, ...'weight_ih'"),
        row({"weight_ih_l0": (3, 16)}, "`weight_ih_l0` must have shape [16, any], got"),
        row({}, "`nonlinearity` must be tanh for LSTM, got 'r", nonlinearity="relu"),
        row({**_SECOND, "weight_ih_l1": ONE}, "got LSTM of 4 units with tanh, RNN of"),
        row({}, "`bidirectional` must be True or False", bidirectional="yes"),
    ],
    "torch rnn": [
        row({"weight_hh_l0": (8, 4)}, "must have 1 or 3 or 4 blocks of 4 units, ..."),
        row({"weight_hr_l0": ONE}, "`weight_hr_l0` must be omitted for RNN"),
        row({}, "must be tanh or relu for RNN, got 'sigmoid'", nonlinearity="sigmoid"),
        row({"weight_hh_l0": [1.0]}, "`weight_hh_l0` must be an array, got list"),
        row(
            {"weight_hh_l0": ONE.astype(int)}, "must be floating-point, got int64[4, 4]"
        ),
    ],
    "torch projected": [
        row(
            {"weight_ih_l1": (16, 2), "weight_hh_l1": (16, 2)}, "`weight_hr_l1` is ..."
        ),
    ],
    "torch layers": [
        row({"weight_hh_l1": None}, "`weight_hh_l1` is missing. Found: weight_ih_l0, "),
        row(
            {"weight_ih_l1": (16, 3)}, "`layer 1` must have 4 inputs in each direction"
        ),
    ],
}
# The cells that `save` gets; for two directions, a pair.
CELLS = {
    "equinox": [
        (RNN, "must be one of LSTMCell, CudnnCompatibleGRUCell, ...got a BasicRNNCell"),
        (
            LSTMCell(4, activation="relu"),
            "the activation tanh, as in Equinox, got relu",
        ),
    ],
    "haiku": [
        (AFTER, "`cell` must be one of LSTMCell, GRUCell, BasicRNNCell, whose"),
        (RNN, "`cell` must have the activation relu, as in Haiku, got tanh"),
        (GRUCell(4, "relu"), "must have the activation tanh, as in Haiku, got relu"),
        (conv(skip_connection=True), "`cell.skip_connection` must be False, since"),
    ],
    "keras": [
        ((FREE, GRU), "`cells_fw[0]` must have two directions of one kind, got LSTM"),
    ],
    "linen": [
        (GRU, "`cell` must be one of LSTMCell, CudnnCompatibleGRUCell,"),
    ],
    "nnx": [
        (
            AFTER,
            "`cell.params['candidate']['hidden_projection']['bias']` must hold zeros",
        ),
        (GRU, "`cell` must be one of LSTMCell, CudnnCompatibleGRUCell,"),
    ],
    "onnx": [
        (GRUCell(4, activation="linear"), "activation elu or hard_sigmoid or relu"),
        ((FREE, GRU), "`cells_bw[0]` must have the kind and size of `cells_fw[0]`"),
        ((FREE, LSTMCell(5)), "must ...got LSTM of 4 units, LSTM of 5 units"),
    ],
    "tf1": [
        (FREE, "`cell` must have forget_bias 1.0, the argument of `save`, got 0"),
        (MultiRNNCell([GRU, BasicLSTMCell(4, 0.5)]), "`cell.cells[1]` must have forg"),
        (
            GRUCell(4, "relu"),
            "`cell` must have activation tanh, the argument of `save`",
        ),
        (
            (GRU, LSTMCell(3, cell_clip=2)),
            "`cells_bw[0]` must have cell_clip None, ...",
        ),
        (LSTMCell(3).bind({"bias": np.ones(12)}), "params['kernel']; missing:"),
        (HighwayWrapper(FREE).bind({"carry_w": ONE}), "`params` must hold `lstm_cell`"),
    ],
    "torch": [
        (GRU, "`cell` must be one of BasicRNNCell, CudnnCompatibleGRUCell,"),
        (
            LSTMCell(4, activation="relu"),
            "must have the activation tanh, as in PyTorch",
        ),
        (BasicRNNCell(4, "softsign"), "activation tanh or relu, as in PyTorch,"),
        (LSTMCell(4, num_proj=4), "have `num_proj` below its 4 units, ..., got 4"),
        (MultiRNNCell([FREE, LSTMCell(5)]), "of 4 units with tanh, LSTM of 5"),
        (_RELU_LAYERS, "got RNN of 4 units with relu, RNN of 4 units with tanh"),
        (
            (FREE, LAYERS),
            "`cells_bw[0]` must be one layer, got 3. Pass a separate cell",
        ),
    ],
}


def _last(inputs, state):
    return state


def call(function, message, *args, **options):
    return function, message, args, options


CALLS = [
    call("equinox.load", "`cells` must contain at least one layer, got none"),
    call("equinox.load", "`cells[0]` must be an LSTMCell or ... got 3", 3),
    call("haiku.load", "`params` must be a dict of weights, got 3", 3),
    call("haiku.load", "must be given ...Found: mlp/linear", {"mlp/linear": {}}),
    call("haiku.load", "_1/linear_1` is missing", {"a/vanilla_rnn_1/linear": _CONV}),
    call("haiku.load", "`input_shape` must be the sizes of the ...got None", _CONVS),
    call("haiku.load", "must be ...got ()", _CONVS, input_shape=()),
    call(
        "haiku.load",
        "/w` must have shape [any, any, any, any]",
        _CONVS,
        None,
        input_shape=(4, 1),
    ),
    call("haiku.load", "`input_shape[0]` must be", _CONVS, input_shape=[-1]),
    call(
        "haiku.save",
        "`name` must hold 3 names, one for ...got core",
        _HAIKU_STACK,
        "core",
    ),
    call("haiku.save", "`cell.cells[1]` must be a convolutional LSTM like", _MIXED),
    call("haiku.as_cell", "`transformed.init` must be made by hk.tr...None", ONE, 3, 3),
    call("equinox.as_cell", "`module` must be a cell of Equinox, got 3", 3, 3),
    call("equinox.as_cell", "`module` must be ...the class RNNCell", RNNCell, 3),
    call("equinox.as_cell", "accept (inputs, state), got parameters (x, /)", abs, 3),
    call("equinox.as_cell", "`size` must be an int or a Tensor...got 2.5", _last, 2.5),
    call("keras.load", "`layers` must contain at least one layer, got none"),
    call("keras.load", "`layers[1]` must hold 2 or 3 ...got 9", _ARRAYS, _ARRAYS * 3),
    call("keras.load", "must be a list ..., got object. Pass `layer.get_", object()),
    call("keras.load", "must be a list of arrays, got float64[3, 16]", *_ARRAYS),
    call("linen.load", "`params` must be a dict of weights, got 3", 3),
    call(
        "linen.load",
        "`params/cell` must be a dict of weights, got float",
        {"cell": ONE},
    ),
    call("linen.load", "must be the parameters of an LSTMCell", {"a": {"hi": _GATES}}),
    call("linen.load", "missing: ii/kernel...unknown: in/kernel, hn/kernel", _NEAR),
    call("linen.load", "missing: backward_rnn", {"forward_rnn": {}}, **TWO),
    call("nnx.load", "`params` must be a dict of weights, got 3", 3),
    call("nnx.load", "must be the parameters ...got kernel, bias", _GATES),
    call("nnx.load", "`layers/1` is missing. Found: ...", {"layers": {0: {}, 2: {}}}),
    call("onnx.load", "must be a dict ..., got float64...`convert.onnx.no", ONE, ONE),
    call("tf1.load", "`variables` must be a dict of weights, got 3", 3),
    call("tf1.load", "`tf.train.load_checkpoint(path)` reads a check", "model.ckpt"),
    call("tf1.load", "`cell_clip` must be None, ...got 1.0", _GRU_CELL, cell_clip=1.0),
    call("tf1.load", "Found: rnn/lstm_cell/kernel.", {_SLOT: 0, _SLOT[:-7]: 0}, "a"),
    call("torch.load", "must be a dict ..., got list. Pass `module", [ONE]),
    call("torch.save", "must be a cell with its parameters, ..., got GRUCell", GRU),
    call("torch.save", "got tuple. Pass `bidirectional=True`", _SIDE * 2),
    call("torch.save", "`cells_fw` must be a list of ...got tuple", ((), ()), **TWO),
    call("torch.save", "`cells_fw` must be ...got LSTMCell", (FREE, FREE), **TWO),
    call(
        "torch.save", "must have the same depth, got 1 and 2", (_SIDE, _SIDE * 2), **TWO
    ),
    call(
        "torch.save", "be the pair (cells_fw, cells_bw), ...BoundCell", _SIDE[0], **TWO
    ),
    call("torch.load_state", "`state` must be h or ..., got [float64[4]]", ONE[0]),
    call("torch.load_state", "[float64[4, 4], float64[3, 4]]", (ONE, ONE[:3])),
    call("torch.load_state", "must be h or (h, c), each [layers, ", (ONE, ONE, ONE)),
    call("torch.load_state", "must have two entries for each ...3", ONE[:3], **TWO),
    call("torch.save_state", "must have states of one kind", (ONE[0], ONE[0, :2])),
    call(
        "torch.save_state",
        "`states_bw` must have the 1 layers",
        (ONE, [ONE] * 2),
        **TWO,
    ),
    call("torch.save_state", "be the pair (states_fw, states_bw)", ONE, **TWO),
    call("torch.save_state", "`state[0]` must be an array or an LSTM", ((ONE,), ONE)),
]


def rows(table):
    return [(name, *each) for name, found in table.items() for each in found]


def pattern(name, function, message):
    text = ".*".join(map(re.escape, message.split("...")))
    # The constructor of a cell or a wrapper may refuse an option.
    return rf"^(convert\.{name.split()[0]}\.{function}|[A-Z]\w+): .*{text}"


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


@pytest.fixture(scope="module")
def weights():
    return {
        name: saved(getattr(convert, name.split()[0]), *cells)
        if not name.startswith("tf1")
        else convert.tf1.save(bound(*cells))
        for name, cells in WEIGHTS.items()
    }


@pytest.mark.parametrize(
    ("name", "change", "message", "args", "options"), rows(CHANGES)
)
def test_changed_weights(name, change, message, args, options, weights):
    load = getattr(convert, name.split()[0]).load
    with pytest.raises((TypeError, ValueError), match=pattern(name, "load", message)):
        load(changed(weights[name], change), *args, **options)


@pytest.mark.parametrize(("name", "cell", "message"), rows(CELLS))
def test_cells_without_an_equivalent(name, cell, message):
    cells = cell if isinstance(cell, tuple) else (cell,)
    cells = [each if hasattr(each, "params") else bound(each) for each in cells]
    with pytest.raises((TypeError, ValueError), match=pattern(name, "save", message)):
        save(getattr(convert, name), *cells)


@pytest.mark.parametrize(("function", "message", "args", "options"), CALLS)
def test_wrong_arguments(function, message, args, options):
    library, name = function.split(".")
    with pytest.raises((TypeError, ValueError), match=pattern(library, name, message)):
        getattr(getattr(convert, library), name)(*args, **options)
