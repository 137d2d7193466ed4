"""The layer-normalized GRU of world models."""

import dataclasses
from typing import final

import jax
import jax.numpy as jnp

from .._base.math import standardized, widened
from .._base.typing import Array, DType, Initializer, Params
from . import fields
from .affine import AffineCell, Stage, StageResult
from .params import ParamSpec, Specs, glorot_uniform, ones, zeros


@final
@fields.dataclass
class LayerNormGRUCell(AffineCell[Array]):
    """A GRU with one layer-normalized matrix product, as in Dreamer.

    Each step computes::

        r, c, u = split(layer_norm([x, h] kernel) * norm/gamma + norm/beta)
        h'      = h + sigmoid(u + update_bias) * (activation(sigmoid(r) * c) - h)

    The reset gate multiplies the candidate, not the state. `layer_norm` subtracts the
    mean of the 3H numbers and divides by `sqrt(variance + norm_epsilon)`.

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; state and
    output `[batch, H]`; `kernel` `[I + H, 3H]`, blocks r, c, u; `norm/gamma` and
    `norm/beta` `[3H]`.

    DreamerV3 does not normalize this product, and uses a block-diagonal kernel. This
    cell supports neither.

    Attributes:
        num_units: `H`, at least 0.
        activation: A function or the name of a Keras activation. Default: tanh.
        kernel_initializer: Initializes the kernel. Default: Glorot uniform.
        norm_per_gate: Whether r, c and u are normalized separately, each by the mean
            and the variance of its H numbers.
        norm_epsilon: A number that is added to the variance. Keras also defaults to
            1e-3, PyTorch to 1e-5.
        update_bias: A number that is added to u before the sigmoid. With -1, the state
            initially changes slowly.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, an activation is unknown, or `dtype` is
            not floating-point.

    Source: arXiv:2010.02193 and `GRUCell` in `common/nets.py` of its repository,
    `danijar/dreamerv2`; layer normalization: arXiv:1607.06450.
    """

    num_units: int = fields.size()
    activation: fields.ActivationLike = fields.activation()
    kernel_initializer: Initializer | None = fields.initializer()
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()
    _: dataclasses.KW_ONLY
    norm_per_gate: bool = fields.flag(False)
    norm_epsilon: float = fields.number(1e-3, low=1e-12)
    update_bias: float = fields.number(-1.0)

    state_size = output_size = property(lambda self: self.num_units)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """A single stage: one product, then the gates."""
        kernel = self.kernel_initializer or glorot_uniform
        n = self.num_units
        return (Stage(self._update, n, 3 * n, kernel, bias=None, blocks=3),)

    def elementwise_specs(self) -> Specs:
        """Specs of `norm/gamma` and `norm/beta`."""
        shape = (3 * self.num_units,)
        return {
            "norm": {"gamma": ParamSpec(shape, ones), "beta": ParamSpec(shape, zeros)}
        }

    def _update(self, params: Params, z: Array, state: Array) -> StageResult:
        wide = widened(z)
        parts = jnp.split(wide, 3, axis=-1) if self.norm_per_gate else [wide]
        parts = [standardized(x, self.norm_epsilon) for x in parts]
        norm = params["norm"]
        gamma, beta = (norm[k].astype(wide.dtype)[None, :] for k in ("gamma", "beta"))
        wide = jnp.concatenate(parts, axis=-1) * gamma + beta
        r, c, u = jnp.split(wide.astype(z.dtype), 3, axis=-1)
        candidate = self.activation(jax.nn.sigmoid(r) * c)
        u = jax.nn.sigmoid(u + self.update_bias)
        new_state = u * candidate + (1 - u) * state
        return new_state, new_state
