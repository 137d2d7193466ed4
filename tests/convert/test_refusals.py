"""What converters refuse: each error has its type, and names the argument.

A check that libraries share has one row, and more only where a library passes its own
path or sizes to the check.
"""

import functools
import re

import jax
import numpy as np
import pytest
from helpers import bound, refusals

import jaxrnn
from jaxrnn import GRUCell, LSTMCell, MultiRNNCell, contrib, convert
from jaxrnn.convert._gates import GatedLSTMCell

ALL = "equinox haiku keras linen nnx onnx tf1 torch"
NOT_TF1 = ALL.replace("tf1 ", "")
FREE, PEEPING = (LSTMCell(4, forget_bias=0, use_peepholes=p) for p in (False, True))
PROJECTED = LSTMCell(4, forget_bias=0, num_proj=2)
FULL = LSTMCell(4, use_peepholes=True, num_proj=3)
GRU, AFTER, RNN = GRUCell(4), jaxrnn.CudnnCompatibleGRUCell(4), jaxrnn.BasicRNNCell(4)
ELU, SOFTSIGN = (jaxrnn.BasicRNNCell(4, name) for name in ("elu", "softsign"))
MISH = GatedLSTMCell(4, recurrent_activation="mish")
HARD = GatedLSTMCell(4, forget_bias=0, recurrent_activation="hard_sigmoid")
COUPLED = contrib.CoupledInputForgetGateLSTMCell(4)
BOTH = {"bidirectional": True}
ONE, BIAS = np.ones((4, 4)), np.ones(16)
STEP = jax.ShapeDtypeStruct((1, 3), np.float64)


def as_bound(cell):
    return cell if hasattr(cell, "params") else bound(cell)


@functools.cache
def saved(name, cell):
    """The weights of a cell, or of one layer in two directions."""
    save = getattr(convert, "to_onnx_nodes" if name == "onnx" else f"to_{name}")
    if isinstance(cell, tuple):
        return save(tuple(map(as_bound, cell)))
    return save(as_bound(cell))


def changed(weights, change):
    """The weights with a change, whose keys may be paths `module/weight`.

    A tuple is the shape of an array of ones, and None removes a weight.
    """
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


def load(library, cell, change, /, **options):
    """A call with the changed weights of a cell."""
    if library == "tf1":
        options = {"cell": cell, "inputs": STEP} | options
    name = "flax" if library in ("linen", "nnx") else library
    load = getattr(convert, f"from_{name}")
    return lambda: load(changed(saved(library, cell), change), **options)


def call(name, *args, **options):
    return lambda: getattr(convert, name)(*args, **options)


KERAS = {0: (50, 3), 1: (3, 16), 2: (4, 16), 3: (16,), 4: (4, 2), 5: (2,)}
SECOND = {"weight_ih_l1": (16, 4), "weight_hh_l1": (16, 4)}
ALPHA = {"activations": ["Sigmoid", "elu", "elu"], "activation_alpha": [1.0, 2.0]}
TWICE = {"lstm_cell/bias:0": ONE}
MISSPELT, RESET = {"recurrent_activation": "a"}, {"linear_before_reset": 1}
GATES = {"activations": ["Elu", "Tanh", "Tanh"], "input_forget": 1}
THIRD = {name.replace("l1", "l2"): shape for name, shape in SECOND.items()}
# The second layer does not read the outputs of the first.
ALIKE = {f"layers_{i}": {"cell": convert.to_linen(as_bound(FREE))} for i in "01"}
CONV = {"w": np.ones((2, 1, 4)), "b": np.ones(4)}
CONVS = {f"conv1_dlstm/{k}_to_hidden": CONV for k in ("input", "hidden")}
GRUS = bound(MultiRNNCell([GRUCell(4) for _ in range(3)]))
LSTM, MASKED = convert.to_torch(bound(FREE), at="lstm"), np.ma.masked_greater(ONE, 0)

ROWS = [
    # The library, the cell whose weights are changed, the change, options.
    (ValueError, "cells.weight_hh", load("equinox", AFTER, {"weight_hh": (12, 5)})),
    (ValueError, "lstm/linear/w", load("haiku", LSTMCell(4), {"lstm/linear/b": (8,)})),
    (TypeError, "at", load("haiku", LSTMCell(4), {}, at=[])),
    (ValueError, "at", load("haiku", LSTMCell(4), {"gru": {}})),
    (ValueError, "weights[0]", load("keras", FREE, {3: ONE, 4: ONE})),
    (ValueError, "recurrent_activation", load("keras", FREE, {}, **MISSPELT)),
    (ValueError, "activation", load("linen", FREE, {}, activation="gelu")),
    (ValueError, "weights[0]", load("keras", (FREE, FREE), KERAS)),
    (ValueError, "layers[1]", call("from_flax", ALIKE)),
    (ValueError, "params/dense_h/kernel", load("nnx", FREE, {"dense_i": {}})),
    (ValueError, "model[0]['W']", load("onnx", FREE, {"W": None})),
    (ValueError, "model[0]['initial_h']", load("onnx", FREE, {"initial_h": ONE})),
    (ValueError, "model[0]['linear_before_reset']", load("onnx", FREE, RESET)),
    (ValueError, "model[0]['clip']", load("onnx", FREE, {"clip": 104.0})),
    (ValueError, "model[0]['activation_alpha']", load("onnx", FREE, ALPHA)),
    (ValueError, "model[0]['activations']", load("onnx", FREE, GATES)),
    (ValueError, "model[0]['direction']", load("onnx", FREE, {"direction": "reverse"})),
    (ValueError, "variables", load("tf1", FULL, {}, at="a")),
    (ValueError, "lstm_cell/bias:0", load("tf1", FULL, TWICE)),
    (TypeError, "cell", load("tf1", FULL, {}, cell=bound(GRU))),
    (ValueError, "bidirectional", load("tf1", FULL, {}, **BOTH)),
    (ValueError, "memory_at", load("tf1", GRU, {}, memory_at="model")),
    (ValueError, "bias_ih_l1", load("torch", FREE, SECOND)),
    (ValueError, "state_dict", load("torch", FREE, THIRD)),
    (TypeError, "bidirectional", load("torch", FREE, {}, bidirectional="yes")),
    (TypeError, "weight_hh_l0", load("torch", RNN, {"weight_hh_l0": [1.0]})),
    # Any function, and its arguments.
    (ValueError, "input_shape", call("from_haiku", CONVS)),
    (ValueError, "at", call("to_haiku", GRUS, at="a")),
    (ValueError, "weights", call("from_flax", {"i": {1: ONE, "1": ONE}})),
    (ValueError, "layers/1", call("from_flax", {"layers": {0: {}, 2: {}}})),
    (TypeError, "model", call("from_onnx", [ONE, ONE])),
    (TypeError, "variables", call("from_tf1", "model.ckpt")),
    (TypeError, "state[1]", call("from_torch_state", (ONE, MASKED))),
    (TypeError, "cell", call("to_torch", GRU)),
    (ValueError, "state", call("from_torch_state", (ONE, ONE[:3]))),
    (ValueError, "state", call("to_torch_state", ((ONE, ONE), (ONE, ONE)))),
    # Names that are no strings.
    (ValueError, "weight_ih_l0", call("from_torch", {1: ONE})),
]  # fmt: skip
prepare = lambda name: f"^`{re.escape(name)}` "
test_refusals = refusals(ROWS, prepare=prepare)


class OfOnesOwn(LSTMCell):
    """A cell of unknown equations."""


def free(**params):
    return FREE.bind({"kernel": np.ones((7, 16)), "bias": BIAS} | params)


def pair(*cells, **params):
    return MultiRNNCell(cells).bind({"cell_0": bound(FREE).params} | params)


conv = contrib.Conv1DLSTMCell(
    input_shape=[4, 2], output_channels=1, kernel_shape=[2], skip_connection=True
).bind({"kernel": np.ones((2, 3, 4)), "biases": np.ones(4)})
MIXED = MultiRNNCell([contrib.ConvLSTMCell(1, [4, 2], 1, [2]), FREE])
MIXED = MIXED.bind({"cell_0": conv.params, "cell_1": bound(FREE).params})
NAMED_TANH = functools.wraps(np.tanh)(lambda x: x)
TOP, TWO_SIZES = (MultiRNNCell([FREE, c]) for c in (PROJECTED, LSTMCell(5)))
HIGHWAY = contrib.HighwayWrapper(FREE).bind({"carry_w": ONE})
NO_ZEROS = "cell.params['candidate/hidden_projection/bias']"
OTHERS = "equinox haiku linen nnx"
KERNEL, OTHER_BIAS = "cell.params['kernel']", BIAS.astype(np.float32)

# The libraries, and what they get: a cell, or a pair for two directions.
UNSUPPORTED = [
    (TypeError, "cell.params", ALL, FREE.bind(None)),
    (ValueError, "cell.params", ALL, FREE.bind({"kernel": 1})),
    (TypeError, KERNEL, ALL, free(kernel=[[1.0]])),
    (ValueError, KERNEL, ALL, free(kernel=np.ones((4, 16)))),
    (TypeError, "cell.params['bias']", ALL, free(bias=OTHER_BIAS)),
    (ValueError, "cell.cells[1].params", ALL, pair(FREE, LSTMCell(4))),
    (TypeError, "cell", NOT_TF1, OfOnesOwn(4)),
    (TypeError, "cell", NOT_TF1, jaxrnn.ResidualWrapper(FREE)),
    (ValueError, "cell", f"{OTHERS} keras torch", PEEPING),
    (ValueError, "cell.cells[1]", f"{OTHERS} keras onnx", TOP),
    (ValueError, "cell", NOT_TF1, LSTMCell(4, cell_clip=3.0)),
    (ValueError, "cell", f"{OTHERS} keras torch", COUPLED),
    (ValueError, "cell", f"{OTHERS} torch", HARD),
    (ValueError, "cell", "onnx", MISH),
    (ValueError, "cell", "equinox", RNN),
    (ValueError, "cell", "equinox linen nnx torch", GRU),
    (ValueError, "cell", "haiku", AFTER),
    (ValueError, "cell", "equinox torch", LSTMCell(4, activation="relu")),
    (ValueError, "cell", "equinox", LSTMCell(4, activation=NAMED_TANH)),
    (ValueError, "cell.skip_connection", "haiku", conv),
    (TypeError, "cell.cells[1]", "haiku", MIXED),
    (ValueError, NO_ZEROS, "nnx", AFTER),
    (ValueError, "cell", "onnx", GRUCell(4, activation="linear")),
    (ValueError, "cells_bw[0]", "onnx", (FREE, GRU)),
    (ValueError, "params", "tf1", HIGHWAY),
    (ValueError, "cell", "torch", SOFTSIGN),
    (ValueError, "cell", "torch", TWO_SIZES),
]  # fmt: skip


@pytest.mark.parametrize(("error", "argument", "names", "cell"), UNSUPPORTED)
def test_cells_without_an_equivalent(error, argument, names, cell):
    for name in names.split():
        with pytest.raises(error, match=prepare(argument)):
            saved(name, cell)


def test_traced_weights_whose_values_are_needed():
    """A bias that nnx's GRU lacks must be zero; two copies of TensorFlow, equal."""
    two = MultiRNNCell([AFTER, AFTER])
    save = lambda params: convert.to_nnx(AFTER.bind(params))
    load = lambda weights: convert.from_tf1(weights, cell=two, inputs=ONE)
    variables = convert.to_tf1(bound(two, depth=4))
    for run, given in ((save, bound(AFTER).params), (load, variables)):
        with pytest.raises(TypeError, match="must be concrete"):
            jax.eval_shape(run, given)
