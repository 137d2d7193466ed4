"""Layers of Keras 3 on JAX that run jaxrnn's loops: copy them into your program.

Set the environment variable `KERAS_BACKEND` to jax.
"""

# ruff: noqa: D102 (The base classes describe the methods.)
# pyright: reportMissingImports=false

import jax
import keras
import numpy as np

import jaxrnn
from jaxrnn import convert

PLAIN = {
    "activation": "tanh",
    "recurrent_activation": "sigmoid",
    "dropout": 0.0,
    "recurrent_dropout": 0.0,
    "go_backwards": False,
    "return_state": False,
    "stateful": False,
}


@keras.saving.register_keras_serializable()
class LSTM(keras.layers.LSTM):
    """Keras' layer and weights; with other options, Keras' own loop runs."""

    def call(self, sequences, initial_state=None, mask=None, training=False):
        if initial_state is not None or not PLAIN.items() <= self.get_config().items():
            return super().call(sequences, initial_state, mask, training)
        cell = convert.from_keras([weight.value for weight in self.weights])
        outputs, state = jaxrnn.dynamic_rnn(
            cell, sequences, mask=mask, dtype=sequences.dtype
        )
        return outputs if self.return_sequences else state.h


@keras.saving.register_keras_serializable()
class CellLayer(keras.layers.Layer):
    """Any cell of jaxrnn, by its name and arguments, which a saved model holds."""

    def __init__(self, cell, options, **kwargs):
        super().__init__(**kwargs)
        self.cell = getattr(jaxrnn, cell)(**options)
        self.config = {"cell": cell, "options": options}
        self.supports_masking = True

    def build(self, shape):
        # `keras.utils.set_random_seed` seeds this generator of NumPy.
        seed = np.random.randint(2**31)  # noqa: NPY002
        step = jax.ShapeDtypeStruct((1, shape[-1]), self.variable_dtype)
        init = lambda: self.cell.init(jax.random.key(seed), step)
        types, self.structure = jax.tree.flatten(jax.eval_shape(init))
        array = lambda i: lambda *_, **__: jax.tree.leaves(init())[i]
        self.arrays = [self.add_weight(x.shape, array(i)) for i, x in enumerate(types)]

    def call(self, sequences, mask=None):
        params = self.structure.unflatten([each.value for each in self.arrays])
        bound = self.cell.bind(params)
        return jaxrnn.dynamic_rnn(bound, sequences, mask=mask, dtype=sequences.dtype)[0]

    def get_config(self):
        return super().get_config() | self.config
