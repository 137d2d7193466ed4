"""The linear recurrent unit, a cell with a complex state."""

import dataclasses
import math
from typing import Any, final

import jax
import jax.numpy as jnp
from jax.nn.initializers import normal

from .._base.math import at_least_float32, dot, widened
from .._base.typing import Array, DType, Key, Params, PyTree, Shaped
from .._sequences.recurrence import ComplexState
from .hyperparameters import as_size, check_fields, set_field, set_numbers
from .initializers import ParamSpec, zeros
from .linear_recurrence import Coefficients, DiagonalCell


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class LRUCell(DiagonalCell):
    """A linear recurrent unit (LRU): each complex state decays and rotates separately.

        lambda = exp(-exp(nu_log) + i exp(theta_log))
        x'     = lambda * x + exp(gamma_log) * ((B_re + i B_im) u)
        y      = Re((C_re + i C_im) x') + D * u

    Shapes, for `H = num_units` and `N = num_states`: inputs u and output y
    `[batch, H]`; state x a `ComplexState` of two arrays `[batch, N]`; `nu_log`,
    `theta_log`, `gamma_log` `[N]`; `B_re`, `B_im` `[N, H]`; `C_re`, `C_im` `[H, N]`;
    `D` `[H]`. Names and shapes match the paper's code.

    Initially, lambda is uniform in the ring `min_radius <= |lambda| <= max_radius`,
    `0 <= arg(lambda) <= max_phase`; `exp(gamma_log)` is `sqrt(1 - |lambda|^2)`. B, C
    and D are normal, with variances `1 / 2H`, `1 / N` and 1.

    Attributes:
        num_units: `H`, at least 0.
        num_states: `N`; None for `num_units`.
        min_radius: The smallest initial `|lambda|`, `r_min` in the paper; choose it
            near 1 for a long memory.
        max_radius: The largest initial `|lambda|`, `r_max` in the paper; at most 1.
        max_phase: The largest initial phase, in radians.
        name: The name of the step in profiles; by default the name of the class.
        dtype: The required dtype of parameters and inputs; None for any dtype.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a size is negative, a radius or phase is out of range, `dtype` is
            not floating-point, or the inputs of `init` or a step do not have depth
            `num_units`.

    Source: arXiv:2303.06349, section 3 and appendix A.
    """

    num_units: int
    num_states: int | None = None
    min_radius: float = 0.0
    max_radius: float = 1.0
    max_phase: float = math.tau
    name: str | None = None
    dtype: DType | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_states is None:
            set_field(self, num_states=self.num_units)
        check_fields(self, num_states=as_size)
        set_numbers(self, "max_phase", low=0, high=math.tau)

    @property
    def state_size(self) -> ComplexState:
        """The sizes of the state's real and imaginary parts."""
        return ComplexState(self.num_states, self.num_states)

    def param_specs(self, depth: int) -> dict[str, Any]:
        """Specs of the parameters of lambda and gamma, and of B, C and D."""
        units, states = self.num_units, self.state_size.real
        b = ParamSpec((states, units), normal(1 / math.sqrt(2 * max(1, units))))
        c = ParamSpec((units, states), normal(1 / math.sqrt(max(1, states))))
        return {
            "nu_log": ParamSpec((states,), self._draw_nu_log),
            "theta_log": ParamSpec((states,), self._draw_theta_log),
            "gamma_log": ParamSpec((states,), zeros),  # `init` replaces the zeros.
            **dict.fromkeys(("B_re", "B_im"), b),
            **dict.fromkeys(("C_re", "C_im"), c),
            "D": ParamSpec((units,), normal(1.0)),
        }

    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """Creates parameters; see `RNNCell.init`. `nu_log` determines `gamma_log`."""
        params = super().init(key, inputs, dtype)
        nu_log = params["nu_log"]
        nu = jnp.exp(widened(nu_log))
        # `-expm1(-2 * nu)` is 1 - |lambda|^2 without cancellation.
        gamma_log = 0.5 * jnp.log(-jnp.expm1(-2 * nu))
        return params | {"gamma_log": gamma_log.astype(nu_log.dtype)}

    def coefficients(self, params: Params, inputs: Array) -> Coefficients:
        """Lambda, gamma times B u, and the inputs, which `output` multiplies by D."""
        dtype = at_least_float32(inputs.dtype)
        nu, theta, gamma = (
            jnp.exp(params[name].astype(dtype))[None, :]
            for name in ("nu_log", "theta_log", "gamma_log")
        )
        a = jnp.exp(-nu)
        factor = ComplexState(a * jnp.cos(theta), a * jnp.sin(theta))
        kernel = jnp.concatenate([params["B_re"], params["B_im"]])
        real, imag = jnp.split(dot(inputs, kernel.T, dtype), 2, axis=-1)
        return factor, ComplexState(gamma * real, gamma * imag), inputs

    def output(self, params: Params, state: ComplexState, rest: Array) -> Array:
        """The real part of C x, plus D u."""
        dtype = at_least_float32(rest.dtype)
        # Compute two products, because joining the parts would copy all states.
        real = dot(state.real.astype(rest.dtype), params["C_re"].T, dtype)
        imag = dot(state.imag.astype(rest.dtype), params["C_im"].T, dtype)
        skip = params["D"].astype(dtype)[None, :] * rest.astype(dtype)
        return real - imag + skip

    def _draw_nu_log(self, key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
        return jnp.log(self.draw_decays(key, shape, dtype))

    def _draw_theta_log(self, key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
        dtype = at_least_float32(dtype)
        phases = jax.random.uniform(key, shape, dtype, maxval=self.max_phase)
        return jnp.log(jnp.maximum(phases, 1e-30))
