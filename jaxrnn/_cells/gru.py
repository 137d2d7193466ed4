"""Gated recurrent units that reset the state before or after the matrix product."""

import dataclasses
from typing import Any, ClassVar, final

import jax
import jax.numpy as jnp

from .._base.typing import Array, DType, Initializer, Params, PyTree
from . import fields
from .affine import AffineCell, Stage, StageResult
from .equations import Equations
from .params import kernel_and_bias, ones


@final
@fields.dataclass
class GRUCell(AffineCell[Array]):
    """A gated recurrent unit (GRU) that resets the state before the matrix product.

    Each step computes::

        r, u = split(sigmoid([x, h] gates/kernel + gates/bias))
        c    = activation([x, r * h] candidate/kernel + candidate/bias)
        h'   = u * h + (1 - u) * c

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; state and
    output `[batch, H]`; `gates/kernel` `[I + H, 2H]`, `gates/bias` `[2H]`, blocks r, u;
    `candidate/kernel` `[I + H, H]`, `candidate/bias` `[H]`.

    Attributes:
        num_units: `H`, at least 0.
        activation: A function or the name of a Keras activation. Default: tanh.
        kernel_initializer: Initializes both kernels. Default: Glorot uniform.
        bias_initializer: Initializes both biases. Default: ones in the gates and zeros
            in the candidate, unless `kernel_initializer` also draws biases, as
            `lecun_orthogonal` does.
        project_inputs: Whether the cell multiplies the inputs by its kernels. If False,
            a layer before the cell must project the inputs to `[batch, 3H]`, without a
            bias. The cell adds 2H columns to the product of h and the last H columns to
            the product of r * h. Both kernels then have only `H` rows.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, an activation is unknown, or `dtype` is
            not floating-point.

    Source: arXiv:1406.1078; `tf.compat.v1.nn.rnn_cell.GRUCell`.
    """

    num_units: int = fields.size()
    activation: fields.ActivationLike = fields.activation()
    reuse: fields.Unused = fields.unused()
    kernel_initializer: Initializer | None = fields.initializer()
    bias_initializer: Initializer | None = fields.initializer()
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()
    _: dataclasses.KW_ONLY
    project_inputs: bool = fields.flag(True)

    @property
    def equations(self) -> Equations:
        """The equations of a GRU; see `AffineCell`."""
        return Equations("gru", self.activation)

    state_size = output_size = property(lambda self: self.num_units)
    _gate_activation: ClassVar[Any] = staticmethod(jax.nn.sigmoid)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Two stages: the gates, then the candidate, which multiplies `r * h`."""
        n = self.num_units
        kernel, bias = kernel_and_bias(self)
        _, ones_bias = kernel_and_bias(self, bias=ones)
        return (
            Stage(self._gates, n, 2 * n, kernel, ones_bias, "gates", blocks=2),
            Stage(self._candidate, n, n, kernel, bias, "candidate", blocks=1),
        )

    def _gates(self, params: Params, z: Array, state: Array) -> StageResult:
        # Apply the activation to both gates in one call, which XLA for CPUs vectorizes.
        r, u = jnp.split(self._gate_activation(z), 2, axis=-1)
        return r * state, (u, state)

    def _candidate(self, params: Params, z: Array, carry: PyTree) -> StageResult:
        u, state = carry
        new_state = u * state + (1 - u) * self.activation(z)
        return new_state, new_state


@final
@fields.dataclass
class CudnnCompatibleGRUCell(AffineCell[Array]):
    """A gated recurrent unit (GRU) that resets the state after the matrix product.

    Each step computes::

        r, u = split(sigmoid([x, h] gates/kernel + gates/bias))
        c    = activation(x input_projection/kernel + input_projection/bias
                          + r * (h hidden_projection/kernel + hidden_projection/bias))
        h'   = u * h + (1 - u) * c

    This is the GRU of cuDNN, PyTorch and Flax, and the default in Keras. `GRUCell`
    resets the state before the matrix product, so the two cells cannot exchange
    weights.

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; state and
    output `[batch, H]`; `gates/kernel` `[I + H, 2H]`, `gates/bias` `[2H]`, blocks r, u;
    under `candidate`, `input_projection/kernel` `[I, H]` and `hidden_projection/kernel`
    `[H, H]`, each with a `bias` `[H]`.

    Attributes:
        num_units: `H`, at least 0.
        kernel_initializer: Initializes all kernels. Default: Glorot uniform.
        activation: A function or the name of a Keras activation. Default: tanh.
        bias_initializer: Initializes all biases. Default: ones in the gates and zeros
            in the candidate, unless `kernel_initializer` also draws biases, as
            `lecun_orthogonal` does.
        project_inputs: Whether the cell multiplies the inputs by its kernels. If False,
            a layer before the cell must project the inputs to `[batch, 3H]`, without a
            bias. The cell adds 2H columns to the gates and the last H columns to
            `input_projection/bias`. `gates/kernel` then has `H` rows, and
            `input_projection/kernel` has none.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, an activation is unknown, or `dtype` is
            not floating-point.

    Source: arXiv:1406.1078v1; `tf.contrib.cudnn_rnn.CudnnCompatibleGRUCell`.
    """

    num_units: int = fields.size()
    reuse: fields.Unused = fields.unused()
    kernel_initializer: Initializer | None = fields.initializer()
    _: dataclasses.KW_ONLY
    activation: fields.ActivationLike = fields.activation()
    bias_initializer: Initializer | None = fields.initializer()
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()
    project_inputs: bool = fields.flag(True)

    @property
    def equations(self) -> Equations:
        """The equations of cuDNN's GRU; see `AffineCell`."""
        return Equations("cudnn_gru", self.activation)

    state_size = output_size = property(lambda self: self.num_units)
    _gate_activation: ClassVar[Any] = staticmethod(jax.nn.sigmoid)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Three stages: the gates, then the candidate's products of inputs and of h."""
        n = self.num_units
        kernel, bias = kernel_and_bias(self)
        _, ones_bias = kernel_and_bias(self, bias=ones)
        inputs, hidden = "candidate/input_projection", "candidate/hidden_projection"
        return (
            Stage(self._gates, n, 2 * n, kernel, ones_bias, "gates", blocks=2),
            Stage(self._project_inputs, 0, n, kernel, bias, inputs, blocks=1),
            Stage(self._candidate, n, n, kernel, bias, hidden, False, blocks=1),
        )

    def _gates(self, params: Params, z: Array, state: Array) -> StageResult:
        # Apply the activation to both gates in one call, which XLA for CPUs vectorizes.
        r, u = jnp.split(self._gate_activation(z), 2, axis=-1)
        no_operand = state[:, :0]  # The next matrix product reads only the inputs.
        return no_operand, (r, u, state)

    def _project_inputs(self, params: Params, z: Array, carry: PyTree) -> StageResult:
        _, _, state = carry
        return state, (*carry, z)

    def _candidate(self, params: Params, z: Array, carry: PyTree) -> StageResult:
        r, u, state, z_inputs = carry
        new_state = u * state + (1 - u) * self.activation(z_inputs + r * z)
        return new_state, new_state
