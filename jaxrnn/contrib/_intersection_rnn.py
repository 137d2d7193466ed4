"""The intersection recurrent cell, with a gate through time and one through depth."""

import dataclasses
from collections.abc import Callable
from typing import Any, final

import jax
import jax.numpy as jnp

from .._base.arguments import as_count
from .._base.math import affine
from .._base.typing import Array, DType, Initializer, Key, Params, PyTree
from .._cells.affine import AffineCell, Stage
from .._cells.base import scope_name
from .._cells.hyperparameters import set_common_fields, set_field
from .._cells.initializers import ParamSpec, bias_initializer, glorot_uniform, zeros
from .._cells.specs_cell import SpecsCell
from .._cells.step_checks import (
    check_one_dtype,
)
from .._time.each_step import at_each_step
from .._time.steps import Steps


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class IntersectionRNNCell(SpecsCell):
    """A recurrent cell whose output is gated between the inputs and a candidate (+RNN).

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
        num_units: `H`.
        num_in_proj: None for inputs that must have size H. Any positive number allows
            other sizes; as in contrib, the projection is to H all the same.
        initializer: For the kernels; None for Glorot uniform. The biases are zeros,
            unless this is an `initializers.by_part` with another.
        forget_bias: Added to g and q at each step; not part of the stored bias.
        y_activation: A function, the name of a Keras activation, or None for tanh.
        reuse: Accepted for compatibility with TensorFlow; not used.
        name: The name of the step in profiles; by default that of the class.
        dtype: The required dtype of parameters and inputs; None for any.

    Raises:
        TypeError: If a field is of the wrong kind.
        ValueError: If `num_units` or `num_in_proj` is negative, the activation is not
            known, or `dtype` is not floating.

    Source: arXiv:1611.09913; `tf.contrib.rnn.IntersectionRNNCell`.
    """

    num_units: int
    num_in_proj: int | None = None
    initializer: Initializer | None = None
    forget_bias: float = 1.0
    y_activation: Any = jax.nn.relu
    reuse: Any = dataclasses.field(default=None, compare=False)
    name: str | None = None
    dtype: DType | None = None

    state_size = output_size = property(lambda self: self.num_units)

    def __post_init__(self) -> None:
        set_common_fields(self)
        name = "IntersectionRNNCell"
        if self.num_in_proj is not None:
            count = as_count(name, "num_in_proj", self.num_in_proj, 0)
            set_field(self, num_in_proj=count)

    def param_specs(self, depth: int) -> dict[str, Any]:
        """All parameters for inputs of size `depth`, in the order of their creation.

        Raises:
            ValueError: If `depth` is not `num_units` and there is no `num_in_proj`.
        """
        size, kernel = self.num_units, self.initializer or glorot_uniform
        bias = bias_initializer(kernel, zeros)
        specs: dict[str, Any] = {
            "kernel": ParamSpec((2 * size, 4 * size), kernel, size, 4),
            "bias": ParamSpec((4 * size,), bias, blocks=4),
        }
        if depth == size:
            return specs
        if not self.num_in_proj:
            raise ValueError(
                f"IntersectionRNNCell: `inputs` must have the size of `num_units`, "
                f"{size}, got {depth}. Give `num_in_proj={size}` to project them."
            )
        projection = {
            "kernel": ParamSpec((depth, size), kernel, depth),
            "bias": ParamSpec((size,), bias),
        }
        return {"in_projection": projection, **specs}

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step; see `RNNCell.apply`. No random numbers are drawn.

        Raises:
            ValueError: If a shape, or the set of parameters, is not what the cell and
                the inputs require.
            TypeError: If a dtype is not what they require.
        """
        inputs, state = self.checked_step(params, inputs, state, key)
        check_one_dtype("IntersectionRNNCell", self.dtype, inputs, state)
        inputs = self._project(params, inputs)
        through_time, through_depth = self._halves(params)
        output = self._output(through_depth, inputs, state)
        _, state = self._recurrence.apply(through_time, inputs, state)
        return output, state

    def apply_sequence(
        self,
        params: Params,
        inputs: PyTree,
        state: PyTree,
        steps: Steps,
        keys: Callable[[Array], Any] | None = None,
        implementation: Any = None,
    ) -> tuple[PyTree, PyTree]:
        """The states step by step, the outputs at once; see `RNNCell.apply_sequence`.

        Raises:
            DeclinedError: If the implementation cannot run the recurrence.
        """
        project = lambda x: self._project(params, x)
        inputs = at_each_step(project, steps.zero_dead(inputs))
        through_time, through_depth = self._halves(params)
        old_states, state = self._recurrence.apply_sequence(
            through_time,
            inputs,
            state,
            steps.with_stand_in(inputs, state),
            keys,
            implementation,
        )
        output = lambda x, h: self._output(through_depth, x, h)
        outputs = lambda h: steps.zero_dead(at_each_step(output, inputs, h))
        return steps.map_outputs(outputs, old_states), state

    @property
    def _recurrence(self) -> "_Recurrence":
        return _Recurrence(self.num_units, self.forget_bias, scope_name(self))

    def _project(self, params: Params, inputs: Array) -> Array:
        if "in_projection" not in params:
            return inputs
        return affine(params["in_projection"], [inputs], inputs.dtype)

    def _halves(self, params: Params) -> list[Params]:
        """The parameters of g and j, then those of q and y."""
        kernels, biases = (
            jnp.split(params[name], 2, -1) for name in ("kernel", "bias")
        )
        pairs = zip(kernels, biases, strict=True)
        return [{"kernel": kernel, "bias": bias} for kernel, bias in pairs]

    def _output(self, params: Params, inputs: Array, old_state: Array) -> Array:
        z = affine(params, [inputs, old_state], inputs.dtype)
        q, y = jnp.split(z, 2, axis=-1)
        q = jax.nn.sigmoid(q + self.forget_bias)
        return q * inputs + (1 - q) * self.y_activation(y)


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class _Recurrence(AffineCell):
    """What feeds back. Its output is the state before the step, which outputs read."""

    num_units: int
    forget_bias: float
    name: str

    state_size = output_size = property(lambda self: self.num_units)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """One product for the gate and the candidate."""
        size = self.num_units
        return (Stage(self._update, size, 2 * size, glorot_uniform, zeros, blocks=2),)

    def enter(self, state: Array) -> tuple[Array, Array]:
        """The state, as the operand of the product and as the carry."""
        return state, state

    def _update(self, params: Params, z: Array, state: Array) -> tuple[Array, Array]:
        g, j = jnp.split(z, 2, axis=-1)
        g = jax.nn.sigmoid(g + self.forget_bias)
        return state, g * state + (1 - g) * jnp.tanh(j)
