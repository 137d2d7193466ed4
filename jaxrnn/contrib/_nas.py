"""The recurrent cell that neural architecture search found."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn import Stage

from .._base.typing import Array, DType, Params, PyTree
from .._cells.initializers import glorot_uniform, zeros
from ._contrib_lstm import ContribLSTM

# Where each parameter is in the stages.
_PLACES = {
    "recurrent_kernel": ("state", "kernel"),
    "kernel": ("inputs", "kernel"),
    "bias": ("state", "bias"),
    "projection_weights": ("projection", "kernel"),
}


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class NASCell(ContribLSTM):
    """The cell that neural architecture search found for language models.

        x0, ..., x7 = split(x kernel)
        h0, ..., h7 = split(h recurrent_kernel + bias)
        a0, a2, a5, a7 = sigmoid(xk + hk), each with its own k
        a4, a6 = tanh(xk + hk)
        a1 = relu(x1 + h1)
        a3 = relu(x3 * h3)
        c' = tanh(tanh(a0 * a1) + c) * tanh(a2 + a3)
        m  = tanh(c' * tanh(tanh(a4 * a5) + sigmoid(a6 + a7)))
        h' = m projection_weights

    Shapes, for input size `I`, `H = num_units` and `P = num_proj` or `H`: inputs
    `[batch, I]`; c `[batch, H]`; h and output `[batch, P]`; `kernel` `[I, 8H]`;
    `recurrent_kernel` `[P, 8H]`; `bias` `[8H]`, if `use_bias`; `projection_weights`
    `[H, P]`, if there is a projection: without one `h' = m`.

    Attributes:
        num_units: `H`.
        num_proj: `P`, or None for no projection.
        use_bias: Whether there is a bias.
        reuse: Accepted for compatibility with TensorFlow; not used.
        name: The name of the step in profiles; by default that of the class.
        dtype: The required dtype of parameters and inputs; None for any.

    Raises:
        TypeError: If a field is of the wrong kind.
        ValueError: If `num_units` is negative, `num_proj` not positive, or `dtype` is
            not floating.

    Source: arXiv:1611.01578; `tf.contrib.rnn.NASCell`.
    """

    num_units: int
    num_proj: int | None = None
    use_bias: bool = False
    reuse: Any = dataclasses.field(default=None, compare=False)
    name: str | None = None
    dtype: DType | None = None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The product of the inputs; that of h; then the projection, if any."""
        (c, h), make = self.sizes, glorot_uniform
        bias = zeros if self.use_bias else None
        inputs = Stage(self._keep_inputs, 0, 8 * c, make, None, "inputs", blocks=8)
        gates = Stage(self._combine, h, 8 * c, make, bias, "state", False, 8)
        return inputs, *self.with_projection(gates)

    def param_specs(self, depth: int) -> dict[str, Any]:
        """All parameters for inputs of size `depth`, in the order of their creation."""
        staged = super().param_specs(depth)
        return {
            k: staged[stage][name]
            for k, (stage, name) in _PLACES.items()
            if name in staged.get(stage, ())
        }

    def stage_params(self, params: Params) -> Params:
        """A dict for each stage; see `AffineCell.stage_params`."""
        staged: Params = {"inputs": {}, "state": {}, "projection": {}}
        for name, value in params.items():
            stage, leaf = _PLACES[name]
            staged[stage][leaf] = value
        return staged

    def _keep_inputs(self, params: Params, z: Array, state: Any) -> tuple[Array, Any]:
        return state.h, (z, state)

    def _combine(self, params: Params, z: Array, carry: Any) -> tuple[Array, PyTree]:
        from_inputs, state = carry
        sums = jnp.split(from_inputs + z, 8, axis=-1)
        gate, hidden = (lambda k: jax.nn.sigmoid(sums[k])), lambda k: jnp.tanh(sums[k])
        x3, h3 = (jnp.split(part, 8, axis=-1)[3] for part in (from_inputs, z))
        memory = jnp.tanh(jnp.tanh(gate(0) * jax.nn.relu(sums[1])) + state.c)
        c = memory * jnp.tanh(gate(2) + jax.nn.relu(x3 * h3))
        exposed = jnp.tanh(hidden(4) * gate(5)) + jax.nn.sigmoid(hidden(6) + gate(7))
        return self.emit(c, jnp.tanh(c * jnp.tanh(exposed)), state)
