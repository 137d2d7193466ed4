"""Gated recurrent units that reset the state before or after the matrix product."""

import dataclasses
from collections.abc import Callable
from typing import final

import jax
import jax.numpy as jnp

from .._base.typing import Array, DType, Initializer, Params, PyTree
from . import fields
from .affine.cell import AffineCell, Stage, Updated
from .params import kernel_and_bias, ones


@final
@fields.dataclass
class GRUCell(AffineCell):
    """A gated recurrent unit (GRU) that resets the state before the matrix product.

        r, u = split(sigmoid([x, h] gates/kernel + gates/bias))
        c    = activation([x, r * h] candidate/kernel + candidate/bias)
        h'   = u * h + (1 - u) * c

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; state and
    output `[batch, H]`; `gates/kernel` `[I + H, 2H]`, `gates/bias` `[2H]`, blocks r, u;
    `candidate/kernel` `[I + H, H]`, `candidate/bias` `[H]`.

    Attributes:
        num_units: `H`, at least 0.
        activation: None for tanh, the name of a Keras activation, or a function.
        kernel_initializer: For both kernels; None for Glorot uniform.
        bias_initializer: For both biases; None for ones in the gates and zeros in the
            candidate.

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

    library_kind = "gru"

    state_size = output_size = property(lambda self: self.num_units)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages: the gates, then the candidate, which reads the reset state."""
        kernel, bias = kernel_and_bias(self)
        n = self.num_units
        candidate = Stage(
            self._candidate,
            rows=n,
            columns=n,
            kernel=kernel,
            bias=bias,
            path="candidate",
            blocks=1,
        )
        return _stage_of_gates(self, self._gates), candidate

    def _gates(self, params: Params, z: Array, state: Array) -> Updated:
        r, u = map(jax.nn.sigmoid, jnp.split(z, 2, axis=-1))
        return r * state, (u, state)

    def _candidate(self, params: Params, z: Array, carry: PyTree) -> Updated:
        u, state = carry
        new_state = u * state + (1 - u) * self.activation(z)
        return new_state, new_state


@final
@fields.dataclass
class CudnnCompatibleGRUCell(AffineCell):
    """A gated recurrent unit (GRU) that resets the state after the matrix product.

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
        kernel_initializer: For all kernels; None for Glorot uniform.
        activation: None for tanh, the name of a Keras activation, or a function.
        bias_initializer: For all biases; None for ones in the gates and zeros in the
            candidate.

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

    library_kind = "cudnn_gru"

    state_size = output_size = property(lambda self: self.num_units)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The gates, then the candidate's matrix products with inputs and state."""
        kernel, bias = kernel_and_bias(self)
        from_inputs = Stage(
            self._project_inputs,
            rows=0,
            columns=self.num_units,
            kernel=kernel,
            bias=bias,
            path="candidate/input_projection",
            blocks=1,
        )
        from_state = Stage(
            self._candidate,
            rows=self.num_units,
            columns=self.num_units,
            kernel=kernel,
            bias=bias,
            path="candidate/hidden_projection",
            takes_inputs=False,
            blocks=1,
        )
        return _stage_of_gates(self, self._gates), from_inputs, from_state

    def _gates(self, params: Params, z: Array, state: Array) -> Updated:
        r, u = map(jax.nn.sigmoid, jnp.split(z, 2, axis=-1))
        no_operand = state[:, :0]  # The next matrix product reads only the inputs.
        return no_operand, (r, u, state)

    def _project_inputs(self, params: Params, z: Array, carry: PyTree) -> Updated:
        _, _, state = carry
        return state, (*carry, z)

    def _candidate(self, params: Params, z: Array, carry: PyTree) -> Updated:
        r, u, state, z_inputs = carry
        new_state = u * state + (1 - u) * self.activation(z_inputs + r * z)
        return new_state, new_state


def _stage_of_gates(
    cell: GRUCell | CudnnCompatibleGRUCell, update: Callable[..., Updated]
) -> Stage:
    kernel, bias = kernel_and_bias(cell, bias=ones)
    return Stage(
        update,
        rows=cell.num_units,
        columns=2 * cell.num_units,
        kernel=kernel,
        bias=bias,
        path="gates",
        blocks=2,
    )
