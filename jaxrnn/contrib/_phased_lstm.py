"""The phased LSTM, whose units update only during part of their period."""

import math

import jax
import jax.numpy as jnp
from jax.nn.initializers import constant

from jaxrnn import LSTMStateTuple, ParamSpec, extend
from jaxrnn.extend import fields
from jaxrnn.typing import Array, DType, Key, Params, PyTree, Shaped, Specs


@fields.dataclass
class PhasedLSTMCell(extend.SpecsCell):
    """An LSTM whose units update while a time-periodic gate is open.

    The inputs are `(time, x)`; times need not be equally spaced.

        i, f = split(sigmoid([x, h] mask_gates/kernel + mask_gates/bias))
        c~   = f * c + i * tanh([x, h] new_input/kernel + new_input/bias)
        h~   = tanh(c~) * sigmoid([x, h] output_gate/kernel + output_gate/bias)
        phi  = ((time - phase) mod period) / period
        k    = 2 phi / ratio_on          if phi < ratio_on / 2
               2 - 2 phi / ratio_on      else if phi < ratio_on
               leak * phi                otherwise
        c', h' = k * c~ + (1 - k) * c, k * h~ + (1 - k) * h

    With peepholes, `mask_gates` reads `[x, h, c]` and `output_gate` reads `[x, h, c~]`.
    As in contrib, the derivative of `a mod b` is 1 with respect to a and 0 with respect
    to b.

    Shapes, for input size `I` and `H = num_units`: inputs `([batch, 1], [batch, I])`;
    c, h and output `[batch, H]`; `mask_gates/kernel` `[I + H, 2H]`, blocks i, f;
    `new_input/kernel` and `output_gate/kernel` `[I + H, H]`; a `bias` for each kernel;
    `period`, `phase`, `ratio_on` `[H]`. With peepholes, the kernels of `mask_gates` and
    `output_gate` have `H` more rows. phi is computed in the dtype of the times if that
    dtype is wider than the dtype of x. float32 times cannot represent all integers
    beyond 2 ** 24.

    contrib requires float32 for all arrays except the times. Here, x, state and
    parameters may have any floating-point dtype.

    Attributes:
        num_units: `H`, at least 0.
        use_peepholes: Whether the gates read c.
        leak: The slope of k while the gate is closed, in [0, 1].
        ratio_on: The initial value of the parameter `ratio_on`, in (0, 1]. This
            parameter is the fraction of a period during which the gate is open.
        trainable_ratio_on: Whether gradients flow to the parameter `ratio_on`.
        period_init_min: The lower bound of the initial periods, which are drawn from
            `exp(U(log(min), log(max)))`; must be positive and must not exceed
            `period_init_max`. Initial phases are drawn from `U(0, period)`.
        period_init_max: The upper bound of the initial periods.
        dtype: The required dtype of parameters and x; None for any dtype.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, or `dtype` is not
            floating-point.

    Source: arXiv:1610.09513; `tf.contrib.rnn.PhasedLSTMCell`.
    """

    num_units: int = fields.size()
    use_peepholes: bool = fields.flag(False)
    leak: float = fields.number(0.001, low=0, high=1)
    ratio_on: float = fields.number(0.1, low=0, high=1)
    trainable_ratio_on: bool = fields.flag(True)
    period_init_min: float = fields.number(1.0, low=0)
    period_init_max: float = fields.number(1000.0, low=0)
    reuse: object = fields.unused()
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()

    feature_axes = None  # Inputs are a pair `(time, x)`.
    state_size = property(lambda self: LSTMStateTuple(self.num_units, self.num_units))
    output_size = property(lambda self: self.num_units)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("ratio_on", "period_init_min", "period_init_max"):
            value = getattr(self, name)
            must = "be positive and finite"
            extend.expect(0 < value < math.inf, name, must, value)
        low = self.period_init_min
        must = f"not exceed `period_init_max` ({self.period_init_max})"
        extend.expect(low <= self.period_init_max, "period_init_min", must, low)

    def param_specs(self, depth: int) -> Specs:
        """Specs for x of size `depth`; `phase` is drawn as a fraction of the period."""
        units = self.num_units
        rows = depth + units
        peepholes = units if self.use_peepholes else 0
        return {
            "mask_gates": extend.affine_specs(rows + peepholes, 2 * units),
            "new_input": extend.affine_specs(rows, units),
            "output_gate": extend.affine_specs(rows + peepholes, units),
            "period": ParamSpec((units,), self._draw_period),
            "phase": ParamSpec((units,), jax.random.uniform),
            "ratio_on": ParamSpec((units,), constant(self.ratio_on)),
        }

    def _draw_period(self, key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
        low = math.log(self.period_init_min)
        high = math.log(self.period_init_max)
        return jnp.exp(jax.random.uniform(key, shape, dtype, low, high))

    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """Creates parameters for inputs `(time, x)`; see `RNNCell.init`.

        Raises:
            ValueError: If `inputs` are not a pair of arrays of rank 2, or the dtype is
                not floating-point.
            TypeError: If `key` is not a random key.
        """
        params = super().init(key, self._checked_inputs(inputs)[1], dtype)
        return params | {"phase": params["phase"] * params["period"]}

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """Runs one step; see `RNNCell.apply`. The step draws no random numbers.

        Raises:
            ValueError: If a shape or a parameter name does not match the cell and the
                inputs.
            TypeError: If a dtype or the type of the state does not match the cell and
                the inputs.
        """
        time, x = self._checked_inputs(inputs)
        x, state = self.checked_step(params, x, state, key)
        with jax.named_scope(extend.scope_name(self)):
            k = self._time_gate(params, time, x.dtype)
            candidates = self._candidates(params, x, state)
            state = jax.tree.map(
                lambda new, old: (
                    k.astype(old.dtype) * new + (1 - k).astype(old.dtype) * old
                ),
                candidates,
                state,
            )
            return state.h, state

    def _candidates(
        self, params: Params, x: Array, state: LSTMStateTuple
    ) -> LSTMStateTuple:
        """The candidates `(c~, h~)`."""
        c, h = state
        must = f"have the dtype of the inputs, {x.dtype}"
        extend.expect(h.dtype == x.dtype, "state.h", must, h, error=TypeError)

        def product(name: str, *operands: Array) -> Array:
            return extend.affine(params[name], operands, state.c.dtype)

        def gates(name: str, c: Array) -> Array:
            if self.use_peepholes:
                return jax.nn.sigmoid(product(name, x, h, c.astype(h.dtype)))
            return jax.nn.sigmoid(product(name, x, h))

        i, f = jnp.split(gates("mask_gates", c), 2, axis=-1)
        c = f * c + i * jnp.tanh(product("new_input", x, h))
        o = gates("output_gate", c)
        return LSTMStateTuple(c, (jnp.tanh(c) * o).astype(h.dtype))

    def _time_gate(self, params: Params, time: Array, dtype: DType) -> Array:
        """The gate k, `[batch, units]`."""
        wide = jnp.promote_types(time.dtype, dtype)
        period, phase, ratio_on = (
            params[name][None, :] for name in ("period", "phase", "ratio_on")
        )
        if not self.trainable_ratio_on:
            ratio_on = jax.lax.stop_gradient(ratio_on)
        period = period.astype(wide)
        elapsed = time.astype(wide) - phase.astype(wide)
        # As in contrib, the derivative of `a mod b` is 1 with respect to a and 0 with
        # respect to b.
        rest = jax.lax.stop_gradient(jnp.mod(elapsed, period) - elapsed)
        phi = ((elapsed + rest) / period).astype(dtype)
        up = 2 * phi / ratio_on
        k = jnp.where(phi < ratio_on, 2 - up, self.leak * phi)
        return jnp.where(phi < 0.5 * ratio_on, up, k)

    def _checked_inputs(self, inputs: PyTree) -> tuple[PyTree, PyTree]:
        """Checks and returns `(time, x)`, each an array or its shape."""
        is_pair = isinstance(inputs, tuple | list) and len(inputs) == 2
        must = "be a pair (time, x) of arrays [batch, 1] and [batch, depth]"
        extend.expect(is_pair, "inputs", must, inputs)
        time, x = inputs
        fix = "To add the last axis, pass `times[..., None]`."
        time = extend.check_step_inputs(time, "inputs[0]", (1,), "(the times)", fix)
        x = extend.check_step_inputs(x, "inputs[1]")
        must = f"have as many rows as `inputs[1]` ({x.shape[0]})"
        extend.expect(time.shape[0] == x.shape[0], "inputs[0]", must, time)
        return time, x
