"""Small recurrent cells, such as `UGRNNCell`, `SRUCell` and `IndRNNCell`."""

from collections.abc import Callable
from typing import final

import jax
import jax.numpy as jnp
from jax.nn.initializers import ones, zeros

from jaxrnn import AffineCell, LinearRecurrenceCell, ParamSpec, Stage, extend
from jaxrnn.extend import fields
from jaxrnn.typing import Array, DType, Initializer, Key, Params, PyTree, Specs

from ._lstms import LSTM
from ._wrappers import activated


@fields.dataclass
class UGRNNCell(AffineCell[Array]):
    """A recurrent cell with one gate, which mixes the state with a candidate (UGRNN).

    Each step computes::

        g, c = split([x, h] kernel + bias)
        g    = sigmoid(g + forget_bias)
        h'   = g * h + (1 - g) * activation(c)

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; state and
    output `[batch, H]`; `kernel` `[I + H, 2H]`, blocks g, c; `bias` `[2H]`.

    Attributes:
        num_units: `H`, at least 0.
        initializer: Initializes the kernel. Default: Glorot uniform. The bias is
            initialized to zeros, unless `initializer` is an `initializers.by_part` with
            a `bias`.
        forget_bias: A constant that each step adds to g, in addition to the bias.
        activation: A function or the name of a Keras activation. Default: tanh.

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
            self._update,
            operand_size=n,
            columns=2 * n,
            kernel=kernel,
            bias=bias,
            blocks=2,
        )
        return (product,)

    def _update(self, params: Params, z: Array, state: Array) -> tuple[Array, Array]:
        g, c = jnp.split(z, 2, axis=-1)
        g = jax.nn.sigmoid(g + self.forget_bias)
        new_state = g * state + (1 - g) * self.activation(c)
        return new_state, new_state


@final
@fields.dataclass
class IntersectionRNNCell(extend.ComposedCell, extend.SpecsCell):
    """A recurrent cell whose output mixes the inputs with a candidate (+RNN).

    Each step computes::

        v          = x, or x in_projection/kernel + in_projection/bias
        g, j, q, y = split([v, h] kernel + bias)
        g, q       = sigmoid(g + forget_bias), sigmoid(q + forget_bias)
        h'         = g * h + (1 - g) * tanh(j)
        output     = q * v + (1 - q) * y_activation(y)

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; state and
    output `[batch, H]`; `kernel` `[2H, 4H]` and `bias` `[4H]`, blocks g, j, q, y;
    `in_projection/kernel` `[I, H]` and `in_projection/bias` `[H]`, only if I differs
    from H.

    Attributes:
        num_units: `H`, at least 0.
        num_in_proj: With any positive number, inputs of another size than H are
            projected to size H, as in contrib. With None or 0, the inputs must have
            size H.
        initializer: Initializes the kernels. Default: Glorot uniform. The biases are
            initialized to zeros unless `initializer` is an `initializers.by_part` with
            a `bias`.
        forget_bias: A constant that each step adds to g and q, in addition to the bias.
        y_activation: A function or the name of a Keras activation. Default: relu. None
            means tanh.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, an activation is unknown, or `dtype` is
            not floating-point.

    Source: arXiv:1611.09913; `tf.contrib.rnn.IntersectionRNNCell`.
    """

    num_units: int = fields.size()
    num_in_proj: int | None = fields.count(
        default=None, least=0, fix="For no projection, pass None."
    )
    initializer: Initializer | None = fields.initializer()
    forget_bias: float = fields.number(1.0)
    y_activation: fields.ActivationLike = fields.activation(jax.nn.relu)
    reuse: object = fields.unused()
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()

    state_size = output_size = property(lambda self: self.num_units)

    def param_specs(self, depth: int) -> Specs:
        """Specs of all parameters for inputs of size `depth`, in creation order.

        Raises:
            ValueError: If `depth` is not `num_units`, and `num_in_proj` is None or 0.
        """
        size = self.num_units
        kernel = self.initializer or extend.glorot_uniform
        bias = extend.bias_initializer(kernel, zeros)
        specs: Specs = {
            "kernel": ParamSpec((2 * size, 4 * size), kernel, size, 4),
            "bias": ParamSpec((4 * size,), bias, blocks=4),
        }
        if depth == size:
            return specs
        must = f"have size {size} like `num_units`"
        fix = f"To project the inputs, pass `num_in_proj={size}`."
        extend.expect(self.num_in_proj, "inputs", must, depth, fix)
        kernel = ParamSpec((depth, size), kernel, depth)
        projection = {"kernel": kernel, "bias": ParamSpec((size,), bias)}
        return {"in_projection": projection, **specs}

    inner = property(
        lambda self: _Recurrence(
            self.num_units, forget_bias=self.forget_bias, name=extend.scope_name(self)
        ),
        doc="The inner cell, which updates the state.",
    )

    def checked_step(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None
    ) -> tuple[Array, PyTree]:
        """Checks that inputs and state have one dtype, and returns them."""
        inputs, state = super().checked_step(params, inputs, state, key)
        return inputs, extend.check_state(state, self.state_size, inputs, wider=False)

    def compose(self, run_next: Callable, params: Params, inputs: Array) -> Array:
        """Runs `inner`, which updates h, and mixes the outputs; see `ComposedCell`."""
        v = inputs
        if "in_projection" in params:
            v = extend.affine(params["in_projection"], [v], v.dtype)
        gj, qy = jnp.split(params["kernel"], 2, axis=-1)
        gj_bias, qy_bias = jnp.split(params["bias"], 2)
        h = run_next({"kernel": gj, "bias": gj_bias}, v)
        z = extend.affine({"kernel": qy, "bias": qy_bias}, [v, h], v.dtype)
        q, y = jnp.split(z, 2, axis=-1)
        q = jax.nn.sigmoid(q + self.forget_bias)
        return q * v + (1 - q) * activated(self.y_activation, y)


@final
class _Recurrence(UGRNNCell):
    """Updates h of an `IntersectionRNNCell`, and outputs the h before the update."""

    def _update(self, params: Params, z: Array, state: Array) -> tuple[Array, Array]:
        return state, super()._update(params, z, state)[1]


@fields.dataclass
class UnitsCell(AffineCell[Array]):
    """A base class of cells whose arguments have Keras's names.

    Attributes:
        units: `H`.
        activation: A function or the name of a Keras activation. Default: tanh. None
            means the identity.
        bias_initializer: Initializes the bias. Default: ones.
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

    Each step computes::

        a, b = split(sigmoid(x kernel[:, :2H] + h recurrent_kernel + bias))
        h'   = a * activation(h) + (1 - b) * activation(x kernel[:, 2H:])

    As in contrib, the equation for h' uses 1 - b. The paper uses b.

    Shapes, for input size `I` and `H = units`: inputs `[batch, I]`; state and output
    `[batch, H]`; `kernel` `[I, 3H]`; `recurrent_kernel` `[H, 2H]` and `bias` `[2H]`,
    blocks a, b.

    Attributes:
        units: `H`.
        activation: A function or the name of a Keras activation. Default: tanh. None
            means the identity.
        kernel_initializer: Initializes both kernels. Default: Glorot uniform.
        bias_initializer: Initializes the bias. Default: ones.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, an activation is unknown, or `dtype` is
            not floating-point.

    Source: arXiv:1612.06212; `tf.contrib.rnn.CFNCell`.
    """

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stage of the candidate, which reads only x, then the gates' stage."""
        n = self.units
        return (
            Stage(self._project, operand_size=0, columns=n, bias=None, path="inputs"),
            Stage(self._update, operand_size=n, columns=2 * n, path="gates"),
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
        """Splits the kernel by stages, and joins both kernels of the gates."""
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

    Each step computes::

        z  = activation(x kernel[:I])
        u  = sigmoid([z, h] kernel[I:] + bias)
        h' = u * h + (1 - u) * z

    Shapes, for input size `I` and `H = units`: inputs `[batch, I]`; state and output
    `[batch, H]`; `kernel` `[I + 2H, H]`; `bias` `[H]`.

    Attributes:
        units: `H`.
        activation: A function or the name of a Keras activation. Default: tanh. None
            means the identity.
        kernel_initializer: Initializes the kernel. Default: Glorot uniform.
        bias_initializer: Initializes the bias. Default: ones.

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
        layer = Stage(self._feed, operand_size=0, columns=n, bias=None, path="layer")
        gate = Stage(
            self._mix, operand_size=2 * n, columns=n, path="gate", takes_inputs=False
        )
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
class SRUCell(LinearRecurrenceCell[Array]):
    """A simple recurrent unit (SRU), whose matrix product reads only the inputs.

    Each step computes::

        y, f, r, s = split(x kernel)
        f, r       = sigmoid([f, r] + bias)
        c'         = f * c + (1 - f) * y
        output     = r * activation(c') + (1 - r) * s

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; state c and
    output `[batch, H]`; `kernel` `[I, 4H]`, blocks y, f, r, s; `bias` `[2H]`, blocks f,
    r.

    Attributes:
        num_units: `H`, at least 0.
        activation: A function or the name of a Keras activation. Default: tanh.

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
        """Computes f and `(1 - f) * y` for c, and `(r, (1 - r) * s)` for the output."""
        bias = jnp.pad(params["bias"], self.num_units)  # Only f and r have a bias.
        wide = extend.at_least_float32(inputs.dtype)
        z = extend.affine({"kernel": params["kernel"], "bias": bias}, [inputs], wide)
        y, f, r, s = jnp.split(z, 4, axis=-1)
        sigmoid = jax.nn.sigmoid
        return sigmoid(f), sigmoid(-f) * y, (sigmoid(r), sigmoid(-r) * s)

    def output(self, params: Params, state: Array, rest: tuple[Array, Array]) -> Array:
        """Computes `r * activation(c) + (1 - r) * s`."""
        r, skipped = rest
        return r * self.activation(state.astype(r.dtype)) + skipped


class _IndependentUnits(AffineCell):
    """A cell in which each unit reads only its own state.

    A matrix multiplies the inputs. In each block (e.g. the gate r), each unit has one
    weight for its state. `_update` reads these weights as a list `kernel_u` with one
    vector per block.
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
        return (Stage(self._update, operand_size=0, columns=columns),)

    def elementwise_specs(self) -> Specs:
        """Specs of the vectors that multiply the state, one per block."""
        return {"kernel_u": [ParamSpec((self.num_units,), _uniform)] * self.blocks}

    def param_specs(self, depth: int) -> Specs:
        """Specs of `kernel_w`, `kernel_u` and `bias`."""
        return self._specs(depth, "kernel_w", self.blocks, zeros)

    def _specs(self, depth: int, name: str, blocks: int, bias: Initializer) -> Specs:
        """Specs of `blocks` blocks; `bias` is the default initializer of the bias."""
        columns = blocks * self.num_units
        kernel = self.kernel_initializer or extend.glorot_uniform
        bias = self.bias_initializer or extend.bias_initializer(kernel, bias)
        return {
            name: ParamSpec((depth, columns), kernel, depth, blocks),
            "kernel_u": ParamSpec((1, columns), _uniform, blocks=blocks),
            "bias": ParamSpec((columns,), bias, blocks=blocks),
        }

    def stage_params(self, params: Params) -> Params:
        """Renames `kernel_w`, and splits `kernel_u` into one vector per block."""
        weights = jnp.split(params["kernel_u"][0], self.blocks)
        return {**params, "kernel": params["kernel_w"], "kernel_u": weights}


@fields.dataclass
class IndRNNCell(_IndependentUnits):
    """A basic recurrent cell with independent units (IndRNN).

    Each step computes::

        h' = activation(x kernel_w + h * kernel_u + bias)

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; state and
    output `[batch, H]`; `kernel_w` `[I, H]`; `kernel_u` `[1, H]`; `bias` `[H]`.

    Attributes:
        num_units: `H`, at least 0.
        activation: A function or the name of a Keras activation. Default: tanh.

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

    Each step computes::

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
        activation: A function or the name of a Keras activation. Default: tanh.
        kernel_initializer: Initializes both kernels that multiply the inputs. Default:
            Glorot uniform.
        bias_initializer: Initializes both biases. Default: ones in the gates and zeros
            in the candidate.

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
class IndyLSTMCell(_IndependentUnits, LSTM):
    """A long short-term memory (LSTM) with independent units.

    Each step computes::

        i, j, f, o = split(x kernel_w + [h, h, h, h] * kernel_u + bias)
        c' = c * sigmoid(f + forget_bias) + sigmoid(i) * activation(j)
        h' = activation(c') * sigmoid(o)

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; c, h and output
    `[batch, H]`; `kernel_w` `[I, 4H]`, `kernel_u` `[1, 4H]` and `bias` `[4H]`, blocks
    i, j, f, o. To keep c in float32 while h and the parameters are 16-bit, pass an
    `initial_state` with these dtypes.

    Attributes:
        num_units: `H`, at least 0.
        forget_bias: A constant that each step adds to f, in addition to the bias.
        activation: A function or the name of a Keras activation. Default: tanh.
        kernel_initializer: Initializes `kernel_w`. Default: Glorot uniform.
        bias_initializer: Initializes the bias. Default: zeros.

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
        return self._emit(c, h, state)


def _uniform(key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
    """Draws from U(-1, 1), as contrib does for every `kernel_u`."""
    return jax.random.uniform(key, shape, dtype, -1, 1)


def _times(weight: Array, state: Array) -> Array:
    """Multiplies the state of each unit by the unit's weight."""
    return weight.astype(state.dtype)[None, :] * state
