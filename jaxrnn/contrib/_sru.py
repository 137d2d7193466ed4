"""The simple recurrent unit."""

import dataclasses
from typing import Any, final

import jax
import jax.numpy as jnp

from .._base.typing import Array, DType, Params
from .._cells.affine import Stage
from .._cells.initializers import ParamSpec, glorot_uniform, zeros
from .._cells.states import VectorStateCell


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class SRUCell(VectorStateCell):
    """A simple recurrent unit (SRU): all products are of the inputs alone.

        y, f, r, s = split(x kernel)
        f, r       = sigmoid([f, r] + bias)
        c'         = f * c + (1 - f) * y
        output     = r * activation(c') + (1 - r) * s

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; state c and
    output `[batch, H]`; `kernel` `[I, 4H]`, blocks y, f, r, s; `bias` `[2H]`, blocks f,
    r.

    Attributes:
        num_units: `H`.
        activation: None for tanh, the name of a Keras activation, or a function.
        reuse: Accepted for compatibility with TensorFlow; not used.
        name: The name of the step in profiles; by default that of the class.
        dtype: The required dtype of parameters and inputs; None for any.

    Raises:
        TypeError: If a field is of the wrong kind.
        ValueError: If `num_units` is negative, the activation is not known, or `dtype`
            is not floating.

    Source: arXiv:1709.02755; `tf.contrib.rnn.SRUCell`.
    """

    num_units: int
    activation: Any = None
    reuse: Any = dataclasses.field(default=None, compare=False)
    name: str | None = None
    dtype: DType | None = None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """One product, of the inputs; only two of its blocks have a bias."""
        columns = 4 * self.num_units
        return (Stage(self._update, 0, columns, glorot_uniform, None, blocks=4),)

    def elementwise_specs(self) -> dict[str, ParamSpec]:
        """The bias, by gate."""
        return dict.fromkeys(("bias_f", "bias_r"), ParamSpec((self.num_units,), zeros))

    def param_specs(self, depth: int) -> dict[str, Any]:
        """`kernel`, then `bias`."""
        (stage,) = self.stages
        bias = ParamSpec((2 * self.num_units,), zeros, blocks=2)
        return stage.specs(depth) | {"bias": bias}

    def stage_params(self, params: Params) -> Params:
        """The bias apart, by gate."""
        bias_f, bias_r = jnp.split(params["bias"], 2)
        return {"kernel": params["kernel"], "bias_f": bias_f, "bias_r": bias_r}

    def _update(self, params: Params, z: Array, c: Array) -> tuple[Array, Array]:
        y, f, r, s = jnp.split(z, 4, axis=-1)
        f = jax.nn.sigmoid(f + params["bias_f"].astype(z.dtype)[None, :])
        r = jax.nn.sigmoid(r + params["bias_r"].astype(z.dtype)[None, :])
        c = f * c + (1 - f) * y
        return r * self.activation(c) + (1 - r) * s, c
