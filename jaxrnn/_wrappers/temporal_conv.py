"""A convolution over time before a cell."""

import dataclasses
from collections.abc import Sequence
from typing import Any, final

import jax

from .._base.math import widened
from .._base.typing import Array, DType, Key, Params, PyTree, Shaped
from .._cells.initializers import ParamSpec, zeros
from .own_params import OwnParams
from .past_inputs_base import PastInputsBase


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class TemporalConvWrapper(OwnParams, PastInputsBase):
    """Gives a cell a causal convolution of its inputs over time, each feature apart.

        y_t    = bias + sum over j < width of kernel[width - 1 - j] * x_{t - j}
        output = cell(y_t)

    So the last row of the kernel multiplies the inputs of the step itself. This is the
    convolution before the recurrence of Griffin.

    Shapes: inputs `[batch, depth]`; `kernel` `[width, depth]`; `bias` `[depth]`; state
    `PastInputsState(past_inputs, cell_state)` with past inputs `[batch, width - 1,
    depth]`, the oldest first, of the dtype of the inputs or a wider one. The wrapped
    cell's parameters are under its scope, such as `gru_cell`; the output is its output.
    The sum is computed in at least float32.

    The kernel is drawn from a normal distribution of variance `0.01 / width`, so the
    cell's initial inputs are about ten times smaller than the inputs; the bias is 0.

    Attributes:
        cell: The wrapped cell.
        depth: The size of the inputs, in a stack the output size of the layer below.
            The state holds some inputs, and its shape must be known before `init`.
        width: How many inputs the sum has.

    Raises:
        TypeError: If `cell` is not an RNNCell, or a field is not an integer.
        ValueError: If `depth` is not positive, or `width` is less than 2.

    Source: arXiv:2402.19427; `Conv1D` of the package recurrentgemma, whose `w` and `b`
    are `kernel` and `bias`, with the same initial variance.
    """

    width: int = 4

    def own_specs(self, depth: int) -> dict[str, Any]:
        """The kernel, with a variance of `0.01 / width`, and the bias."""
        normal = jax.nn.initializers.normal((0.01 / self.width) ** 0.5)
        kernel = ParamSpec((self.width, depth), normal)
        return {"kernel": kernel, "bias": ParamSpec((depth,), zeros)}

    def combine(self, own: Params, taps: Sequence[Array]) -> Array:
        """The convolution, `[batch, depth]`."""
        total = widened(own["bias"])[None, :]
        for weights, x in zip(own["kernel"], taps, strict=True):
            total += widened(weights)[None, :] * widened(x)
        return total.astype(taps[0].dtype)

    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """Fresh parameters for inputs `[batch, depth]`; see `RNNCell.init`.

        Raises:
            ValueError: If `inputs` are not floating, or not `[batch, depth]`.
            TypeError: If `key` is not a random key.
        """
        inputs = self.checked_inputs(inputs)
        return self._init(key, self.depth, inputs, dtype)
