"""Cells in which each unit reads only its own state."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.nn.initializers import ones, zeros

from jaxrnn import AffineCell, ParamSpec, Stage, extend
from jaxrnn.extend import fields
from jaxrnn.typing import Array, DType, Initializer, Key, Params, PyTree, Specs

from ._contrib_lstm import ContribLSTM


def _uniform(key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
    """Draws from U(-1, 1), as contrib does for every `kernel_u`."""
    return jax.random.uniform(key, shape, dtype, -1, 1)


class _IndependentUnits(AffineCell):
    """A cell in which only the inputs are multiplied by a matrix.

    In each block, each unit has one weight for its own state. The updates read
    `kernel_u` as a list with one vector of weights per block.
    """

    num_units: int
    blocks: int
    kernel_initializer: Initializer | None = None
    bias_initializer: Initializer | None = None
    _update: Callable[..., tuple[Array, PyTree]]

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stage with one matrix product of the inputs for all blocks."""
        columns = self.blocks * self.num_units
        return (Stage(self._update, rows=0, columns=columns),)

    def elementwise_specs(self) -> Specs:
        """Specs of the weights of the state."""
        return {"kernel_u": [ParamSpec((self.num_units,), _uniform)] * self.blocks}

    def param_specs(self, depth: int) -> Specs:
        """Specs of `kernel_w`, `kernel_u` and `bias`."""
        return self._specs(depth, "kernel_w", self.blocks, zeros)

    def _specs(self, depth: int, name: str, blocks: int, bias: Initializer) -> Specs:
        """Specs of a layer; `bias` is the default initializer of its bias."""
        columns = blocks * self.num_units
        kernel = self.kernel_initializer or extend.glorot_uniform
        bias = self.bias_initializer or extend.bias_initializer(kernel, bias)
        return {
            name: ParamSpec((depth, columns), kernel, depth, blocks),
            "kernel_u": ParamSpec((1, columns), _uniform, blocks=blocks),
            "bias": ParamSpec((columns,), bias, blocks=blocks),
        }

    def stage_params(self, params: Params) -> Params:
        """The parameters under the names that the stage expects."""
        weights = jnp.split(params["kernel_u"][0], self.blocks)
        return {**params, "kernel": params["kernel_w"], "kernel_u": weights}


def _times(weight: Array, state: Array) -> Array:
    """Multiplies the state of each unit by the unit's weight."""
    return weight.astype(state.dtype)[None, :] * state


@fields.dataclass
class IndRNNCell(_IndependentUnits):
    """The basic recurrent cell with independent units (IndRNN).

        h' = activation(x kernel_w + h * kernel_u + bias)

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; state and
    output `[batch, H]`; `kernel_w` `[I, H]`; `kernel_u` `[1, H]`; `bias` `[H]`.

    Attributes:
        num_units: `H`, at least 0.
        activation: None for tanh, the name of a Keras activation, or a function.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, an activation is unknown, or `dtype` is
            not floating-point.

    Source: arXiv:1803.04831; `tf.contrib.rnn.IndRNNCell`.
    """

    num_units: int = fields.size()
    activation: fields.ActivationLike = fields.activation()
    reuse: object = fields.unused()
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()

    blocks = 1
    state_size = output_size = property(lambda self: self.num_units)

    def _update(self, params: Params, z: Array, state: Array) -> tuple[Array, Array]:
        new_state = self.activation(z + _times(params["kernel_u"][0], state))
        return new_state, new_state


@fields.dataclass
class IndyGRUCell(_IndependentUnits):
    """A gated recurrent unit (GRU) with independent units.

        r, u = split(sigmoid(x gates/kernel_w + [h, h] * gates/kernel_u + gates/bias))
        c    = activation(x candidate/kernel + r * h * candidate/kernel_u
                          + candidate/bias)
        h'   = u * h + (1 - u) * c

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; state and
    output `[batch, H]`; `gates/kernel_w` `[I, 2H]`, `gates/kernel_u` `[1, 2H]` and
    `gates/bias` `[2H]`, blocks r, u; `candidate/kernel` `[I, H]`, `candidate/kernel_u`
    `[1, H]` and `candidate/bias` `[H]`.

    Attributes:
        num_units: `H`, at least 0.
        activation: None for tanh, the name of a Keras activation, or a function.
        kernel_initializer: For both kernels that multiply the inputs; None for Glorot
            uniform.
        bias_initializer: For both biases; None for ones in the gates and zeros in the
            candidate.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, an activation is unknown, or `dtype` is
            not floating-point.

    Source: arXiv:1803.04831, applied to the GRU of arXiv:1406.1078;
    `tf.contrib.rnn.IndyGRUCell`.
    """

    num_units: int = fields.size()
    activation: fields.ActivationLike = fields.activation()
    reuse: object = fields.unused()
    kernel_initializer: Initializer | None = fields.initializer()
    bias_initializer: Initializer | None = fields.initializer()
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()

    blocks = 3
    state_size = output_size = property(lambda self: self.num_units)

    def param_specs(self, depth: int) -> Specs:
        """Specs of `gates` and `candidate`."""
        return {
            "gates": self._specs(depth, "kernel_w", 2, ones),
            "candidate": self._specs(depth, "kernel", 1, zeros),
        }

    def stage_params(self, params: Params) -> Params:
        """Concatenates the parameters of the gates and the candidate."""
        gates = params["gates"]
        candidate = params["candidate"]
        candidate = candidate | {"kernel_w": candidate["kernel"]}
        both = {
            name: jnp.concatenate([gates[name], candidate[name]], axis=-1)
            for name in ("kernel_w", "kernel_u", "bias")
        }
        return super().stage_params(both)

    def _update(self, params: Params, z: Array, state: Array) -> tuple[Array, Array]:
        r, u, c = jnp.split(z, 3, axis=-1)
        weights = params["kernel_u"]
        r = jax.nn.sigmoid(r + _times(weights[0], state))
        u = jax.nn.sigmoid(u + _times(weights[1], state))
        c = self.activation(c + _times(weights[2], r * state))
        new_state = u * state + (1 - u) * c
        return new_state, new_state


@fields.dataclass
class IndyLSTMCell(_IndependentUnits, ContribLSTM):
    """A long short-term memory (LSTM) with independent units.

        i, j, f, o = split(x kernel_w + [h, h, h, h] * kernel_u + bias)
        c' = c * sigmoid(f + forget_bias) + sigmoid(i) * activation(j)
        h' = activation(c') * sigmoid(o)

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; c, h and output
    `[batch, H]`; `kernel_w` `[I, 4H]`, `kernel_u` `[1, 4H]` and `bias` `[4H]`, blocks
    i, j, f, o. c may be float32 while h and the parameters are 16-bit; in this case,
    pass an `initial_state` with these dtypes.

    Attributes:
        num_units: `H`, at least 0.
        forget_bias: Added to f at each step; not stored in the bias.
        activation: None for tanh, the name of a Keras activation, or a function.
        kernel_initializer: For `kernel_w`; None for Glorot uniform.
        bias_initializer: For the bias; None for zeros.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, an activation is unknown, or `dtype` is
            not floating-point.

    Source: arXiv:1903.08023; `tf.contrib.rnn.IndyLSTMCell`.
    """

    num_units: int = fields.size()
    forget_bias: float = fields.number(1.0)
    activation: fields.ActivationLike = fields.activation()
    reuse: object = fields.unused()
    kernel_initializer: Initializer | None = fields.initializer()
    bias_initializer: Initializer | None = fields.initializer()
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()

    blocks = 4

    def _update(self, params: Params, z: Array, state: PyTree) -> tuple[Array, PyTree]:
        h = state.h.astype(z.dtype)
        blocks = zip(params["kernel_u"], jnp.split(z, 4, axis=-1), strict=True)
        i, j, f, o = (block + _times(weight, h) for weight, block in blocks)
        c = state.c * jax.nn.sigmoid(f + self.forget_bias)
        c = c + jax.nn.sigmoid(i) * self.activation(j)
        h = self.activation(c) * jax.nn.sigmoid(o)
        return self.emit(c, h, state)
