"""The phased LSTM, whose units are updated in a part of each of their periods."""

import dataclasses
import math
from typing import Any, final

import jax
import jax.numpy as jnp
from jax.nn.initializers import constant

from .._base.cell_keys import check_key_of_step
from .._base.errors import describe, is_array
from .._base.math import affine
from .._base.typing import Array, DType, Key, Params, PyTree, Shaped
from .._cells.affine import init_by_specs
from .._cells.base import RNNCell, scope_name
from .._cells.hyperparameters import check_number, set_common_fields, set_field
from .._cells.initializers import ParamSpec, glorot_uniform, zeros
from .._cells.states import LSTMStateTuple
from .._cells.step_checks import (
    check_floating,
    check_one_dtype,
    check_params,
    check_state,
    check_step_inputs,
)


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class PhasedLSTMCell(RNNCell):
    """An LSTM whose units are updated while a gate that is periodic in time is open.

    The inputs are `(time, x)`; times need not be equally spaced.

        i, f = split(sigmoid([x, h] mask_gates/kernel + mask_gates/bias))
        c~   = f * c + i * tanh([x, h] new_input/kernel + new_input/bias)
        h~   = tanh(c~) * sigmoid([x, h] output_gate/kernel + output_gate/bias)
        phi  = ((time - phase) mod period) / period
        k    = 2 phi / ratio_on          if phi < ratio_on / 2
               2 - 2 phi / ratio_on      else, if phi < ratio_on
               leak * phi                else
        c', h' = k * c~ + (1 - k) * c, k * h~ + (1 - k) * h

    With peepholes `mask_gates` reads c and `output_gate` reads c~ as well, after h. The
    derivative of `a mod b` is 1 for a and 0 for b, as in contrib.

    Shapes, for input size `I` and `H = num_units`: inputs `([batch, 1], [batch, I])`; c
    and h `[batch, H]`, the output is h; `mask_gates/kernel` `[I + H, 2H]`, blocks i, f;
    `new_input/kernel` and `output_gate/kernel` `[I + H, H]`, with peepholes `H` rows
    more in those of `mask_gates` and `output_gate`; each with a `bias`; `period`,
    `phase`, `ratio_on` `[H]`. phi is computed in the dtype of the times, if that is
    wider than that of x: float32 times have steps of 1 beyond 2 ** 24.

    contrib runs in float32 alone, times aside; here x, state and parameters may have
    any floating dtype.

    Attributes:
        num_units: `H`.
        use_peepholes: Whether the gates read c.
        leak: The slope of k where the gate is closed, in [0, 1].
        ratio_on: What the parameter `ratio_on` starts from, in (0, 1]: the part of a
            period in which the gate is open.
        trainable_ratio_on: False for no gradient with respect to `ratio_on`.
        period_init_min: Periods start from `exp(U(log(min), log(max)))`, phases from
            `U(0, period)`; positive, and at most `period_init_max`.
        period_init_max: See `period_init_min`.
        reuse: Accepted for compatibility with TensorFlow; not used.
        name: The name of the step in profiles; by default that of the class.
        dtype: The required dtype of parameters and x; None for any.

    Raises:
        TypeError: If a field is of the wrong kind.
        ValueError: If `num_units` is negative, a number is out of its range, or `dtype`
            is not floating.

    Source: arXiv:1610.09513; `tf.contrib.rnn.PhasedLSTMCell`.
    """

    num_units: int
    use_peepholes: bool = False
    leak: float = 0.001
    ratio_on: float = 0.1
    trainable_ratio_on: bool = True
    period_init_min: float = 1.0
    period_init_max: float = 1000.0
    reuse: Any = dataclasses.field(default=None, compare=False)
    name: str | None = None
    dtype: DType | None = None

    def __post_init__(self) -> None:
        set_common_fields(self)
        where = type(self).__name__
        most = {"leak": 1, "ratio_on": 1}
        most |= dict.fromkeys(("period_init_min", "period_init_max"), math.inf)
        for field, high in most.items():
            number = check_number(where, field, getattr(self, field), 0, high)
            if field != "leak" and not 0 < number < math.inf:
                raise ValueError(
                    f"{where}: `{field}` must be positive and finite, got {number}."
                )
            set_field(self, **{field: number})
        if self.period_init_min > self.period_init_max:
            raise ValueError(
                f"{where}: `period_init_min` must be at most `period_init_max`, "
                f"{self.period_init_max}, got {self.period_init_min}."
            )

    @property
    def is_random(self) -> bool:
        """Whether a step draws random numbers: it does not."""
        return False

    @property
    def state_size(self) -> LSTMStateTuple:
        """Those of c and h."""
        return LSTMStateTuple(self.num_units, self.num_units)

    output_size = property(lambda self: self.num_units)

    def param_specs(self, depth: int) -> dict[str, Any]:
        """The parameters for x of size `depth`; `phase` as a part of the period."""
        units, peepholes = self.num_units, self.num_units * self.use_peepholes

        def product(columns: int, more: int) -> dict[str, ParamSpec]:
            shape = (depth + units + more, columns)
            kernel = ParamSpec(shape, glorot_uniform)
            return {"kernel": kernel, "bias": ParamSpec((columns,), zeros)}

        vector = (units,)
        return {
            "mask_gates": product(2 * units, peepholes),
            "new_input": product(units, 0),
            "output_gate": product(units, peepholes),
            "period": ParamSpec(vector, self._draw_period),
            "phase": ParamSpec(vector, jax.random.uniform),
            "ratio_on": ParamSpec(vector, constant(self.ratio_on)),
        }

    def _draw_period(self, key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
        low, high = math.log(self.period_init_min), math.log(self.period_init_max)
        return jnp.exp(jax.random.uniform(key, shape, dtype, low, high))

    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """Fresh parameters for inputs `(time, x)`; see `RNNCell.init`.

        Raises:
            ValueError: If `inputs` are not a pair of arrays of rank 2, or the dtype is
                not floating.
            TypeError: If `key` is not a random key.
        """
        _, x = self._checked_inputs(inputs)
        params = init_by_specs(self, key, x, dtype)
        return params | {"phase": params["phase"] * params["period"]}

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step; see `RNNCell.apply`. No random numbers are drawn.

        Raises:
            ValueError: If a shape, or the set of parameters, is not what the cell and
                the inputs require.
            TypeError: If a dtype, or the kind of state, is not what they require.
        """
        name = type(self).__name__
        check_key_of_step(name, key)
        time, x = self._checked_inputs(inputs)
        state = LSTMStateTuple(*check_state(name, state, self.state_size, x.shape[0]))
        check_params(name, params, self.param_specs, x)
        check_one_dtype(name, self.dtype, x, state.h)
        with jax.named_scope(scope_name(self)):
            k = self._time_gate(params, time, x.dtype)
            c, h = self._candidates(params, x, state)
            mix = lambda new, old: (
                k.astype(old.dtype) * new + (1 - k).astype(old.dtype) * old
            )
            state = LSTMStateTuple(mix(c, state.c), mix(h, state.h))
            return state.h, state

    def _candidates(
        self, params: Params, x: Array, state: LSTMStateTuple
    ) -> tuple[Array, Array]:
        """`(c~, h~)`."""
        (c, h), dtype, sigmoid = state, state.c.dtype, jax.nn.sigmoid
        peep = lambda c: (c.astype(h.dtype),) if self.use_peepholes else ()
        z = affine(params["mask_gates"], (x, h, *peep(c)), dtype)
        i, f = jnp.split(sigmoid(z), 2, axis=-1)
        c = f * c + i * jnp.tanh(affine(params["new_input"], (x, h), dtype))
        o = sigmoid(affine(params["output_gate"], (x, h, *peep(c)), dtype))
        return c, (jnp.tanh(c) * o).astype(h.dtype)

    def _time_gate(self, params: Params, time: Array, dtype: DType) -> Array:
        """k, `[batch, units]`."""
        ratio_on = params["ratio_on"][None, :]
        if not self.trainable_ratio_on:
            ratio_on = jax.lax.stop_gradient(ratio_on)
        wide = jnp.promote_types(time.dtype, dtype)
        time, phase, period = (
            a.astype(wide)
            for a in (time, params["phase"][None, :], params["period"][None, :])
        )
        phi = (_modulo(time - phase, period) / period).astype(dtype)
        up = 2 * phi / ratio_on
        k = jnp.where(phi < ratio_on, 2 - up, self.leak * phi)
        return jnp.where(phi < 0.5 * ratio_on, up, k)

    def _checked_inputs(self, inputs: Any) -> tuple[Any, Any]:
        name = type(self).__name__
        if not (isinstance(inputs, tuple | list) and len(inputs) == 2):
            got = len(inputs) if isinstance(inputs, tuple | list) else describe(inputs)
            raise ValueError(
                f"{name}: `inputs` must be a pair (time, x) of arrays [batch, 1] and "
                f"[batch, depth], got {got}."
            )
        time, x = inputs
        x = check_step_inputs(f"{name}: of the pair (time, x), x", x)
        is_shape = isinstance(time, jax.ShapeDtypeStruct)
        if not (is_shape or is_array(time)) or tuple(time.shape) != (x.shape[0], 1):
            raise ValueError(
                f"{name}: `inputs[0]`, the time, must be an array [{x.shape[0]}, 1], "
                f"got {describe(time)}. `times[..., None]` adds the axis."
            )
        check_floating(name, "inputs[0]", time.dtype)
        return time if is_shape else jnp.asarray(time), x


def _modulo(a: Array, b: Array) -> Array:
    """`a mod b`, with the derivative 1 for a and 0 for b."""
    return a + jax.lax.stop_gradient(jnp.mod(a, b) - a)
