"""The elements of a `TensorArray` that share one shape, as rows of one buffer.

Writes to the buffer are done in place where a program is compiled. Indices are int32,
NumPy arrays where they are known and JAX arrays where they are traced.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.known import as_known
from .._base.typing import Array
from .checks import check_joinable


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
    """Elements of one shape: rows of a buffer.

    Attributes:
        buffer: `[capacity, ...]`; rows that were never written are zeros.
        written: `[capacity]`, bool.
        size: How many rows are elements, an int32 scalar; `()` if all are, always.
    """

    buffer: Any
    written: Any
    size: Any

    @classmethod
    def empty(
        cls, capacity: int, shape: tuple[int, ...], dtype: Any, size: int | None
    ) -> "Rows":
        """Zeros, none of them written; a `size` of None makes all rows elements."""
        buffer = jnp.zeros((capacity, *shape), dtype)
        return cls(
            buffer, np.zeros(capacity, bool), () if size is None else np.int32(size)
        )

    @property
    def capacity(self) -> int:
        """How many rows the buffer has."""
        return self.buffer.shape[0]

    def length(self) -> Any:
        """How many elements there are, an int32 scalar."""
        return np.int32(self.capacity) if isinstance(self.size, tuple) else self.size

    def was_written(self, indices: Any) -> Any:
        """Whether each of `indices` was written; False where one is out of range."""
        if not self.capacity:
            return np.zeros(np.shape(indices), bool)
        inside = (indices >= 0) & (indices < self.capacity)
        written = self.written
        if not (isinstance(written, np.ndarray) and isinstance(indices, np.ndarray)):
            written = jnp.asarray(written)
        return inside & written[indices.clip(0, self.capacity - 1)]

    def read(self, index: Any) -> Array:
        """Row `index`; zeros where that is out of range."""
        if not self.capacity:
            return jnp.zeros(self.buffer.shape[1:], self.buffer.dtype)
        slot = index.clip(0, self.capacity - 1)
        row = jax.lax.dynamic_index_in_dim(self.buffer, slot, keepdims=False)
        if as_known(index) is not None:
            return row
        return jnp.where(slot == index, row, jnp.zeros((), row.dtype))

    def gather(self, indices: Any) -> Array:
        """Rows `indices`; zeros where one is out of range."""
        if not self.capacity:
            shape = (indices.shape[0], *self.buffer.shape[1:])
            return jnp.zeros(shape, self.buffer.dtype)
        return self.buffer.at[self._slots(indices)].get(mode="fill", fill_value=0)

    def write(self, index: Any, value: Array) -> "Rows":
        """With `value` in row `index`; unchanged where that is out of range."""
        if not self.capacity:
            return self
        slot = index.clip(0, self.capacity - 1)
        if as_known(index) is None:
            # One row is read, where a scatter would not be as cheap.
            row = jax.lax.dynamic_index_in_dim(self.buffer, slot, keepdims=False)
            value = jnp.where(slot == index, value, row)
        buffer = jax.lax.dynamic_update_index_in_dim(self.buffer, value, slot, 0)
        return self._written(buffer, index)

    def scatter(self, indices: Any, values: Array) -> "Rows":
        """With the rows of `values` in rows `indices`; of equal ones the last wins."""
        if not (self.capacity and indices.shape[0]):
            return self
        # Which value each row takes: duplicates have one winner on every platform.
        order = np.arange(indices.shape[0], dtype=np.int32)
        source = jnp.full(self.capacity, -1, np.int32)
        source = source.at[self._slots(indices)].max(order, mode="drop")
        taken = (source >= 0).reshape(-1, *(1,) * (self.buffer.ndim - 1))
        chosen = values[jnp.maximum(source, 0)]
        return self._written(jnp.where(taken, chosen, self.buffer), indices)

    def stack(self) -> Array:
        """All elements; all rows if their number is not known."""
        size = as_known(self.length())
        return self.buffer if size is None else self.buffer[: int(size)]

    def concat(self) -> Array:
        """The elements joined along their first axis."""
        rows = self.stack()
        check_joinable(rows.shape[1:])
        return rows.reshape(rows.shape[0] * rows.shape[1], *rows.shape[2:])

    def with_capacity(self, capacity: int) -> "Rows":
        """With `capacity` rows at least; it doubles, so that it changes rarely."""
        if capacity <= self.capacity:
            return self
        more = max(capacity, 2 * self.capacity) - self.capacity
        zeros = jnp.zeros((more, *self.buffer.shape[1:]), self.buffer.dtype)
        xp = np if isinstance(self.written, np.ndarray) else jnp
        return dataclasses.replace(
            self,
            buffer=jnp.concatenate([self.buffer, zeros]),
            written=xp.concatenate([self.written, np.zeros(more, bool)]),
        )

    def _slots(self, indices: Any) -> Array:
        """Negative indices beyond the end: JAX would count them from the end."""
        return jnp.where(indices < 0, self.capacity, indices)

    def _written(self, buffer: Array, indices: Any) -> "Rows":
        """With another buffer, in which `indices` were written."""
        known = as_known(indices)
        if known is not None and isinstance(self.written, np.ndarray):
            written = self.written.copy()
            written[known] = True
        else:
            written = jnp.asarray(self.written)
            written = written.at[self._slots(indices)].set(True, mode="drop")
        return Rows(buffer, written, self._size_with(indices))

    def _size_with(self, indices: Any) -> Any:
        """How many rows are elements once `indices` are."""
        if isinstance(self.size, tuple):
            return ()
        known, size = as_known(indices), as_known(self.size)
        if known is not None and size is not None:
            return np.int32(max(size, known.max(initial=-1) + 1))
        inside = jnp.where(indices < self.capacity, indices, -1)
        return jnp.maximum(self.size, jnp.max(inside, initial=-1) + 1).astype(np.int32)
