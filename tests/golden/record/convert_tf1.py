"""Records `convert/tf1.npz` from live TensorFlow.

It needs what `graphs.py` needs:

    python -m tests.golden.record.convert_tf1

Under the name of each case there are

- `variables/<name>`: all that a checkpoint of the graph holds, as `tf.train.Saver`
  writes it and `tf.train.load_checkpoint` reads it, slots of the optimizer and all;
- `inputs`, `outputs/<i>` and `states/<i>`: the leaves that the driver gives;
- `gradients/<name>` and `gradients/inputs`: gradients of the sum of all leaves, each
  entry times the cosine of its place in its leaf.
"""

import os
import tempfile

import numpy as np

from .. import store
from .graphs import tf, tf1

BATCH, TIME, DEPTH = 2, 3, 2
DTYPE = "float64"
nn = tf1.nn.rnn_cell


def stack(x):
    """Four kinds on one another, the last with all that an LSTM can have."""
    options = {"num_proj": 2, "cell_clip": 0.4, "proj_clip": 0.2}
    full = nn.LSTMCell(3, use_peepholes=True, **options)
    cells = [nn.BasicRNNCell(2), nn.GRUCell(3), nn.BasicLSTMCell(2), full]
    return tf1.nn.dynamic_rnn(nn.MultiRNNCell(cells), x, dtype=DTYPE)


def scoped(x):
    """One layer within a model, with its scope and its activation."""
    with tf1.variable_scope("encoder"):
        cell = nn.LSTMCell(
            3, use_peepholes=True, num_proj=2, forget_bias=0.25, activation=tf.nn.relu
        )
        return tf1.nn.dynamic_rnn(cell, x, dtype=DTYPE, scope="lstm")


def wrapped(x):
    """A wrapper adds nothing to the names."""
    cell = nn.DropoutWrapper(nn.GRUCell(3))
    return tf1.nn.dynamic_rnn(cell, x, dtype=DTYPE)


def both_ways(x, layer=0):
    """A layer that runs in both directions."""
    gru = nn.GRUCell(3)
    lstm = nn.MultiRNNCell([nn.LSTMCell(2)])
    cells = (gru, lstm) if layer == 0 else (nn.BasicRNNCell(2), gru)
    return tf1.nn.bidirectional_dynamic_rnn(*cells, x, dtype=DTYPE)


def stack_both_ways(x):
    """What `tf.contrib.rnn.stack_bidirectional_dynamic_rnn` did, scopes and all."""
    states = []
    with tf1.variable_scope("stack_bidirectional_rnn"):
        for i in range(2):
            with tf1.variable_scope(f"cell_{i}"):
                pair, final = both_ways(x, i)
                x = tf.concat(pair, 2)
                states.append(final)
    return x, states


CASES = (stack, scoped, wrapped, both_ways, stack_both_ways)


def weighted_sum(leaves):
    """A scalar whose gradient differs between all entries."""
    total = tf.constant(0, DTYPE)
    for leaf in leaves:
        weights = tf.cos(tf.cast(tf.range(tf.size(leaf)), leaf.dtype))
        total += tf.reduce_sum(leaf * tf.reshape(weights, tf.shape(leaf)))
    return total


def read_back(session, variables):
    """What a checkpoint of the session holds, by `tf.train.load_checkpoint`."""
    with tempfile.TemporaryDirectory() as folder:
        path = tf1.train.Saver().save(session, os.path.join(folder, "model.ckpt"))
        reader = tf.train.load_checkpoint(path)
        names = reader.get_variable_to_shape_map()
        if set(names) != {variable.op.name for variable in variables}:
            raise ValueError(f"The checkpoint holds {sorted(names)}.")
        return {name: reader.get_tensor(name) for name in sorted(names)}


def record(name, build):
    """All arrays of a case."""
    rng = np.random.default_rng(len(name))
    with tf.Graph().as_default(), tf1.Session() as session:
        inputs = rng.normal(size=(BATCH, TIME, DEPTH))
        x = tf1.placeholder(DTYPE, inputs.shape)
        results = dict(zip(("outputs", "states"), build(x), strict=True))
        leaves = {key: tf.nest.flatten(value) for key, value in results.items()}
        loss = weighted_sum(leaves["outputs"] + leaves["states"])
        trained = tf1.trainable_variables()
        gradients = tf1.gradients(loss, [*trained, x])
        tf1.train.AdamOptimizer().minimize(loss)
        session.run(tf1.global_variables_initializer())
        for variable in trained:
            drawn = rng.normal(size=variable.shape.as_list()) * 0.7
            variable.load(drawn, session)
        names = [variable.op.name for variable in trained] + ["inputs"]
        made = {
            f"variables/{k}": v
            for k, v in read_back(session, tf1.global_variables()).items()
        }
        made["inputs"] = inputs
        for key, value in leaves.items():
            got = session.run(value, {x: inputs})
            made |= {f"{key}/{i}": leaf for i, leaf in enumerate(got)}
        got = session.run(gradients, {x: inputs})
        made |= {f"gradients/{k}": v for k, v in zip(names, got, strict=True)}
        return {f"{name}/{key}": value for key, value in made.items()}


if __name__ == "__main__":
    arrays = {}
    for build in CASES:
        arrays |= record(build.__name__, build)
    np.savez_compressed(store.HERE / "convert" / "tf1.npz", **arrays)
