"""Stores for a `TensorArray`'s elements: one buffer, or arrays of different shapes.

Compiled programs write to the buffer in place. Indices are int32. Known indices are
NumPy arrays, and traced indices are JAX arrays.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from .._base.errors import describe
from .._base.math import axis_size, concrete_or_none, module_for_size
from .._base.typing import Array, DType

Indices: TypeAlias = Any
"""Integer arrays: NumPy arrays if they are known, and JAX arrays if they are traced."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
    """Elements of equal shape, stored as the rows of a buffer.

    Attributes:
        buffer: An array `[capacity, ...]`; rows that were never written are zeros.
        written: Whether each row was written, bool `[capacity]`.
        size: The number of elements, an int32 scalar, if only the first rows are
            elements; `()` if all rows are elements.
    """

    buffer: Array
    written: Array | np.ndarray
    size: Any

    @classmethod
    def empty(
        cls, capacity: int, shape: tuple, dtype: DType, size: int | None
    ) -> "Rows":
        """Returns unwritten rows of zeros; if `size` is None, all rows are elements."""
        buffer = jnp.zeros((capacity, *shape), dtype)
        written = module_for_size(capacity).zeros(capacity, bool)
        return cls(buffer, written, () if size is None else axis_size(size))

    @property
    def capacity(self) -> int:
        """The number of rows of the buffer."""
        return self.buffer.shape[0]

    def length(self) -> Indices:
        """The number of elements, an int32 scalar."""
        return axis_size(self.capacity) if isinstance(self.size, tuple) else self.size

    def was_written(self, indices: Indices) -> Indices:
        """Whether each of `indices` was written; False for an index out of range."""
        if not self.capacity:
            return np.zeros(np.shape(indices), bool)
        inside = (indices >= 0) & (indices < axis_size(self.capacity))
        written = self.written
        if not (isinstance(written, np.ndarray) and isinstance(indices, np.ndarray)):
            written = jnp.asarray(written)
        return inside & written[self._nearest(indices)]

    def read(self, index: Indices) -> Array:
        """Reads row `index`; returns zeros if `index` is out of range."""
        if not self.capacity:
            return jnp.zeros(self.buffer.shape[1:], self.buffer.dtype)
        slot = self._nearest(index)
        row = jax.lax.dynamic_index_in_dim(self.buffer, slot, keepdims=False)
        if concrete_or_none(index) is not None:
            return row
        return jnp.where(slot == index, row, jnp.zeros((), row.dtype))

    def gather(self, indices: Indices) -> Array:
        """Reads rows `indices`; returns zeros where an index is out of range."""
        if not self.capacity:
            shape = (indices.shape[0], *self.buffer.shape[1:])
            return jnp.zeros(shape, self.buffer.dtype)
        return self.buffer.at[self._slots(indices)].get(mode="fill", fill_value=0)

    def write(self, index: Indices, value: Array) -> "Rows":
        """Writes `value` at `index`; changes nothing if `index` is out of range."""
        if not self.capacity:
            return self
        slot = self._nearest(index)
        if concrete_or_none(index) is None:
            # If the index is out of range, write back the old row. A scatter, which
            # could drop the write, would be slower.
            row = jax.lax.dynamic_index_in_dim(self.buffer, slot, keepdims=False)
            value = jnp.where(slot == index, value, row)
        buffer = jax.lax.dynamic_update_index_in_dim(self.buffer, value, slot, 0)
        return self._written(buffer, index)

    def scatter(self, indices: Indices, values: Array) -> "Rows":
        """Writes rows to `indices`; for a repeated index, the last row counts."""
        if not (self.capacity and indices.shape[0]):
            return self
        # For each row of the buffer, find the last value that is written to the row. A
        # scatter of the values could apply several writes to one index in any order.
        order = np.arange(indices.shape[0], dtype=np.int32)
        source = jnp.full(self.capacity, -1, np.int32)
        source = source.at[self._slots(indices)].max(order, mode="drop")
        taken = (source >= 0).reshape(-1, *(1,) * (self.buffer.ndim - 1))
        chosen = values[jnp.maximum(source, 0)]
        return self._written(jnp.where(taken, chosen, self.buffer), indices)

    def stack(self) -> Array:
        """Returns all elements, or all rows if the number of elements is traced."""
        size = concrete_or_none(self.length())
        return self.buffer if size is None else self.buffer[: int(size)]

    def concat(self) -> Array:
        """Joins the elements along their first axis."""
        rows = self.stack()
        _check_joinable(rows.shape[1:])
        return rows.reshape(rows.shape[0] * rows.shape[1], *rows.shape[2:])

    def with_capacity(self, capacity: int) -> "Rows":
        """Returns at least `capacity` rows; an extension at least doubles the rows."""
        enough = capacity <= self.capacity
        return self if enough else self.padded(max(capacity, 2 * self.capacity))

    def padded(self, capacity: int) -> "Rows":
        """Extends the buffer to `capacity` rows, unless it already has more rows."""
        if capacity <= self.capacity:
            return self
        more = (0, capacity - self.capacity)
        xp = np if isinstance(self.written, np.ndarray) else jnp
        return dataclasses.replace(
            self,
            buffer=jnp.pad(self.buffer, [more] + [(0, 0)] * (self.buffer.ndim - 1)),
            written=xp.pad(self.written, more),
        )

    def _nearest(self, indices: Indices) -> Indices:
        """Clips `indices` to the range of the rows."""
        xp = module_for_size(self.capacity)
        indices = xp.asarray(indices) if isinstance(indices, np.ndarray) else indices
        return indices.clip(0, axis_size(self.capacity) - 1)

    def written_end(self) -> int:
        """The number of rows up to the last row that was, or may have been, written."""
        written = concrete_or_none(self.written)
        if written is None:
            return self.capacity
        return int(np.flatnonzero(written).max(initial=-1)) + 1

    def _slots(self, indices: Indices) -> Array:
        """Moves negative indices past the end; JAX would count them from the end."""
        return jnp.where(indices < 0, axis_size(self.capacity), indices)

    def _written(self, buffer: Array, indices: Indices) -> "Rows":
        """Replaces the buffer, and marks `indices` as written."""
        known = concrete_or_none(indices)
        if known is not None and isinstance(self.written, np.ndarray):
            written = self.written.copy()
            written[known] = True
        else:
            written = jnp.asarray(self.written)
            written = written.at[self._slots(indices)].set(True, mode="drop")
        return Rows(buffer, written, self._size_with(indices))

    def _size_with(self, indices: Indices) -> Any:
        """The number of elements after a write to `indices`."""
        if isinstance(self.size, tuple):
            return ()
        known = concrete_or_none(indices)
        size = concrete_or_none(self.size)
        if known is not None and size is not None:
            return np.int32(max(size, known.max(initial=-1) + 1))
        inside = jnp.where(indices < axis_size(self.capacity), indices, -1)
        return jnp.maximum(self.size, jnp.max(inside, initial=-1) + 1).astype(np.int32)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Ragged:
    """Elements whose shapes may differ, as separate arrays; requires known indices.

    Attributes:
        elements: The array of each element; an empty array for an unwritten element.
        written: For each element, whether it was written.
    """

    elements: tuple[Array | np.ndarray, ...]
    written: tuple[bool, ...] = dataclasses.field(metadata={"static": True})

    @classmethod
    def empty(cls, length: int) -> "Ragged":
        """Returns `length` unwritten elements."""
        return cls((np.zeros(0),) * length, (False,) * length)

    @property
    def capacity(self) -> int:
        """The number of elements."""
        return len(self.elements)

    def length(self) -> Indices:
        """The number of elements, an int32 scalar."""
        return np.int32(self.capacity)

    def was_written(self, indices: Indices) -> Indices:
        """Whether each of `indices` was written; False for an index out of range."""
        written = np.asarray((*self.written, False))
        return written[_need_known(indices).clip(-1, self.capacity)]

    def read(self, index: Indices) -> Any:
        """Reads element `index`.

        Raises:
            ValueError: If the element was never written.
            TypeError: If the index is traced.
        """
        index = int(_need_known(index))
        if not self.written[index]:
            raise ValueError(
                f"element {index} must be written before it is read. To read zeros "
                "instead, pass `element_shape`."
            )
        return self.elements[index]

    def gather(self, indices: Indices) -> Array:
        """Stacks elements `indices` into one array.

        Raises:
            ValueError: If an element was never written, or if shapes differ.
        """
        elements = [self.read(index) for index in _need_known(indices)]
        for element in elements:
            fix = "For elements of different shapes, use `concat`."
            check_element(element.shape, elements[0].shape, fix)
        return jnp.stack(elements)

    def write(self, index: Indices, value: Array) -> "Ragged":
        """Writes `value` at `index`, which must be in range."""
        index = int(_need_known(index))
        elements = list(self.elements)
        elements[index] = value
        written = list(self.written)
        written[index] = True
        return Ragged(tuple(elements), tuple(written))

    def scatter(self, indices: Indices, values: Array) -> "Ragged":
        """Writes rows to `indices`; for a repeated index, the last row counts."""
        store = self
        for index, value in zip(_need_known(indices), values, strict=True):
            store = store.write(index, value)
        return store

    def stack(self) -> Array:
        """Returns all elements as one array; see `gather`."""
        return self.gather(np.arange(self.capacity))

    def concat(self) -> Array:
        """Joins the elements along their first axis, whose sizes may differ."""
        elements = [self.read(index) for index in range(self.capacity)]
        for element in elements:
            _check_joinable(element.shape)
            check_element(element.shape, (None, *elements[0].shape[1:]))
        return jnp.concatenate(elements)

    def with_capacity(self, capacity: int) -> "Ragged":
        """Extends to at least `capacity` elements."""
        more = Ragged.empty(max(0, capacity - self.capacity))
        return Ragged(self.elements + more.elements, self.written + more.written)


def _need_known(indices: Indices) -> np.ndarray:
    known = concrete_or_none(indices)
    if known is None:
        raise TypeError(
            "indices must not be traced if elements may differ in shape, got traced "
            f"{describe(indices)}. If all elements have one shape, create the array "
            "with `element_shape`."
        )
    return known


def check_element(shape: tuple, want: Iterable | None, fix: str = "") -> None:
    """Raises ValueError unless `shape` matches `want`; None matches any size."""
    if want is None:
        return
    wanted = list(want)
    sizes = zip(wanted, shape, strict=False)
    if len(wanted) != len(shape) or any(w not in (None, size) for w, size in sizes):
        legend = " (None is any size)" if None in wanted else ""
        must = f"elements must have shape {wanted}{legend}"
        raise ValueError(f"{must}, got {list(shape)}. {fix}".rstrip())


def _check_joinable(shape: tuple[int, ...]) -> None:
    """Raises ValueError if the elements are scalars."""
    if not shape:
        raise ValueError(
            "elements must have at least one axis for `concat`, got scalars. Use "
            "`stack`."
        )


Store: TypeAlias = Rows | Ragged
