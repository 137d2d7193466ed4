"""Writes `tests/golden/convert/tf1_attention.json`: the names of attention's variables.

It runs contrib's sources on TensorFlow 2.21, as `contrib_sources.py` says:

    python tests/golden/generate/make_convert_attention.py --contrib PATH

For each graph of `GRAPHS` there are the shapes of its variables under their names.
"""

import argparse
import functools
import os
import pathlib
import sys
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
GOLDEN = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(GOLDEN.parent))

import tensorflow as tf  # noqa: E402
from golden.generate import contrib_sources, variable_names  # noqa: E402

tf1 = tf.compat.v1
BATCH, TIME, DEPTH = 2, 3, 3


def constant(*shape: int) -> tf.Tensor:
    """Some numbers between -1 and 1 that are not all equal."""
    count = tf.reduce_prod(shape)
    return tf.reshape(tf.sin(tf.cast(tf.range(count), tf.float32)), shape)


def decoder(contrib: Any) -> Any:
    """`dynamic_decode`, with mechanism and `output_layer` as scripts have them."""
    mechanism = contrib.attention_wrapper.LuongAttention(
        4, constant(BATCH, 5, 6), scale=True
    )
    cell = contrib.attention_wrapper.AttentionWrapper(
        tf1.nn.rnn_cell.LSTMCell(4), mechanism, attention_layer_size=5
    )
    helper = contrib.helper.TrainingHelper(constant(BATCH, TIME, DEPTH), [TIME] * BATCH)
    state = cell.zero_state(BATCH, tf.float32)
    # The layer is from `tf.layers`, whose class the decoder accepts.
    dense = contrib.attention_wrapper.layers_core.Dense
    found = contrib.basic_decoder.BasicDecoder(
        cell, helper, state, output_layer=dense(7)
    )
    outputs, _, _ = contrib.decoder.dynamic_decode(found)
    return outputs.rnn_output


def scoped(contrib: Any) -> Any:
    """The same, all of it in a scope of the script's."""
    with tf1.variable_scope("model/decoding"):
        return decoder(contrib)


def several(contrib: Any) -> Any:
    """`dynamic_rnn` with two mechanisms of one kind."""
    mechanisms = [
        contrib.attention_wrapper.BahdanauAttention(
            4, constant(BATCH, *memory), normalize=True
        )
        for memory in ((5, 6), (7, 2))
    ]
    cell = contrib.attention_wrapper.AttentionWrapper(
        tf1.nn.rnn_cell.GRUCell(4), mechanisms, attention_layer_size=[5, 3]
    )
    return over_time(cell)


def stacked(contrib: Any) -> Any:
    """`dynamic_rnn` of a stack, each layer of which attends."""
    cells = []
    for memory in ((5, 6), (7, 2)):
        mechanism = contrib.attention_wrapper.LuongAttention(
            4, constant(BATCH, *memory)
        )
        cell = contrib.attention_wrapper.AttentionWrapper(
            tf1.nn.rnn_cell.GRUCell(4), mechanism, attention_layer_size=5
        )
        cells.append(cell)
    return over_time(tf1.nn.rnn_cell.MultiRNNCell(cells))


def over_time(cell: Any) -> tf.Tensor:
    """The outputs of `dynamic_rnn`."""
    state = cell.zero_state(BATCH, tf.float32)
    inputs = constant(BATCH, TIME, DEPTH)
    return tf1.nn.dynamic_rnn(cell, inputs, initial_state=state, dtype=tf.float32)[0]


GRAPHS = {f.__name__: f for f in (decoder, scoped, several, stacked)}


def main() -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contrib", type=pathlib.Path, required=True)
    contrib = contrib_sources.load(parser.parse_args().contrib)
    graphs = {name: functools.partial(run, contrib) for name, run in GRAPHS.items()}
    variable_names.write(GOLDEN / "convert" / "tf1_attention.json", graphs)


if __name__ == "__main__":
    main()
