"""Cells with TensorFlow Lite's parameter layout."""

from typing import final

import jax.numpy as jnp

from .._base.typing import Params
from .._cells.basic_rnn import BasicRNNCell
from .._cells.initializers import ParamSpec, Specs, glorot_uniform, zeros
from .._cells.lstm import LSTMCell

INIT_ORDER = ("input", "forget", "cell", "output")
GATE_ORDER = ("input", "cell", "forget", "output")  # i, j, f, o
PEEPHOLES = ("w_f_diag", "w_i_diag", "w_o_diag")


@final
class TFLiteLSTMCell(LSTMCell):
    """`LSTMCell` with separate, transposed weights for each gate.

    Shapes, for input size `I`, `H = num_units` and `P = num_proj` or `H`: inputs
    `[batch, I]`; c `[batch, H]`; h and output `[batch, P]`; for each gate (input,
    forget, cell, output) `input_to_<gate>_w` `[H, I]`, `cell_to_<gate>_w` `[H, P]` and
    `<gate>_bias` `[H]`; `w_f_diag`, `w_i_diag`, `w_o_diag` `[H]`; `projection/kernel`
    `[P, H]`. For the equations, see `LSTMCell`, where block j is the gate "cell".

    Attributes:
        num_units: `H`, at least 0.
        use_peepholes: Whether the gates read c through three diagonal kernels.
        cell_clip: The bound on the magnitude of c', at least 0; None for no bound.
        initializer: The initializer of weights and peepholes; None for Glorot uniform.
        num_proj: `P`; None for no projection.
        proj_clip: The bound on the magnitude of h' after a projection, at least 0; None
            for no bound.
        num_unit_shards: Accepted for compatibility with TensorFlow; not used.
        num_proj_shards: Accepted for compatibility with TensorFlow; not used.
        forget_bias: Added to f at each step; not stored in the bias.
        state_is_tuple: False for a state `[batch, H + P]` that holds `[c, h]`.
        activation: None for tanh, the name of a Keras activation, or a function.
        reuse: Accepted for compatibility with TensorFlow; not used.
        name: The name of the step in profiles; by default the name of the class.
        dtype: The required dtype of parameters and inputs; None for any dtype.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, an activation is unknown, or `dtype` is
            not floating-point.

    Source: `tf.compat.v1.lite.experimental.nn.TFLiteLSTMCell`.
    """

    library_kind = "lstm"

    def param_specs(self, depth: int) -> Specs:
        """Specs of the weights and biases, and of any peepholes and projection."""
        units, weight = self.num_units, self.initializer or glorot_uniform
        h = units if self.num_proj is None else self.num_proj
        specs: Specs = {
            f"{source}_to_{gate}_w": ParamSpec((units, columns), weight)
            for source, columns in (("input", depth), ("cell", h))
            for gate in INIT_ORDER
        }
        specs |= {f"{gate}_bias": ParamSpec((units,), zeros) for gate in INIT_ORDER}
        if self.use_peepholes:
            specs |= dict.fromkeys(PEEPHOLES, ParamSpec((units,), weight))
        if self.num_proj is not None:
            specs["projection"] = {"kernel": ParamSpec((h, units), weight)}
        return specs

    def stage_params(self, params: Params) -> Params:
        """Converts to parameters of `LSTMCell`; see `AffineCell.stage_params`."""
        from_inputs, from_h, bias = (
            jnp.concatenate([params[name.format(gate)] for gate in GATE_ORDER])
            for name in ("input_to_{}_w", "cell_to_{}_w", "{}_bias")
        )
        kernel = jnp.concatenate([from_inputs, from_h], axis=1).T
        core: Params = {"kernel": kernel, "bias": bias}
        core |= {name: params[name] for name in PEEPHOLES if name in params}
        if "projection" in params:
            core["projection"] = {"kernel": params["projection"]["kernel"].T}
        return core


@final
class TfLiteRNNCell(BasicRNNCell):
    """`BasicRNNCell` with separate, transposed weights for inputs and state.

        h' = activation(x input_weights^T + h recurrent_weights^T + bias)

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; state and
    output `[batch, H]`; `input_weights` `[H, I]`; `recurrent_weights` `[H, H]`; `bias`
    `[H]`.

    Attributes:
        num_units: `H`, at least 0.
        activation: None for tanh, the name of a Keras activation, or a function.
        reuse: Accepted for compatibility with TensorFlow; not used.
        name: The name of the step in profiles; by default the name of the class.
        dtype: The required dtype of parameters and inputs; None for any dtype.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, an activation is unknown, or `dtype` is
            not floating-point.

    Source: `tf.compat.v1.lite.experimental.nn.TfLiteRNNCell`.
    """

    library_kind = "rnn"

    def param_specs(self, depth: int) -> Specs:
        """Specs of both weight matrices and the bias."""
        units = self.num_units
        return {
            "input_weights": ParamSpec((units, depth), glorot_uniform),
            "recurrent_weights": ParamSpec((units, units), glorot_uniform),
            "bias": ParamSpec((units,), zeros),
        }

    def stage_params(self, params: Params) -> Params:
        """Converts to parameters of `BasicRNNCell`; see `AffineCell.stage_params`."""
        weights = params["input_weights"], params["recurrent_weights"]
        return {"kernel": jnp.concatenate(weights, axis=1).T, "bias": params["bias"]}
