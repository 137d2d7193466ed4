"""Linear recurrent units whose factors are drawn from a ring: LRU and RG-LRU."""

import dataclasses
import math
from collections.abc import Callable
from typing import final

import jax
import jax.numpy as jnp
from jax.nn.initializers import normal

from ..._base.errors import expect
from ..._base.math import at_least_float32, widened
from ..._base.products import dot
from ..._base.typing import Array, DType, Initializer, Key, Params, PyTree, Shaped
from .. import fields
from ..params import (
    ParamSpec,
    Specs,
    check_is_units,
    head_size,
    kernel_and_bias,
    zeros,
)
from .cell import Coefficients, LinearRecurrenceCell
from .element import ComplexState, Element

_SHARPNESS = 8.0  # The constant c of the RG-LRU paper.


@final
@fields.dataclass
class LRUCell(LinearRecurrenceCell[ComplexState[Array]]):
    """A linear recurrent unit (LRU): each complex state decays and rotates separately.

    Each step computes::

        lambda = exp(-exp(nu_log) + i exp(theta_log))
        x'     = lambda * x + exp(gamma_log) * ((B_re + i B_im) u)
        y      = Re((C_re + i C_im) x') + D * u

    Shapes, for `H = num_units` and `N = num_states`: inputs u and output y
    `[batch, H]`; state x a `ComplexState` of two arrays `[batch, N]`; `nu_log`,
    `theta_log`, `gamma_log` `[N]`; `B_re`, `B_im` `[N, H]`; `C_re`, `C_im` `[H, N]`;
    `D` `[H]`. Names and shapes match the paper's code.

    Initially, lambda is uniform in the ring `min_radius <= |lambda| <= max_radius`,
    `0 <= arg(lambda) <= max_phase`; `exp(gamma_log)` is `sqrt(1 - |lambda|^2)`. The
    entries of B, C and D are drawn from normal distributions with mean 0 and variances
    `1 / (2H)`, `1 / N` and 1.

    An S5 layer (arXiv:2208.04933) is also a diagonal state-space model. The discretized
    matrices of a trained layer give `nu_log`, `theta_log`, `B_re` and `B_im`. S5's time
    steps and initial values, which training needs, are not in the package.

    Attributes:
        num_units: `H`, at least 0.
        num_states: `N`, the number of complex states. Default: `num_units`.
        min_radius: The smallest initial `|lambda|`, `r_min` in the paper; choose a
            value near 1 for a long memory.
        max_radius: The largest initial `|lambda|`, `r_max` in the paper; at most 1.
        max_phase: The largest initial phase, in radians.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a size is negative, a radius or phase is out of range, `dtype` is
            not floating-point, or the inputs of `init` or a step do not have depth
            `num_units`.

    Source: arXiv:2303.06349, section 3 and appendix A.
    """

    num_units: int = fields.size()
    num_states: int = fields.size(default=None)
    min_radius: float = fields.number(0.0, low=0, high=1)
    max_radius: float = fields.number(1.0, low=0, high=1)
    max_phase: float = fields.number(math.tau, low=0, high=math.tau)
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_states is None:
            fields.set_field(self, "num_states", self.num_units)
        _check_ring(self)

    output_size = property(lambda self: self.num_units)

    @property
    def state_size(self) -> ComplexState[int]:
        """The sizes of the state's real and imaginary parts."""
        return ComplexState(self.num_states, self.num_states)

    def param_specs(self, depth: int) -> Specs:
        """Specs of the parameters of lambda and gamma, and of B, C and D."""
        check_is_units(self, depth)
        units = self.num_units
        states = self.num_states
        b = ParamSpec((states, units), normal(1 / math.sqrt(2 * max(1, units))))
        c = ParamSpec((units, states), normal(1 / math.sqrt(max(1, states))))
        return {
            "nu_log": ParamSpec((states,), self._draw_nu_log),
            "theta_log": ParamSpec((states,), self._draw_theta_log),
            "gamma_log": ParamSpec((states,), zeros),  # `init` replaces the zeros.
            "B_re": b,
            "B_im": b,
            "C_re": c,
            "C_im": c,
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
        """Returns lambda, gamma times B u, and u, which `output` multiplies by D."""
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
        """Returns the real part of C x, plus D u."""
        dtype = at_least_float32(rest.dtype)
        # Compute two matrix products, because concatenating the real and imaginary
        # parts would copy all states.
        real = dot(state.real.astype(rest.dtype), params["C_re"].T, dtype)
        imag = dot(state.imag.astype(rest.dtype), params["C_im"].T, dtype)
        skip = params["D"].astype(dtype)[None, :] * rest.astype(dtype)
        return real - imag + skip

    def _draw_nu_log(self, key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
        return jnp.log(_draw_decays(self, key, shape, dtype))

    def _draw_theta_log(self, key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
        dtype = at_least_float32(dtype)
        phases = jax.random.uniform(key, shape, dtype, maxval=self.max_phase)
        return jnp.log(jnp.maximum(phases, 1e-30))


@final
@fields.dataclass
class RGLRUCell(LinearRecurrenceCell[Array]):
    """A real-gated linear recurrent unit (RG-LRU); only the inputs determine its gates.

    Each step computes::

        i     = sigmoid(W_x x + b_x)
        r     = sigmoid(W_a x + b_a)
        log a = -8 softplus(a_param) * r
        h'    = a * h + sqrt(1 - a^2) * (i * x)

    W_x and W_a are block-diagonal: each of the `num_heads` blocks of units computes its
    gates from its own inputs. Shapes, for `H = num_units` and `S = H / num_heads`:
    inputs, state and output `[batch, H]`; `a_param` `[H]`, the paper's Lambda with the
    opposite sign; `input_gate` and `a_gate`, each a dict of `w` `[num_heads, S, S]` and
    `b` `[num_heads, S]`. Names and shapes match the `recurrentgemma` package.

    RecurrentGemma computes `h' = i * x`, without the square root, at position 0 of a
    document. With `scale_first_step=False`, this cell does the same in each row whose
    state is all zeros:

    - at the first step from a zero state;
    - after a reset to zeros, such as the start of a packed sequence;
    - while all inputs so far were zeros.

    If a state later decays to exactly 0, the cell omits the square root only if it runs
    step by step.

    The derivative of the square root is unbounded at 0. Where `1 - a^2` is below the
    square of the dtype's epsilon, a straight line through 0 therefore replaces the
    square root.

    Attributes:
        num_units: `H`, at least 0.
        num_heads: The number of blocks, which must divide `H`.
        min_radius: The smallest initial radius, where `a = radius ** (8 r)`. Initially
            r is about 1/2, so a is about `radius ** 4`.
        max_radius: The largest initial radius, at most 1. For a memory of M steps, use
            `1 - 1 / (4 M)`.
        kernel_initializer: Initializes `w`. Default: a normal distribution of variance
            `1 / S`.
        bias_initializer: Initializes `b`. Default: zeros.
        scale_first_step: Whether a step from a state of zeros multiplies `i * x` by
            `sqrt(1 - a^2)`, as other steps do. Pass False for the weights of
            RecurrentGemma.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If `num_units` is negative, `num_heads` does not divide `num_units`,
            a radius is out of range, `dtype` is not floating-point, or the inputs of
            `init` or a step do not have depth `num_units`.

    Source: arXiv:2402.19427, section 2.4; `recurrentgemma.torch.layers.RGLRU`.
    """

    num_units: int = fields.size()
    num_heads: int = fields.count(default=1)
    min_radius: float = fields.number(0.9, low=0, high=1)
    max_radius: float = fields.number(0.999, low=0, high=1)
    kernel_initializer: Initializer | None = fields.initializer()
    bias_initializer: Initializer | None = fields.initializer()
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()
    _: dataclasses.KW_ONLY
    scale_first_step: bool = fields.flag(True)

    state_size = output_size = property(lambda self: self.num_units)

    def __post_init__(self) -> None:
        super().__post_init__()
        head_size(self)  # Raises an error unless `num_heads` divides `num_units`.
        _check_ring(self)

    def param_specs(self, depth: int) -> Specs:
        """Specs of `a_param`, `input_gate` and `a_gate`."""
        check_is_units(self, depth)
        size = head_size(self)
        kernel, bias = kernel_and_bias(self, normal(1 / math.sqrt(max(1, size))))
        gate = {
            "w": ParamSpec((self.num_heads, size, size), kernel),
            "b": ParamSpec((self.num_heads, size), bias),
        }
        a_param = ParamSpec((self.num_units,), self._draw_a_param)
        return {"a_param": a_param, "input_gate": gate, "a_gate": dict(gate)}

    def coefficients(self, params: Params, inputs: Array) -> Coefficients:
        """Returns the decay a, `sqrt(1 - a^2) i x`, and `i x` for `term_from_zeros`."""
        dtype = at_least_float32(inputs.dtype)
        gate_x, gate_a = self._gates(params, inputs, dtype)
        rate = -_SHARPNESS * jax.nn.softplus(params["a_param"].astype(dtype))
        log_a = rate[None, :] * gate_a
        # 1 - a * a would cancel to 0 where a is almost 1.
        scale = bounded_sqrt(-jnp.expm1(2 * log_a))
        gated = gate_x * inputs.astype(dtype)
        return jnp.exp(log_a), scale * gated, None if self.scale_first_step else gated

    @property
    def term_from_zeros(self) -> Callable[[PyTree], Element] | None:
        """With `scale_first_step=False`, a function that returns `i x`."""
        return None if self.scale_first_step else lambda gated: gated

    def _gates(self, params: Params, x: Array, dtype: DType) -> list[Array]:
        """Computes the gates of x and of a, `[batch, H]`, in one matmul per block."""
        gates = [params["input_gate"], params["a_gate"]]
        w, b = (
            jnp.concatenate([gate[name] for gate in gates], axis=-1)
            for name in ("w", "b")
        )
        # Works around an error of XLA for CPUs (JAX 0.10 and 0.12), "Unsupported
        # element type: BF16 x BF16 = F32": puts the axis of heads first.
        blocks = x.reshape(x.shape[0], *w.shape[:2]).swapaxes(0, 1)
        z = jnp.matmul(blocks, w, preferred_element_type=dtype).swapaxes(0, 1)
        z = jax.nn.sigmoid(z + b.astype(dtype)[None])
        return [gate.reshape(x.shape) for gate in jnp.split(z, 2, axis=-1)]

    def _draw_a_param(self, key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
        """Draws the inverse softplus of `-log(radius)`."""
        return jnp.log(jnp.expm1(_draw_decays(self, key, shape, dtype)))


def bounded_sqrt(x: Array) -> Array:
    """The square root of x; below `eps ** 2`, `x / eps`, whose derivative is finite."""
    return x / jnp.sqrt(jnp.maximum(x, jnp.finfo(x.dtype).eps ** 2))


def _check_ring(cell: LRUCell | RGLRUCell) -> None:
    fits = cell.min_radius <= cell.max_radius
    must = f"be at most `max_radius` ({cell.max_radius})"
    expect(fits, "min_radius", must, cell.min_radius)


def _draw_decays(
    cell: LRUCell | RGLRUCell, key: Key, shape: tuple[int, ...], dtype: DType
) -> Array:
    """Draws `-log(radius)` for points that are uniform in the area of the ring.

    The results are in at least float32 and clipped to [1e-7, 80], so radii in float32
    are less than 1 and greater than 0. Callers take the logarithm of the results, which
    would be infinite at 0.
    """
    squares = jax.random.uniform(
        key,
        shape,
        at_least_float32(dtype),
        minval=cell.min_radius**2,
        maxval=cell.max_radius**2,
    )
    return jnp.clip(-0.5 * jnp.log(squares), 1e-7, 80.0)
