"""A jaxrnn cell as a layer of sequence-layers: copy it into your program.

The cell needs one array of inputs, one array of outputs, and a batch axis in each array
of its state. Dropout is off, because the layer passes no key.
"""

# ruff: noqa: D102, D106 (The base classes describe the methods.)
# pyright: reportMissingImports=false

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import sequence_layers.jax as sl

import jaxrnn


class CellLayer(sl.SequenceLayer):
    """A jaxrnn cell as a layer."""

    @dataclasses.dataclass(frozen=True)
    class Config(sl.SequenceLayerConfig):
        cell: jaxrnn.RNNCell
        name: str | None = None

        def make(self):
            return CellLayer(self.cell, name=self.name)

    cell: jaxrnn.RNNCell

    @nn.compact
    def _run(self, x, state):
        step = jax.ShapeDtypeStruct((x.shape[0], *x.channel_shape), x.dtype)
        bound = self.cell.bind(self.param("cell", self.cell.init, step))
        outputs, state = jaxrnn.dynamic_rnn(
            bound, x.values, initial_state=state, mask=x.mask
        )
        return sl.MaskedSequence(outputs, x.mask), state

    @sl.check_layer
    def layer(self, x, *, training, constants=None):
        state = self.get_initial_state(x.shape[0], x.channel_spec, training=training)
        return self._run(x, state)[0]

    @sl.check_step
    def step(self, x, state, *, training, constants=None):
        return self._run(x, state)

    @nn.nowrap
    def get_initial_state(self, batch_size, input_spec, *, training, constants=None):
        return self.cell.zero_state(batch_size, self.get_output_dtype(input_spec.dtype))

    @nn.nowrap
    def get_output_shape(self, input_shape, *, constants=None):
        size = self.cell.output_size
        return (size,) if isinstance(size, int) else tuple(size)

    @nn.nowrap
    def get_output_dtype(self, input_dtype, *, constants=None):
        return input_dtype if jnp.issubdtype(input_dtype, jnp.floating) else jnp.float32

    @property
    def receptive_field_per_step(self):
        return {0: (-np.inf, 0)}
