"""Stores for a `TensorArray`'s elements: one buffer, or arrays of different shapes.

Compiled programs write to the buffer in place. Indices are int32. An index whose value
is known is a NumPy array; a traced index is a JAX array.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ..._base.arguments import check_shape
from ..._base.errors import expect
from ..._base.math import axis_size, concrete_or_none
from ..._base.typing import Array, PyTree

Indices: TypeAlias = Any
"""Integer arrays: NumPy arrays if they are known, and JAX arrays if they are traced."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Stacked:
    """Elements of equal shape, stacked in the slots of a buffer.

    Attributes:
        buffer: An array `[capacity, ...]`; slots that were never written are zeros.
        written: Bool `[capacity]`, true for slots that were written.
        size: The number of elements, an int32 scalar: elements are the first slots.
            `()` if all slots are elements.
    """

    buffer: Array
    written: Array | np.ndarray
    size: PyTree

    @classmethod
    def of(cls, buffer: Array, count: object, size: object) -> "Stacked":
        """Wraps a buffer whose first `count` slots were written."""
        capacity = buffer.shape[0]
        xp: Any = jnp if jax.export.is_symbolic_dim(capacity) else np
        numbers = xp.arange(capacity, dtype=np.int32)
        return cls(buffer, numbers < count, size)

    @property
    def capacity(self) -> int:
        """The number of slots of the buffer."""
        return self.buffer.shape[0]

    def length(self) -> Indices:
        """The number of elements, an int32 scalar."""
        return axis_size(self.capacity) if isinstance(self.size, tuple) else self.size

    def was_written(self, indices: Indices) -> Indices:
        """Whether each of `indices` was written; False for an index out of range."""
        if _module_of(indices, self.written) is np:
            return np.append(self.written, False)[indices.clip(-1, self.capacity)]
        written = jnp.asarray(self._not_empty().written)
        return written.at[self._slots(indices)].get(mode="fill", fill_value=False)

    def read(self, index: Indices) -> Array:
        """Reads element `index`; returns zeros if `index` is out of range."""
        slot = self._nearest(index)
        buffer = self._not_empty().buffer
        row = jax.lax.dynamic_index_in_dim(buffer, slot, keepdims=False)
        if isinstance(index, np.ndarray):
            return row
        return jnp.where(slot == index, row, jnp.zeros((), row.dtype))

    def gather(self, indices: Indices) -> Array:
        """Reads elements `indices`; returns zeros where an index is out of range."""
        buffer = self._not_empty().buffer
        return buffer.at[self._slots(indices)].get(mode="fill", fill_value=0)

    def write(self, index: Indices, value: Array) -> "Stacked":
        """Writes `value` at `index`; changes nothing if `index` is out of range."""
        if not self.capacity:
            return self
        slot = self._nearest(index)
        if not isinstance(index, np.ndarray):
            # If the index is out of range, write back the old element. A scatter, which
            # could drop the write, would be slower.
            row = jax.lax.dynamic_index_in_dim(self.buffer, slot, keepdims=False)
            value = jnp.where(slot == index, value, row)
        buffer = jax.lax.dynamic_update_index_in_dim(self.buffer, value, slot, 0)
        return self._written(buffer, index)

    def scatter(self, indices: Indices, values: Array) -> "Stacked":
        """Writes elements to `indices`; of two writes to an index, the last counts."""
        if not (self.capacity and indices.shape[0]):
            return self
        # For each slot of the buffer, find the last value that is written to it. A
        # scatter of the values could apply several writes to one index in any order.
        order = np.arange(indices.shape[0], dtype=np.int32)
        source = jnp.full(self.capacity, -1, np.int32)
        source = source.at[self._slots(indices)].max(order, mode="drop")
        taken = (source >= 0).reshape(-1, *(1,) * (self.buffer.ndim - 1))
        chosen = values[jnp.maximum(source, 0)]
        return self._written(jnp.where(taken, chosen, self.buffer), indices)

    def stack(self) -> Array:
        """Returns all elements, or all slots if the number of elements is traced."""
        size = concrete_or_none(self.length())
        return self.buffer if size is None else self.buffer[: int(size)]

    def concat(self) -> Array:
        """Joins the elements along their first axis."""
        elements = self.stack()
        check_shape("elements", elements, (None, None, ...))
        return jax.lax.collapse(elements, 0, 2)

    def with_capacity(self, capacity: int) -> "Stacked":
        """Provides `capacity` slots; an extension at least doubles the buffer."""
        enough = capacity <= self.capacity
        return self if enough else self.padded(max(capacity, 2 * self.capacity))

    def padded(self, capacity: int) -> "Stacked":
        """Extends the buffer to `capacity` slots, unless it already has more."""
        if capacity <= self.capacity:
            return self
        more = (0, capacity - self.capacity)
        buffer = jnp.pad(self.buffer, [more] + [(0, 0)] * (self.buffer.ndim - 1))
        written = _module_of(self.written).pad(self.written, more)
        return Stacked(buffer, written, self.size)

    def _not_empty(self) -> "Stacked":
        """Adds one slot if there are none, because JAX cannot read an empty buffer."""
        return self if self.capacity else self.padded(1)

    def _nearest(self, indices: Indices) -> Indices:
        """Clips `indices` to the range of the slots."""
        last = axis_size(self.capacity) - 1
        return _module_of(indices, last).clip(indices, 0, last)

    def written_end(self) -> int:
        """The number of slots up to the last written one; all slots if unknown."""
        written = concrete_or_none(self.written)
        if written is None:
            return self.capacity
        return int(np.flatnonzero(written).max(initial=-1)) + 1

    def _slots(self, indices: Indices) -> Array:
        """Moves negative indices past the end; JAX would count them from the end."""
        return jnp.where(indices < 0, axis_size(self.capacity), indices)

    def _written(self, buffer: Array, indices: Indices) -> "Stacked":
        """Replaces the buffer, marks `indices` as written, and adapts the size."""
        if _module_of(indices, self.written) is np:
            written = self.written.copy()
            written[indices] = True
        else:
            written = jnp.asarray(self.written)
            written = written.at[self._slots(indices)].set(True, mode="drop")
        if isinstance(self.size, tuple):
            return Stacked(buffer, written, ())
        size = known_or_traced(self.size)
        xp = _module_of(size, indices)
        inside = xp.where(indices < axis_size(self.capacity), indices, -1)
        size = xp.maximum(size, xp.max(inside, initial=-1) + 1).astype(np.int32)
        return Stacked(buffer, written, size)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Ragged:
    """Elements whose shapes may differ, as separate arrays; requires known indices.

    Attributes:
        elements: The array of each element; an empty array for an unwritten element.
        written: For each element, whether it was written.
    """

    elements: tuple[Array | np.ndarray, ...] = ()
    written: tuple[bool, ...] = dataclasses.field(default=(), metadata={"static": True})

    @property
    def capacity(self) -> int:
        """The number of elements."""
        return len(self.elements)

    def length(self) -> Indices:
        """The number of elements, an int32 scalar."""
        return np.int32(self.capacity)

    def was_written(self, indices: Indices) -> Indices:
        """Whether each of `indices` was written; False for an index out of range."""
        _check_known(indices)
        return np.asarray((*self.written, False))[indices.clip(-1, self.capacity)]

    def read(self, index: Indices) -> Array:
        """Reads element `index`.

        Raises:
            ValueError: If the element was never written.
            TypeError: If the index is traced.
        """
        _check_known(index)
        must = "be the index of an element that was written"
        fix = "To read zeros instead, create the array with `element_shape`."
        expect(self.written[index], "index", must, int(index), fix)
        return self.elements[index]

    def gather(self, indices: Indices) -> Array:
        """Stacks elements `indices` into one array.

        Raises:
            ValueError: If an element was never written, or if elements differ in shape.
        """
        return jnp.stack([self.read(index) for index in indices])

    def write(self, index: Indices, value: Array) -> "Ragged":
        """Writes `value` at `index`, which must be in range."""
        return self.scatter(index[None], [value])

    def scatter(self, indices: Indices, values: Iterable[Array]) -> "Ragged":
        """Writes elements to `indices`; for a repeated index, the last one counts."""
        elements, written = list(self.elements), list(self.written)
        for index, value in zip(indices, values, strict=True):
            elements[index], written[index] = value, True
        return Ragged(tuple(elements), tuple(written))

    def stack(self) -> Array:
        """Returns all elements as one array; see `gather`."""
        return self.gather(np.arange(self.capacity))

    def concat(self) -> Array:
        """Joins the elements along their first axis, whose sizes may differ."""
        elements = [self.read(index) for index in range(self.capacity)]
        for i, element in enumerate(elements):
            check_shape(f"elements[{i}]", element, (None, *elements[0].shape[1:]))
        return jnp.concatenate(elements)

    def with_capacity(self, capacity: int) -> "Ragged":
        """Extends to at least `capacity` elements."""
        more = max(0, capacity - self.capacity)
        unwritten = (np.zeros(0),) * more
        return Ragged(self.elements + unwritten, self.written + (False,) * more)


def known_or_traced(values: object) -> Any:
    """Converts the values to NumPy, unless they are traced."""
    known = concrete_or_none(values)
    return values if known is None else known


def _module_of(*values: object) -> Any:
    """Returns the module `jax.numpy` if a value is a JAX array, otherwise `numpy`."""
    return jnp if any(isinstance(value, jax.Array) for value in values) else np


def _check_known(indices: Indices) -> None:
    must = "be a known integer, not traced, if elements may differ in shape"
    fix = "If all elements have one shape, create the array with `element_shape`."
    expect(_module_of(indices) is np, "index", must, indices, fix, TypeError)


Store: TypeAlias = Stacked | Ragged
