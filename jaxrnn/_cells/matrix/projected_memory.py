"""Matrix memories that project their inputs with one kernel."""

import jax.numpy as jnp
import numpy as np

from ..._base.products import affine
from ..._base.typing import Array, DType, Key, Params, Size, State
from ..fields import set_field
from ..params import Specs, glorot_blocks, head_size, input_specs, zeros
from .cell import MatrixMemoryCell


class ProjectedMemoryCell(MatrixMemoryCell[State]):
    """A `MatrixMemoryCell` with the blocks `q, k, v, ... = split(x kernel + bias)`.

    A subclass declares the fields, and appends its other blocks to `_sizes`. A
    `key_size` of None is replaced by the size of v in each head, at least 1.
    """

    num_units: int
    num_heads: int
    key_size: int | None

    output_size = property(lambda self: self.num_units)

    def __post_init__(self) -> None:
        super().__post_init__()
        size = head_size(self)
        if self.key_size is None:
            set_field(self, "key_size", max(1, size))

    @property
    def state_size(self) -> Size:
        """The sizes of the state of the rule."""
        return self.rule.sizes(self.num_heads, self.key_size or 0, head_size(self))[1]

    @property
    def _sizes(self) -> list[int]:
        """The columns in each block of the kernel."""
        keys = self.num_heads * (self.key_size or 0)
        return [keys, keys, self.num_units]

    def param_specs(self, depth: int) -> Specs:
        """Specs of `kernel` and `bias`."""
        columns = sum(self._sizes)
        return input_specs(self, depth, columns, kernel=self._kernel, bias=self._bias)

    def _blocks(self, params: Params, inputs: Array, dtype: DType) -> list[Array]:
        """q, k and v, `[batch, heads, size]`, then the other blocks."""
        z = affine(params, [inputs], dtype)
        q, k, v, *others = jnp.split(z, np.cumsum(self._sizes)[:-1], axis=-1)
        heads = inputs.shape[0], self.num_heads
        q, k = (x.reshape(*heads, self.key_size) for x in (q, k))
        return [q, k, v.reshape(*heads, head_size(self)), *others]

    def _kernel(self, key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
        return glorot_blocks(key, shape[0], self._sizes, dtype)

    def _bias(self, key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
        return zeros(key, shape, dtype)
