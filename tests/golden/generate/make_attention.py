"""Writes the goldens of `tests/golden/attention` from contrib's sources.

They are run on TensorFlow 2.21 with `tf_keras` 2.21, as `contrib_sources.py` says:

    python tests/golden/generate/make_attention.py --contrib PATH/tensorflow/contrib

Of each case of `attention_specs.py` the file `attention.npz` holds, after its name,
`params/...`, `inputs`, `memory/...`, `cell_state/...`; what the run gives, `outputs`
and `state/...`; cotangents `w/...`, and the gradients of the sum of their products
with outputs and last states, `grads/...`.
"""

import argparse
import os
import pathlib
import sys
import warnings
import zlib

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # Its tanh is approximate.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

import numpy as np
import tensorflow as tf
from golden import attention_specs as specs
from golden.generate import contrib_sources

tf1 = tf.compat.v1
FILE = pathlib.Path(__file__).resolve().parents[1] / "attention.npz"
_SCOPES = ("rnn/attention_wrapper/", "rnn/")


def swap_signs(keys, values):
    """Keys and values of one's own."""
    return -keys, tf.concat([values, -values], axis=-1)


def sum_of_halves(inputs, attention):
    """Inputs of a cell of one's own."""
    return tf.concat([inputs * 0.5, tf.tanh(attention)], axis=-1)


def sharpened(mechanism, cell_output, attention_state, attention_layer):
    """An attention of one's own."""
    del attention_layer
    alignments, state = mechanism(cell_output, state=attention_state)
    context = tf.einsum("bt,btd->bd", alignments**2, mechanism.values)
    return context, alignments, state


def _named(options, hardmax):
    own = {f.__name__: f for f in (swap_signs, sum_of_halves, sharpened)}
    own["hardmax"] = hardmax
    return {
        k: own.get(v, v) if isinstance(v, str) and k != "mode" else v
        for k, v in options.items()
    }


class Case:
    """One case as a graph, and its arrays."""

    def __init__(self, case, contrib):
        self.case, self.contrib = case, contrib.attention_wrapper
        self.rng = np.random.default_rng(zlib.crc32(case["name"].encode()))
        self.arrays, self.feeds = {}, {}
        self.dtype = tf.as_dtype(case["dtype"])

    def give(self, name, shape, scale=1.0):
        """A placeholder whose value is drawn."""
        value = scale * self.rng.standard_normal(shape)
        value = np.asarray(value).astype(self.dtype.as_numpy_dtype)
        tensor = tf1.placeholder(self.dtype, shape)
        self.arrays[name], self.feeds[name] = value, tensor
        return tensor

    def wrapper(self):
        """The cell with its attention, which holds the memories."""
        case, mechanisms = self.case, []
        for i, (kind, options) in enumerate(case["mechanisms"]):
            memory = self.give(f"memory/{i}", (specs.BATCH, *specs.MEMORIES[i]))
            lengths = specs.LENGTHS[i] if case["memory_lengths"] else None
            lengths = None if lengths is None else tf.constant(lengths)
            mechanisms.append(
                getattr(self.contrib, kind)(
                    4,
                    memory,
                    memory_sequence_length=lengths,
                    dtype=self.dtype,
                    **_named(options, self.contrib.hardmax),
                )
            )
        kind, units = case["cell"]
        cell = getattr(tf1.nn.rnn_cell, kind)(units, dtype=self.dtype)
        given = None
        if case["given_cell_state"]:
            shape = (specs.BATCH, units)
            parts = [self.give(f"cell_state/{name}", shape) for name in "ch"]
            given = tf1.nn.rnn_cell.LSTMStateTuple(*parts)
        return self.contrib.AttentionWrapper(
            cell,
            mechanisms if case["several"] else mechanisms[0],
            initial_cell_state=given,
            dtype=self.dtype,
            **_named(case["wrapper"], None),
        )

    def run(self, session):
        """All arrays of the case."""
        case = self.case
        inputs = self.give("inputs", (specs.BATCH, specs.TIME, specs.DEPTH))
        cell = self.wrapper()
        lengths = case["lengths"] and tf.constant(case["lengths"])
        outputs, state = tf1.nn.dynamic_rnn(
            cell,
            inputs,
            lengths,
            initial_state=cell.zero_state(specs.BATCH, self.dtype),
            dtype=self.dtype,
        )
        results = {"outputs": outputs} | self.results(state)
        variables = {_path(v.name): v for v in tf1.trainable_variables()}
        sources = variables | self.feeds
        floats = {k: v for k, v in results.items() if v.dtype.is_floating}
        weights = {k: tf1.placeholder(v.dtype, v.shape) for k, v in floats.items()}
        grads = tf1.gradients(
            list(floats.values()),
            list(sources.values()),
            list(weights.values()),
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        for name, variable in variables.items():
            value = 0.6 * self.rng.standard_normal(variable.shape)
            value = np.asarray(value).astype(self.dtype.as_numpy_dtype)
            self.arrays[name] = value
            session.run(tf1.assign(variable, value))
        feed = {tensor: self.arrays[name] for name, tensor in self.feeds.items()}
        self.arrays |= session.run(results, feed)
        for name, placeholder in weights.items():
            shape = self.arrays[name].shape
            drawn = np.asarray(self.rng.standard_normal(shape))
            self.arrays[f"w/{name}"] = drawn.astype(self.dtype.as_numpy_dtype)
            feed[placeholder] = self.arrays[f"w/{name}"]
        found = zip(sources, session.run(grads, feed), strict=True)
        self.arrays |= {f"grads/{name}": grad for name, grad in found}
        return {f"{case['name']}/{name}": a for name, a in self.arrays.items()}

    def results(self, state):
        """The parts of the last state, by name."""
        several = self.case["several"]
        parts = {"state/time": state.time, "state/attention": state.attention}
        cells = state.cell_state
        parts |= (
            {"state/c": cells.c, "state/h": cells.h}
            if hasattr(cells, "c")
            else {"state/h": cells}
        )
        for i in range(len(self.case["mechanisms"])):
            pick = lambda x, i=i: x[i] if several else x
            parts[f"state/alignments/{i}"] = pick(state.alignments)
            if self.case["wrapper"].get("alignment_history"):
                history = pick(state.alignment_history).stack()
                memory_time = specs.MEMORIES[i][0]
                history.set_shape((specs.TIME, specs.BATCH, memory_time))
                parts[f"state/history/{i}"] = history
        return parts


def _path(name):
    name = name.removesuffix(":0")
    for scope in _SCOPES:
        name = name.removeprefix(scope)
    return f"params/{name}"


def main():
    """Writes the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contrib", type=pathlib.Path, required=True)
    contrib = contrib_sources.load(parser.parse_args().contrib)
    warnings.simplefilter("ignore")
    tf1.disable_eager_execution()
    tf1.logging.set_verbosity(tf1.logging.ERROR)
    arrays = {}
    for case in specs.CASES:
        with tf1.Graph().as_default(), tf1.Session() as session:
            try:
                arrays |= Case(case, contrib).run(session)
            except Exception as error:
                error.add_note(case["name"])
                raise
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()
