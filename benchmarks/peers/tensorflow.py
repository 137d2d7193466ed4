"""TensorFlow 1: `dynamic_rnn` in a graph that a session runs, time-major."""

import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # Without it there is no `rnn_cell`.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ..core.built import LEARNING_RATE, Built, LeftOutError, Variant
from ..core.cases import Case
from ..core.data import Data
from ..core.layouts import Layers
from ..core.results import forward_results, step_results, train_results

USES = ("tensorflow", "tf-keras")

v1 = tf.compat.v1

CELLS = {
    "lstm": v1.nn.rnn_cell.LSTMCell,
    "peephole": lambda units: v1.nn.rnn_cell.LSTMCell(units, use_peepholes=True),
    "gru": v1.nn.rnn_cell.GRUCell,
    "rnn": v1.nn.rnn_cell.BasicRNNCell,
}


def build(case: Case, data: Data) -> Built:
    """Each mode with both kinds of loop."""
    if case.layer_cell not in CELLS:
        raise LeftOutError("TensorFlow has no such cell")
    variants = {}
    for name, switch in (
        ("loop v1", v1.disable_control_flow_v2),
        ("loop v2", v1.enable_control_flow_v2),
    ):
        switch()
        with tf.Graph().as_default():
            run, read = _MODES[case.mode](Net(case, data))
        variants[name] = Variant(run, read)
    return Built(variants)


class Net:
    """The graph of a case and its session; sequences `[T, B, ...]`.

    The data are variables of the graph: feeds would be copied at each call, and
    constants might be folded.
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
        """The sum of outputs and state times their cotangents."""
        data = self.data
        weights = _variable(np.swapaxes(data.output_cotangents, 0, 1))
        loss = tf.reduce_sum(self.outputs * weights)
        for layer, cotangents in zip(self.final, data.state_cotangents, strict=True):
            for name, cotangent in cotangents.items():
                loss += tf.reduce_sum(layer[name] * _variable(cotangent))
        return loss

    def program(self, computed: Any, *fetched: tf.Tensor) -> Callable[[], Any]:
        """A call that computes all of `computed`, but copies only `fetched` to Python.

        The variables are initialised here.
        """
        self.session.run(v1.global_variables_initializer())
        for layer, weights in zip(self.variables, self.data.weights, strict=True):
            for name, variable in layer.items():
                variable.load(weights[name], self.session)
        operations = [
            value if isinstance(value, tf.Operation) else value.op
            for value in tf.nest.flatten(computed)
        ]
        return self.session.make_callable([*operations, *fetched])


def _variable(value: np.ndarray) -> tf.Tensor:
    return tf.identity(v1.Variable(value, trainable=False))


def _tensors(layer: dict[str, np.ndarray]) -> dict[str, tf.Tensor]:
    return {name: _variable(value) for name, value in layer.items()}


def _as_cell_state(layer: dict[str, tf.Tensor]) -> Any:
    return v1.nn.rnn_cell.LSTMStateTuple(**layer) if "c" in layer else layer["h"]


def _by_layers(variables: list[Any], data: Data) -> list[dict[str, Any]]:
    """The variables by their names in `data.weights`."""
    layers: list[dict[str, Any]] = [{} for _ in data.weights]
    for variable in variables:
        path = variable.name.removesuffix(":0")
        found = re.search(r"/cell_(\d+)/", path)
        number = int(found[1]) if found else 0
        [name] = [n for n in data.weights[number] if path.endswith(f"/{n}")]
        layers[number][name] = variable
    return layers


Program = tuple[Callable[[], Any], Callable[[Any], dict[str, np.ndarray]]]


def _forward(net: Net) -> Program:
    def read(_):
        outputs, final = net.session.run((net.outputs, net.final))
        return forward_results(net.data, np.swapaxes(outputs, 0, 1), final)

    return net.program((net.outputs, net.final)), read


def _train(net: Net) -> Program:
    loss = net.loss()
    leaves = (net.variables, net.inputs, net.state)
    flat = tf.nest.flatten(leaves)
    fetched = (loss, tf.nest.pack_sequence_as(leaves, tf.gradients(loss, flat)))

    def read(_):
        loss, (weights, inputs, state) = net.session.run(fetched)
        return train_results(loss, weights, np.swapaxes(inputs, 0, 1), state)

    return net.program(fetched), read


def _step(net: Net) -> Program:
    loss = net.loss()
    update = v1.train.AdamOptimizer(LEARNING_RATE).minimize(loss)

    def read(raw):
        after: Layers = net.session.run(net.variables)
        return step_results(raw[-1], net.data.weights, after)

    return net.program(update, loss), read


_MODES = {"forward": _forward, "stream": _forward, "train": _train, "step": _step}
