"""TensorFlow Lite's basic recurrent cell."""

import dataclasses
from typing import Any, final

import jax.numpy as jnp

from .._base.typing import DType, Params
from .._cells.basic_rnn import BasicRNNCell
from .._cells.initializers import ParamSpec, glorot_uniform, zeros
from ._transposed import TransposedCell


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class TfLiteRNNCell(TransposedCell):
    """`BasicRNNCell` with separate, transposed weights for inputs and state.

        h' = activation(x input_weights^T + h recurrent_weights^T + bias)

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; state and
    output `[batch, H]`; `input_weights` `[H, I]`; `recurrent_weights` `[H, H]`; `bias`
    `[H]`.

    Attributes:
        num_units: `H`.
        activation: None for tanh, the name of a Keras activation, or a function.
        reuse: Accepted for compatibility with TensorFlow; not used.
        name: The name of the step in profiles; by default that of the class.
        dtype: The required dtype of parameters and inputs; None for any.

    Raises:
        TypeError: As `BasicRNNCell`.
        ValueError: As `BasicRNNCell`.

    Source: `tf.compat.v1.lite.experimental.nn.TfLiteRNNCell`.
    """

    num_units: int
    activation: Any = None
    reuse: Any = dataclasses.field(default=None, compare=False)
    name: str | None = None
    dtype: DType | None = None

    core_class = BasicRNNCell

    def param_specs(self, depth: int) -> dict[str, Any]:
        """Both matrices and the bias."""
        units = self.num_units
        return {
            "input_weights": ParamSpec((units, depth), glorot_uniform),
            "recurrent_weights": ParamSpec((units, units), glorot_uniform),
            "bias": ParamSpec((units,), zeros),
        }

    def core_params(self, params: Params) -> Params:
        """The parameters of `BasicRNNCell`."""
        weights = params["input_weights"], params["recurrent_weights"]
        return {"kernel": jnp.concatenate(weights, axis=1).T, "bias": params["bias"]}
