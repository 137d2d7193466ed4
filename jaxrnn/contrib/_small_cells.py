"""Small recurrent cells whose gates mix the state with a candidate."""

import jax
import jax.numpy as jnp
from jax.nn.initializers import ones, zeros

from jaxrnn import AffineCell, LinearRecurrenceCell, ParamSpec, Stage, extend
from jaxrnn.extend import fields
from jaxrnn.typing import Array, DType, Initializer, Params, PyTree, Specs


@fields.dataclass
class UGRNNCell(AffineCell):
    """A recurrent cell with one gate, which mixes the state with a candidate (UGRNN).

        g, c = split([x, h] kernel + bias)
        g    = sigmoid(g + forget_bias)
        h'   = g * h + (1 - g) * activation(c)

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; state and
    output `[batch, H]`; `kernel` `[I + H, 2H]`, blocks g, c; `bias` `[2H]`.

    Attributes:
        num_units: `H`, at least 0.
        initializer: For the kernel; None for Glorot uniform. The bias is initialized to
            zeros unless `initializer` is an `initializers.by_part` with a `bias`.
        forget_bias: Added to g at each step; not stored in the bias.
        activation: None for tanh, the name of a Keras activation, or a function.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, an activation is unknown, or `dtype` is
            not floating-point.

    Source: arXiv:1611.09913; `tf.contrib.rnn.UGRNNCell`.
    """

    num_units: int = fields.size()
    initializer: Initializer | None = fields.initializer()
    forget_bias: float = fields.number(1.0)
    activation: fields.ActivationLike = fields.activation()
    reuse: object = fields.unused()
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()

    state_size = output_size = property(lambda self: self.num_units)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stage with one matrix product for the gate and the candidate."""
        n = self.num_units
        kernel = self.initializer or extend.glorot_uniform
        bias = extend.bias_initializer(kernel, zeros)
        product = Stage(
            self._update, rows=n, columns=2 * n, kernel=kernel, bias=bias, blocks=2
        )
        return (product,)

    def _update(self, params: Params, z: Array, state: Array) -> tuple[Array, Array]:
        g, c = jnp.split(z, 2, axis=-1)
        g = jax.nn.sigmoid(g + self.forget_bias)
        new_state = g * state + (1 - g) * self.activation(c)
        return new_state, new_state


@fields.dataclass
class UnitsCell(AffineCell):
    """A cell whose arguments are named as in Keras; `activation=None` is the identity.

    Attributes:
        units: `H`.
        activation: The name of a Keras activation, or a function; None for the
            identity.
        bias_initializer: For the bias; None for ones.
    """

    units: int = fields.size()
    activation: fields.ActivationLike = fields.activation(jnp.tanh, none="linear")
    kernel_initializer: Initializer | None = fields.initializer()
    bias_initializer: Initializer | None = fields.initializer()
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()

    state_size = output_size = property(lambda self: self.units)

    @property
    def _initializers(self) -> tuple[Initializer, Initializer]:
        """The initializers of the kernels and of the bias."""
        kernel = self.kernel_initializer or extend.glorot_uniform
        return kernel, self.bias_initializer or extend.bias_initializer(kernel, ones)


@fields.dataclass
class CFNCell(UnitsCell):
    """The chaos-free network (CFN), whose state decays to zero if the inputs are zero.

        a, b = split(sigmoid(x kernel[:, :2H] + h recurrent_kernel + bias))
        h'   = a * activation(h) + (1 - b) * activation(x kernel[:, 2H:])

    Like contrib's cell, this cell uses 1 - b where the paper uses b.

    Shapes, for input size `I` and `H = units`: inputs `[batch, I]`; state and output
    `[batch, H]`; `kernel` `[I, 3H]`; `recurrent_kernel` `[H, 2H]` and `bias` `[2H]`,
    blocks a, b.

    Attributes:
        units: `H`.
        activation: The name of a Keras activation, or a function; None for the
            identity.
        kernel_initializer: For both kernels; None for Glorot uniform.
        bias_initializer: For the bias; None for ones.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, an activation is unknown, or `dtype` is
            not floating-point.

    Source: arXiv:1612.06212; `tf.contrib.rnn.CFNCell`.
    """

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stage that reads only the inputs, then the stage of the gates."""
        n = self.units
        return (
            Stage(self._project, rows=0, columns=n, bias=None, path="inputs"),
            Stage(self._update, rows=n, columns=2 * n, path="gates"),
        )

    def param_specs(self, depth: int) -> Specs:
        """Specs of `kernel`, `recurrent_kernel` and `bias`."""
        n = self.units
        kernel, bias = self._initializers
        return {
            "kernel": ParamSpec((depth, 3 * n), kernel, depth, 3),
            "recurrent_kernel": ParamSpec((n, 2 * n), kernel, 0, 2),
            "bias": ParamSpec((2 * n,), bias, blocks=2),
        }

    def stage_params(self, params: Params) -> Params:
        """Splits off the first stage's columns and joins the kernels of the gates."""
        gates, inputs = jnp.split(params["kernel"], [2 * self.units], axis=1)
        gates = jnp.concatenate([gates, params["recurrent_kernel"]])
        gates = {"kernel": gates, "bias": params["bias"]}
        return {"inputs": {"kernel": inputs}, "gates": gates}

    def _project(self, params: Params, z: Array, state: Array) -> tuple[Array, PyTree]:
        return state, (self.activation(z), state)

    def _update(self, params: Params, z: Array, carry: PyTree) -> tuple[Array, Array]:
        renewed, state = carry
        a, b = jnp.split(jax.nn.sigmoid(z), 2, axis=-1)
        new_state = a * self.activation(state) + (1 - b) * renewed
        return new_state, new_state


@fields.dataclass
class MinimalRNNCell(UnitsCell):
    """A recurrent cell that mixes its state with a feedforward layer of the inputs.

        z  = activation(x kernel[:I])
        u  = sigmoid([z, h] kernel[I:] + bias)
        h' = u * h + (1 - u) * z

    Shapes, for input size `I` and `H = units`: inputs `[batch, I]`; state and output
    `[batch, H]`; `kernel` `[I + 2H, H]`; `bias` `[H]`.

    Attributes:
        units: `H`.
        activation: The name of a Keras activation, or a function; None for the
            identity.
        kernel_initializer: For the kernel; None for Glorot uniform.
        bias_initializer: For the bias; None for ones.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, an activation is unknown, or `dtype` is
            not floating-point.

    Source: arXiv:1711.06788; `tf.contrib.rnn.MinimalRNNCell`.
    """

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stage of the feedforward layer, then the stage of the gate."""
        n = self.units
        layer = Stage(self._feed, rows=0, columns=n, bias=None, path="layer")
        gate = Stage(self._mix, rows=2 * n, columns=n, path="gate", takes_inputs=False)
        return layer, gate

    def param_specs(self, depth: int) -> Specs:
        """Specs of `kernel`, which holds the kernels of both stages, and of `bias`."""
        n = self.units
        kernel, bias = self._initializers
        return {
            "kernel": ParamSpec((depth + 2 * n, n), kernel, depth, 1),
            "bias": ParamSpec((n,), bias, blocks=1),
        }

    def stage_params(self, params: Params) -> Params:
        """Splits the kernel into the kernels of the two stages."""
        kernel = params["kernel"]
        layer, gate = jnp.split(kernel, [kernel.shape[0] - 2 * self.units])
        gate = {"kernel": gate, "bias": params["bias"]}
        return {"layer": {"kernel": layer}, "gate": gate}

    def _feed(self, params: Params, z: Array, state: Array) -> tuple[Array, PyTree]:
        z = self.activation(z)
        return jnp.concatenate([z, state], axis=-1), (z, state)

    def _mix(self, params: Params, u: Array, carry: PyTree) -> tuple[Array, Array]:
        z, state = carry
        u = jax.nn.sigmoid(u)
        new_state = u * state + (1 - u) * z
        return new_state, new_state


@fields.dataclass
class SRUCell(LinearRecurrenceCell):
    """A simple recurrent unit (SRU), whose matrix product reads only the inputs.

        y, f, r, s = split(x kernel)
        f, r       = sigmoid([f, r] + bias)
        c'         = f * c + (1 - f) * y
        output     = r * activation(c') + (1 - r) * s

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; state c and
    output `[batch, H]`; `kernel` `[I, 4H]`, blocks y, f, r, s; `bias` `[2H]`, blocks f,
    r.

    Attributes:
        num_units: `H`, at least 0.
        activation: None for tanh, the name of a Keras activation, or a function.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, an activation is unknown, or `dtype` is
            not floating-point.

    Source: arXiv:1709.02755; `tf.contrib.rnn.SRUCell`.
    """

    num_units: int = fields.size()
    activation: fields.ActivationLike = fields.activation()
    reuse: object = fields.unused()
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()

    state_size = output_size = property(lambda self: self.num_units)

    def param_specs(self, depth: int) -> Specs:
        """Specs of `kernel` and `bias`."""
        n = self.num_units
        return {
            "kernel": ParamSpec((depth, 4 * n), extend.glorot_uniform, depth, blocks=4),
            "bias": ParamSpec((2 * n,), zeros, blocks=2),
        }

    def coefficients(
        self, params: Params, inputs: Array
    ) -> tuple[Array, Array, tuple[Array, Array]]:
        """`f` and `(1 - f) * y` for the state; `r` and `(1 - r) * s` for the output."""
        bias = jnp.pad(params["bias"], self.num_units)  # Only f and r have a bias.
        wide = extend.at_least_float32(inputs.dtype)
        z = extend.affine({"kernel": params["kernel"], "bias": bias}, [inputs], wide)
        y, f, r, s = jnp.split(z, 4, axis=-1)
        sigmoid = jax.nn.sigmoid
        return sigmoid(f), sigmoid(-f) * y, (sigmoid(r), sigmoid(-r) * s)

    def output(self, params: Params, state: Array, rest: tuple[Array, Array]) -> Array:
        """`r * activation(c) + (1 - r) * s`."""
        r, skipped = rest
        return r * self.activation(state.astype(r.dtype)) + skipped
