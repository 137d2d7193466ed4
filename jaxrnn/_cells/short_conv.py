"""A causal convolution of each channel over the last few steps."""

import functools
from collections.abc import Sequence
from typing import final

import jax
import jax.numpy as jnp

from .._base.math import cast_like, widened
from .._base.scaled import without_ones
from .._base.trees import TensorShape
from .._base.typing import Array, DType, Initializer, Params, PyTree
from .._run.run import Choice, Run
from .._run.taps import taps_of, taps_of_step
from . import fields
from .base import SpecsCell, Transition, choose_many_steps
from .params import ParamSpec, Specs, check_is_units, kernel_and_bias


@final
@fields.dataclass
class ShortConvCell(SpecsCell[Array]):
    """A causal convolution over the last inputs, with a kernel for each channel.

    Each step computes::

        y_t = bias + sum over j < width of kernel[width - 1 - j] * x_{t - j}

    The last row of the kernel multiplies the current inputs. Layers of linear attention
    and state-space models use this convolution before their recurrence.
    `short_conv` is the same as a function.

    Shapes, for `H = num_units`: inputs and output `[batch, H]`; state
    `[batch, width - 1, H]`, the last inputs before the step, oldest first, zeros before
    the first step of a sequence; `kernel` `[width, H]`; `bias` `[H]`. The sum is
    computed in at least float32.

    Attributes:
        num_units: `H`, the number of channels.
        width: The number of inputs in the sum.
        use_bias: Whether there is a bias.
        kernel_initializer: For the kernel; None for uniform in
            `[-1 / sqrt(width), 1 / sqrt(width)]`, as in PyTorch's `Conv1d`.
        bias_initializer: For the bias; None for zeros.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, `dtype` is not floating-point, or the
            inputs of `init` or a step do not have depth `num_units`.

    Source: `causal_conv1d` of the package of this name, whose kernel is transposed.
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
        """The convolution and the last inputs; see `SpecsCell.step`."""
        taps, state = taps_of_step(inputs, state)
        return convolved(params, taps), state

    def choose_loop(self, params: Params, run: Run) -> Choice:
        """Chooses a sum of shifted inputs; see `RNNCell.choose_loop`."""
        return choose_many_steps("convolution", self, _convolve_all, run)

    def transition(self) -> Transition:
        """The map from the state before several steps to the state after them.

        The last channel is 1 for inputs of these steps, and 0 for earlier inputs, which
        the map takes from the state.
        """

        def window(state: Array, is_known: float) -> Array:
            flag = jnp.full_like(state[..., :1], is_known)
            return jnp.concatenate([state, flag], axis=-1)

        constant = lambda state: window(state, 1.0)
        identity = lambda state: window(jnp.zeros_like(state), 0.0)

        def map_of_steps(params: Params, run: Run) -> Array:
            inputs = window(run.inputs.astype(run.state.dtype), 1.0)
            return taps_of(run.steps, inputs, run.state)[1]

        def map_state(transition: Array, state: Array) -> Array:
            own, is_known = jnp.split(transition, [self.num_units], axis=-1)
            count = jnp.sum(is_known > 0, axis=1, keepdims=True)
            places = jnp.arange(self.width - 1)[None, :, None] + count
            places = jnp.minimum(places, self.width - 2)
            before = jnp.take_along_axis(state, places, axis=1)
            return jnp.where(is_known > 0, own, before)

        return Transition(map_of_steps, identity, constant, map_state, cast_like)


def convolved(params: Params, taps: Sequence[Array]) -> Array:
    """The sum of one step, `[batch, channels]`, in the dtype of the taps.

    Args:
        params: `kernel`, and `bias` if there is one.
        taps: The last inputs, oldest first, each `[batch, channels]`.
    """
    rows = (1,) * (taps[0].ndim - 1)
    row = lambda x: jnp.reshape(widened(x), (*rows, -1))
    pairs = zip(params["kernel"], taps, strict=True)
    product = functools.partial(without_ones, jnp.multiply, taps[0].ndim - 1)
    terms = [product(row(weights), widened(x)) for weights, x in pairs]
    if "bias" in params:
        terms.append(row(params["bias"]))
    return functools.reduce(jnp.add, terms).astype(taps[0].dtype)


def _convolve_all(params: Params, run: Run) -> tuple[PyTree, Array]:
    """`(outputs, state)` of all steps; see `Choice.loop`."""
    steps, past = run.steps, run.state
    taps, last = taps_of(steps, run.inputs.astype(past.dtype), past)
    narrow = [tap.astype(run.inputs.dtype) for tap in taps]
    outputs = steps.zero_finished(convolved(params, narrow))
    if steps.returns_states:
        return (outputs, jnp.stack(taps[1:], 2)), last
    return outputs, last
