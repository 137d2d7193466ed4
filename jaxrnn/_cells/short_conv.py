"""A causal convolution of each channel over the last few steps.

Each step reads the last `width` inputs of a row, the *taps*. Taps never reach across a
reset, and skip padding.
"""

import functools
from collections.abc import Sequence
from typing import final

import jax
import jax.numpy as jnp

from .._base.math import widened
from .._base.trees import TensorShape
from .._base.typing import Array, DType, Initializer, Params
from .._base.unit_axes import without_unit_axes
from . import fields
from .base import SpecsCell
from .params import ParamSpec, Specs, check_is_units, kernel_and_bias


@final
@fields.dataclass
class ShortConvCell(SpecsCell[Array]):
    """A causal convolution over the last inputs, with a kernel for each channel.

    Each step computes::

        y_t = bias + sum over j < width of kernel[width - 1 - j] * x_{t - j}

    The last row of the kernel multiplies the current inputs. Layers of linear attention
    and state-space models use this convolution before their recurrence. To run whole
    sequences without a cell, call `short_conv`.

    Shapes, for `H = num_units`: inputs and output `[batch, H]`; state
    `[batch, width - 1, H]`, the last inputs before the step, oldest first, zeros before
    the first step of a sequence; `kernel` `[width, H]`; `bias` `[H]`. The sum is
    computed in at least float32.

    Attributes:
        num_units: `H`, the number of channels.
        width: The number of inputs in the sum.
        use_bias: Whether there is a bias.
        kernel_initializer: Initializes the kernel. Default: uniform in
            `[-1 / sqrt(width), 1 / sqrt(width)]`, as in PyTorch's `Conv1d`.
        bias_initializer: Initializes the bias. Default: zeros.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, `dtype` is not floating-point, or the
            inputs of `init` or a step do not have depth `num_units`.

    Source: the package `causal-conv1d`. Its kernel is the transpose of this cell's
    kernel.
    """

    num_units: int = fields.size()
    width: int = fields.count(default=4, least=2)
    use_bias: bool = fields.flag(True)
    kernel_initializer: Initializer | None = fields.initializer()
    bias_initializer: Initializer | None = fields.initializer()
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()

    output_size = property(lambda self: self.num_units)

    @property
    def state_size(self) -> TensorShape:
        """The size of the last inputs, `[width - 1, H]`."""
        return TensorShape([self.width - 1, self.num_units])

    def param_specs(self, depth: int) -> Specs:
        """Specs of `kernel` and, with `use_bias`, `bias`."""
        check_is_units(self, depth)
        uniform = jax.nn.initializers.uniform(2 * self.width**-0.5)
        kernel, bias = kernel_and_bias(
            self, lambda *given: uniform(*given) - self.width**-0.5
        )
        specs = {"kernel": ParamSpec((self.width, depth), kernel)}
        return specs | ({"bias": ParamSpec((depth,), bias)} if self.use_bias else {})

    def step(self, params: Params, inputs: Array, state: Array) -> tuple[Array, Array]:
        """Returns y and the last inputs for the next step; see `SpecsCell.step`."""
        taps, state = taps_of_step(inputs, state)
        return convolved(params, taps), state


def convolved(params: Params, taps: Sequence[Array]) -> Array:
    """Returns y of one step, `[batch, channels]`, in the dtype of the taps.

    Args:
        params: `kernel`, and `bias` if there is one.
        taps: The last inputs, oldest first, each `[batch, channels]`.
    """
    rows = (1,) * (taps[0].ndim - 1)
    row = lambda x: jnp.reshape(widened(x), (*rows, -1))
    pairs = zip(params["kernel"], taps, strict=True)
    product = functools.partial(without_unit_axes, jnp.multiply, taps[0].ndim - 1)
    terms = [product(row(weights), widened(x)) for weights, x in pairs]
    if "bias" in params:
        terms.append(row(params["bias"]))
    return functools.reduce(jnp.add, terms).astype(taps[0].dtype)


def taps_of_step(inputs: Array, past: Array) -> tuple[list[Array], Array]:
    """Returns the taps of one step, and the past inputs for the next step.

    Args:
        inputs: `[batch, depth]`.
        past: The inputs before the step, `[batch, width - 1, depth]`, in the dtype of
            the inputs or a wider one.

    Returns:
        `(taps, past)`. `taps` is a list of `width` arrays `[batch, depth]`, oldest
        first. `past` holds the inputs before the next step.
    """
    newest = inputs[:, None].astype(past.dtype)
    last = jnp.concatenate([past, newest], axis=1)
    return list(jnp.unstack(last.astype(inputs.dtype), axis=1)), last[:, 1:]
