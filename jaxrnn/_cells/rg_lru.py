"""The real-gated linear recurrent unit."""

import dataclasses
import math
from typing import Any, final

import jax
import jax.numpy as jnp
from jax.nn.initializers import normal

from .._base.math import at_least_float32
from .._base.typing import Array, DType, Initializer, Key, Params
from .hyperparameters import head_size
from .initializers import ParamSpec, kernel_and_bias
from .linear_recurrence import DiagonalCell

SHARPNESS = 8.0  # The constant c of the paper.


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class RGLRUCell(DiagonalCell):
    """A real-gated linear recurrent unit (RG-LRU); only the inputs determine its gates.

        i     = sigmoid(W_x x + b_x)
        r     = sigmoid(W_a x + b_a)
        log a = -8 softplus(a_param) * r
        h'    = a * h + sqrt(1 - a^2) * (i * x)

    W_x and W_a are block-diagonal: each of the `num_heads` blocks of units computes its
    gates from its own inputs. Shapes, for `H = num_units` and `S = H / num_heads`:
    inputs, state and output `[batch, H]`; `a_param` `[H]`, the paper's Lambda with the
    opposite sign; `input_gate` and `a_gate`, each a dict of `w` `[num_heads, S, S]` and
    `b` `[num_heads, S]`. Names and shapes match the `recurrentgemma` package.

    The first step of a sequence uses the paper's equations and the given state. The
    `recurrentgemma` package instead computes `h' = i * x`, without the square root, at
    position 0 of a document. Later steps agree with the package if they start from
    equal states. To bound the derivative of the square root, a straight line through 0
    replaces it where `1 - a^2` is below the square of the dtype's epsilon.

    Attributes:
        num_units: `H`, at least 0.
        num_heads: The number of blocks, which must divide `H`.
        min_radius: The smallest initial radius, where `a = radius ** (8 r)`. Initially
            r is about 1/2, so a is about `radius ** 4`.
        max_radius: The largest initial radius, at most 1. For a memory of M steps, use
            `1 - 1 / (4 M)`.
        kernel_initializer: For `w`; None for a normal distribution of variance `1 / S`.
        bias_initializer: For `b`; None for zeros.
        name: The name of the step in profiles; by default the name of the class.
        dtype: The required dtype of parameters and inputs; None for any dtype.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If `num_units` is negative, `num_heads` does not divide it, a radius
            is out of range, `dtype` is not floating-point, or the inputs of `init` or a
            step do not have depth `num_units`.

    Source: arXiv:2402.19427, section 2.4; `recurrentgemma.torch.layers.RGLRU`.
    """

    num_units: int
    num_heads: int = 1
    min_radius: float = 0.9
    max_radius: float = 0.999
    kernel_initializer: Initializer | None = None
    bias_initializer: Initializer | None = None
    name: str | None = None
    dtype: DType | None = None

    def param_specs(self, depth: int) -> dict[str, Any]:
        """Specs of `a_param`, `input_gate` and `a_gate`."""
        size = head_size(self)
        kernel, bias = kernel_and_bias(self, normal(1 / math.sqrt(max(1, size))))
        gate = {
            "w": ParamSpec((self.num_heads, size, size), kernel),
            "b": ParamSpec((self.num_heads, size), bias),
        }
        a_param = ParamSpec((self.num_units,), self._draw_a_param)
        return {"a_param": a_param, "input_gate": gate, "a_gate": dict(gate)}

    def coefficients(self, params: Params, inputs: Array) -> tuple[Array, Array, None]:
        """The decay, and the gated input times `sqrt(1 - a^2)`."""
        dtype = at_least_float32(inputs.dtype)
        gate_x, gate_a = self._gates(params, inputs, dtype)
        rate = -SHARPNESS * jax.nn.softplus(params["a_param"].astype(dtype))
        log_a = rate[None, :] * gate_a
        # 1 - a * a would cancel to 0 where a is almost 1.
        scale = bounded_sqrt(-jnp.expm1(2 * log_a))
        return jnp.exp(log_a), scale * (gate_x * inputs.astype(dtype)), None

    def _gates(self, params: Params, x: Array, dtype: DType) -> list[Array]:
        """The gates of the input and of a, `[batch, H]`, from one product per block."""
        gates = [params["input_gate"], params["a_gate"]]
        w, b = (
            jnp.concatenate([gate[name] for gate in gates], axis=-1)
            for name in ("w", "b")
        )
        # Heads come first, because in other orders XLA's CPU backend cannot multiply
        # 16-bit arrays with a 32-bit result.
        blocks = x.reshape(x.shape[0], *w.shape[:2]).swapaxes(0, 1)
        z = jnp.matmul(blocks, w, preferred_element_type=dtype).swapaxes(0, 1)
        z = jax.nn.sigmoid(z + b.astype(dtype)[None])
        return [gate.reshape(x.shape) for gate in jnp.split(z, 2, axis=-1)]

    def _draw_a_param(self, key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
        """Draws the inverse softplus of `-log a`."""
        return jnp.log(jnp.expm1(self.draw_decays(key, shape, dtype)))


def bounded_sqrt(x: Array) -> Array:
    """The square root, or `x / eps` below `eps ** 2` for a finite derivative."""
    return x / jnp.sqrt(jnp.maximum(x, jnp.finfo(x.dtype).eps ** 2))
