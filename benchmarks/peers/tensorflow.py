"""TensorFlow 1: `dynamic_rnn` in a graph and a session, time-major."""

import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # `rnn_cell` exists only with it.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import functools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from .. import results
from ..built import LeftOutError, Variant, Variants
from ..cases import Case
from ..data import Data

USES = ("tensorflow", "tf-keras")

v1 = tf.compat.v1

CELLS = {
    "lstm": v1.nn.rnn_cell.LSTMCell,
    "peephole": lambda units: v1.nn.rnn_cell.LSTMCell(units, use_peepholes=True),
    "gru": v1.nn.rnn_cell.GRUCell,
}


def build(case: Case, data: Data) -> Variants:
    """The variants: both kinds of TensorFlow's loop."""
    if case.layer_cell not in CELLS:
        raise LeftOutError("TensorFlow has no such cell")
    loops = {
        "loop v1": v1.disable_control_flow_v2,
        "loop v2": v1.enable_control_flow_v2,
    }
    variant = functools.partial(_variant, case, data)
    return {name: functools.partial(variant, switch) for name, switch in loops.items()}


def _variant(case: Case, data: Data, switch: Callable[[], None]) -> Variant:
    switch()
    with tf.Graph().as_default():
        net = Net(case, data)
        run, found = _program(case.mode, net)
    read = lambda _: results.read(case.mode, data, net, net.session.run(found))
    return Variant(run, read)


class Net:
    """The graph and the session of a case; sequences are `[T, B, ...]`.

    The data are variables of the graph, because TensorFlow would copy feeds at each
    call and could fold constants.
    """

    def __init__(self, case: Case, data: Data):
        self.case, self.data = case, data
        v1.set_random_seed(0)
        self.inputs = _variable(np.swapaxes(data.inputs, 0, 1))
        self.state = [_tensors(layer) for layer in data.state]
        self.outputs, self.final = self._unroll()
        self.variables = _by_layers(v1.trainable_variables(), data)
        cores = int(os.environ["BENCHMARK_CORES"])
        self.session = v1.Session(
            config=v1.ConfigProto(
                intra_op_parallelism_threads=cores, inter_op_parallelism_threads=cores
            )
        )

    def _unroll(self) -> tuple[tf.Tensor, list[dict[str, tf.Tensor]]]:
        case, lengths = self.case, self.data.lengths
        cells = [CELLS[case.layer_cell](case.units) for _ in case.layer_depths]
        states = [_as_cell_state(layer) for layer in self.state]
        stacked = len(cells) > 1
        outputs, final = v1.nn.dynamic_rnn(
            v1.nn.rnn_cell.MultiRNNCell(cells) if stacked else cells[0],
            self.inputs,
            None if lengths is None else _variable(lengths),
            tuple(states) if stacked else states[0],
            time_major=True,
        )
        final = final if stacked else [final]
        names = case.state_names
        return outputs, [
            dict(zip(names, tf.nest.flatten(layer), strict=True)) for layer in final
        ]

    def loss(self) -> tf.Tensor:
        """The sum of the outputs and the state, each times its cotangent."""
        data = self.data
        weights = _variable(np.swapaxes(data.output_cotangents, 0, 1))
        loss = tf.reduce_sum(self.outputs * weights)
        for layer, cotangents in zip(self.final, data.state_cotangents, strict=True):
            for name, cotangent in cotangents.items():
                loss += tf.reduce_sum(layer[name] * _variable(cotangent))
        return loss

    def program(self, computed: Any) -> Callable[[], Any]:
        """Initialize the variables; a function that computes, and copies no result."""
        self.session.run(v1.global_variables_initializer())
        for layer, weights in zip(self.variables, self.data.weights, strict=True):
            for name, variable in layer.items():
                variable.load(weights[name], self.session)
        operations = [value.op for value in tf.nest.flatten(computed)]
        return self.session.make_callable(operations)

    # Only the order of the axes differs from the data's layouts.
    read_params = read_state = staticmethod(lambda layers: layers)
    read_sequences = staticmethod(lambda sequences: np.swapaxes(sequences, 0, 1))


def _variable(value: np.ndarray) -> tf.Tensor:
    return tf.identity(v1.Variable(value, trainable=False))


def _tensors(layer: dict[str, np.ndarray]) -> dict[str, tf.Tensor]:
    return {name: _variable(value) for name, value in layer.items()}


def _as_cell_state(layer: dict[str, tf.Tensor]) -> Any:
    return v1.nn.rnn_cell.LSTMStateTuple(**layer) if "c" in layer else layer["h"]


def _by_layers(variables: list[Any], data: Data) -> list[dict[str, Any]]:
    """The variables of each layer, by their names in `data.weights`."""
    layers: list[dict[str, Any]] = [{} for _ in data.weights]
    for variable in variables:
        path = variable.name.removesuffix(":0")
        found = re.search(r"/cell_(\d+)/", path)
        number = int(found[1]) if found else 0
        [name] = [n for n in data.weights[number] if path.endswith(f"/{n}")]
        layers[number][name] = variable
    return layers


def _program(mode: str, net: Net) -> tuple[Callable[[], Any], Any]:
    """A function that runs a mode, and the tensors for `results.read`."""
    if mode == "forward":
        found = net.outputs, net.final
        return net.program(found), found
    loss = net.loss()
    leaves = (net.variables, net.inputs, net.state)
    gradients = tf.gradients(loss, tf.nest.flatten(leaves))
    found = loss, tf.nest.pack_sequence_as(leaves, gradients)
    return net.program(found), found
