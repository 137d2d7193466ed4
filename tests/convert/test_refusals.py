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
GRU, AFTER = GRUCell(4), jaxrnn.CudnnCompatibleGRUCell(4)
RNN = jaxrnn.BasicRNNCell(4)
HARD = GatedLSTMCell(4, forget_bias=0, recurrent_activation="hard_sigmoid")
COUPLED = contrib.CoupledInputForgetGateLSTMCell(4)
BOTH = {"bidirectional": True}
ONE, BIAS = np.ones((4, 4)), np.ones(16)
STEP = jax.ShapeDtypeStruct((1, 3), np.float64)


@functools.cache
def saved(name, cell):
    save = getattr(convert, "to_onnx_nodes" if name == "onnx" else f"to_{name}")
    return save(cell if hasattr(cell, "params") else bound(cell))


def changed(weights, change):
    """The weights, of which some differ; None removes one.

    A tuple is the shape of an array of ones.
    """
    if isinstance(weights, list):  # Of Keras or ONNX: the first layer.
        own = weights[0]
        if isinstance(own, dict):
            return [changed(own, change)]
        return [list(changed(dict(enumerate(own)), change).values())]
    ones = lambda value: np.ones(value) if isinstance(value, tuple) else value
    made = weights | {key: ones(value) for key, value in change.items()}
    return {key: value for key, value in made.items() if value is not None}


def load(library, cell, change, /, **options):
    """A call with the changed weights of a cell."""
    if library == "tf1":
        options = {"cell": cell, "inputs": STEP} | options
    name = "flax" if library in ("linen", "nnx") else library
    load = getattr(convert, f"from_{name}")
    return lambda: load(changed(saved(library, cell), change), **options)


def call(name, *args, **options):
    return lambda: getattr(convert, name)(*args, **options)


SECOND = {"weight_ih_l1": (16, 4), "weight_hh_l1": (16, 4)}
ALPHA = {"activations": ["Sigmoid", "elu", "elu"], "activation_alpha": [1.0, 2.0]}
CONV = {"op_type": "CausalConvWithState", "weight": np.ones((4, 1, 3))}
MEMORY = {"op_type": "LinearAttention", "query": 8, "value": 8}
MEMORY |= {"q_num_heads": 4, "kv_num_heads": 2}
SUM, DELTA = (MEMORY | {"update_rule": rule} for rule in ("sum", "delta"))
WIDER = convert.to_onnx_nodes(([bound(GRU, 4)],) * 2)
THIRD = {name.replace("l1", "l2"): shape for name, shape in SECOND.items()}
# The second layer does not read the outputs of the first.
ALIKE = {f"layers_{i}": {"cell": convert.to_linen(bound(FREE))} for i in "01"}

ROWS = [
    # The library, the cell whose weights are changed, the change, options.
    (ValueError, "cells.weight_hh", load("equinox", AFTER, {"weight_hh": (12, 5)})),
    (ValueError, "weights[0]", load("keras", FREE, {3: ONE, 4: ONE})),
    (ValueError, "layers[1]", call("from_flax", ALIKE)),
    (ValueError, "model[0]['W']", load("onnx", FREE, {"W": None})),
    (ValueError, "model[0]['clip']", load("onnx", FREE, {"clip": 104.0})),
    (ValueError, "model[0]['activation_alpha']", load("onnx", FREE, ALPHA)),
    (ValueError, "model[0]['direction']", load("onnx", FREE, {"direction": "reverse"})),
    (ValueError, "model", call("from_onnx", CONV | {"past_state": ONE})),
    (ValueError, "model['activation']", call("from_onnx", CONV | {"activation": ""})),
    (ValueError, "decay", call("from_onnx", MEMORY)),
    (ValueError, "num_key_heads", call("from_onnx", DELTA)),
    (ValueError, "model['update_rule']", call("from_onnx", SUM)),
    (ValueError, "bidirectional", call("from_onnx", CONV, **BOTH)),
    (ValueError, "model[0]['W']", call("from_onnx", [CONV, CONV])),
    # Nodes with one and with two directions are not one stack of cells.
    (ValueError, "layers[1]", call("from_onnx", [*saved("onnx", GRU), *WIDER])),
    (ValueError, "variables", load("tf1", FULL, {}, at="a")),
    (ValueError, "activation", load("keras", RNN, {})),
    (ValueError, "activation", load("linen", RNN, {})),
    (ValueError, "nonlinearity", load("torch", RNN, {})),
    (ValueError, "bidirectional", load("tf1", FULL, {}, **BOTH)),
    (ValueError, "bias_ih_l1", load("torch", FREE, SECOND)),
    (ValueError, "state_dict", load("torch", FREE, THIRD)),
    (TypeError, "bidirectional", load("torch", FREE, {}, bidirectional="yes")),
    # Any function, and its arguments.
    (TypeError, "variables", call("from_tf1", "model.ckpt")),
    (TypeError, "cell", call("to_torch", GRU)),
    (TypeError, "cell", call("to_keras", [bound(FREE)] * 2)),
    (ValueError, "state", call("from_torch_state", (ONE, ONE[:3]))),
]  # fmt: skip
prepare = lambda name: f"^`{re.escape(name)}` "
test_refusals = refusals(ROWS, prepare=prepare)


class OfOnesOwn(LSTMCell):
    """A cell of unknown equations."""


def free(**params):
    return FREE.bind({"kernel": np.ones((7, 16)), "bias": BIAS} | params)


def pair(*cells, **params):
    return MultiRNNCell(cells).bind({"cell_0": bound(FREE).params} | params)


TOP, TWO_SIZES = (MultiRNNCell([FREE, c]) for c in (PROJECTED, LSTMCell(5)))
HIGHWAY = contrib.HighwayWrapper(FREE).bind({"carry_w": ONE})
NO_ZEROS = "cell.params['candidate/hidden_projection/bias']"
OTHERS = "equinox haiku linen nnx"
KERNEL, OTHER_BIAS = "cell.params['kernel']", BIAS.astype(np.float32)

# The libraries, and what they get.
UNSUPPORTED = [
    (TypeError, "cell.params", ALL, FREE.bind(None)),
    (ValueError, KERNEL, ALL, free(kernel=np.ones((4, 16)))),
    (TypeError, "cell.params['bias']", ALL, free(bias=OTHER_BIAS)),
    (ValueError, "cell.cells[1].params", ALL, pair(FREE, LSTMCell(4))),
    (TypeError, "cell", NOT_TF1, OfOnesOwn(4)),
    (ValueError, "cell", f"{OTHERS} keras torch", PEEPING),
    (ValueError, "cell.cells[1]", f"{OTHERS} keras onnx", TOP),
    (ValueError, "cell", NOT_TF1, LSTMCell(4, cell_clip=3.0)),
    (ValueError, "cell", f"{OTHERS} keras torch", COUPLED),
    (ValueError, "cell", f"{OTHERS} torch", HARD),
    (ValueError, "cell", "equinox linen nnx torch", GRU),
    (ValueError, "cell", "haiku", AFTER),
    (ValueError, NO_ZEROS, "nnx", AFTER),
    (ValueError, "params", "tf1", HIGHWAY),
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
        with pytest.raises(TypeError, match="must not be traced"):
            jax.eval_shape(run, given)
