"""The functions that tests of `to_stablehlo` and `to_tflite` export."""

import helpers
import jax.numpy as jnp
import numpy as np

import jaxrnn

F32 = jnp.float32
UNITS, DEPTH = 4, 3


def bound(cell, depth=DEPTH):
    return helpers.bound(cell, depth, "float32", scale=0.5)


def dynamic(cell):
    cell = bound(cell)
    return lambda x, n: jaxrnn.dynamic_rnn(cell, x, n, dtype=F32)


def data(batch=3, time=5):
    x = np.random.default_rng(0).normal(size=(batch, time, DEPTH))
    return jnp.asarray(x, F32), jnp.asarray([time, 0, 2][:batch], jnp.int32)


FUNCTIONS = {
    "basic": dynamic(jaxrnn.BasicRNNCell(UNITS)),
    "lstm": dynamic(jaxrnn.LSTMCell(UNITS)),
    "lstm-projected": dynamic(jaxrnn.LSTMCell(UNITS, use_peepholes=True, num_proj=2)),
    "gru": dynamic(jaxrnn.GRUCell(UNITS)),
    "stack": dynamic(jaxrnn.MultiRNNCell([jaxrnn.GRUCell(UNITS), jaxrnn.LSTMCell(2)])),
}
