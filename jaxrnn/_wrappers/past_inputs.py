"""A cell that is given its last inputs, concatenated."""

import dataclasses
from collections.abc import Sequence
from typing import final

import jax
import jax.numpy as jnp

from .._base.typing import Array, DType, Key, Params, PyTree, Shaped
from .past_inputs_base import PastInputsBase


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class PastInputsWrapper(PastInputsBase):
    """Gives a cell its last inputs: `cell([x_{t - width + 1}, ..., x_t])`.

    A product of the cell with them is a causal convolution over time, as in a QRNN.

    Shapes: inputs `[batch, depth]`; the cell is given `[batch, width * depth]`; state
    `PastInputsState(past_inputs, cell_state)` with past inputs `[batch, width - 1,
    depth]`, the oldest first, of the dtype of the inputs or a wider one. Parameters and
    output are those of the wrapped cell.

    Attributes:
        cell: The wrapped cell.
        depth: The size of the inputs, in a stack the output size of the layer below.
            The state holds some inputs, and its shape must be known before `init`.
        width: How many inputs the cell is given.

    Raises:
        TypeError: If `cell` is not an RNNCell, or a field is not an integer.
        ValueError: If `depth` is not positive, or `width` is less than 2.

    Source: arXiv:1611.01576.
    """

    def combine(self, own: Params, taps: Sequence[Array]) -> Array:
        """The concatenated inputs, `[batch, width * depth]`."""
        del own
        return jnp.concatenate(taps, axis=-1)

    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """The parameters of the wrapped cell; see `RNNCell.init`.

        Raises:
            ValueError: If `inputs` are not floating, or not `[batch, depth]`.
            TypeError: If `key` is not a random key.
        """
        inputs = self.checked_inputs(inputs)
        shape = (inputs.shape[0], self.width * self.depth)
        joined = jax.ShapeDtypeStruct(shape, inputs.dtype)
        return self.cell.init(key, joined, dtype)
