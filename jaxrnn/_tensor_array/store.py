"""How a `TensorArray` holds its elements: as rows of one buffer, or one by one.

Writes to a buffer are done in place where a program is compiled. Indices come as int32,
from NumPy where they are known and from JAX where they are traced.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.errors import describe
from .._base.typing import Array


def as_known(values: Any) -> np.ndarray | None:
    """The values as NumPy, or None where they are known at run time alone.

    Inside of a trace a JAX array counts as unknown even if it is a constant: a branch
    of `lax.cond` is traced whether it is taken or not.
    """
    if not isinstance(values, jax.Array):
        return np.asarray(values)
    try:
        return np.asarray(values | False if values.dtype == bool else values + 0)
    except jax.errors.JAXTypeError:
        return None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
    """Elements of one shape: rows of a buffer.

    Attributes:
        buffer: `[room, ...]`; rows that were never written are zeros.
        written: `[room]`, bool.
        size: How many rows are elements, an int32 scalar; `()` if all are, always.
    """

    buffer: Any
    written: Any
    size: Any

    @classmethod
    def empty(
        cls, room: int, shape: tuple[int, ...], dtype: Any, size: int | None
    ) -> "Rows":
        """Zeros."""
        held = () if size is None else np.int32(size)
        return cls(jnp.zeros((room, *shape), dtype), np.zeros(room, bool), held)

    @property
    def room(self) -> int:
        """How many rows the buffer has."""
        return self.buffer.shape[0]

    def length(self) -> Any:
        """How many elements there are, an int32 scalar."""
        return np.int32(self.room) if isinstance(self.size, tuple) else self.size

    def was_written(self, indices: Any) -> Any:
        """Whether each of `indices` was written; those out of range were not."""
        if not self.room:
            return np.zeros(np.shape(indices), bool)
        inside = (indices >= 0) & (indices < self.room)
        written = self.written
        if not (isinstance(written, np.ndarray) and isinstance(indices, np.ndarray)):
            written = jnp.asarray(written)
        return inside & written[indices.clip(0, self.room - 1)]

    def read(self, index: Any) -> Array:
        """Row `index`; zeros where that is out of range."""
        if not self.room:
            return jnp.zeros(self.buffer.shape[1:], self.buffer.dtype)
        slot = index.clip(0, self.room - 1)
        row = jax.lax.dynamic_index_in_dim(self.buffer, slot, keepdims=False)
        if as_known(index) is not None:
            return row
        return jnp.where(slot == index, row, jnp.zeros((), row.dtype))

    def gather(self, indices: Any) -> Array:
        """Rows `indices`; zeros where one is out of range."""
        if not self.room:
            shape = (indices.shape[0], *self.buffer.shape[1:])
            return jnp.zeros(shape, self.buffer.dtype)
        # JAX alone would count negative indices from the end.
        slots = jnp.where(indices < 0, self.room, indices)
        return self.buffer.at[slots].get(mode="fill", fill_value=0)

    def write(self, index: Any, value: Array) -> "Rows":
        """With `value` in row `index`; as it is where that is out of range."""
        if not self.room:
            return self
        slot, known = index.clip(0, self.room - 1), as_known(index)
        held = self.buffer
        if known is None:
            # One row is read, where a scatter would not be as cheap.
            row = jax.lax.dynamic_index_in_dim(held, slot, keepdims=False)
            value = jnp.where(slot == index, value, row)
        buffer = jax.lax.dynamic_update_index_in_dim(held, value, slot, 0)
        return self._marked(buffer, index)

    def scatter(self, indices: Any, values: Array) -> "Rows":
        """With the rows of `values` in rows `indices`; the last of equal ones holds."""
        if not (self.room and indices.shape[0]):
            return self
        # Which value each row takes: duplicates have one winner on every platform.
        order = np.arange(indices.shape[0], dtype=np.int32)
        slots = jnp.where(indices < 0, self.room, indices)
        source = jnp.full(self.room, -1, np.int32).at[slots].max(order, mode="drop")
        taken = (source >= 0).reshape(-1, *(1,) * (self.buffer.ndim - 1))
        chosen = values[jnp.maximum(source, 0)]
        return self._marked(jnp.where(taken, chosen, self.buffer), indices)

    def stack(self) -> Array:
        """All elements; all rows if their number is not known."""
        size = as_known(self.length())
        return self.buffer if size is None else self.buffer[: int(size)]

    def concat(self) -> Array:
        """The elements joined along their first axis."""
        rows = self.stack()
        _check_joinable(rows.shape[1:])
        return rows.reshape(rows.shape[0] * rows.shape[1], *rows.shape[2:])

    def with_room(self, room: int) -> "Rows":
        """With `room` rows at least. The room doubles, so that it rarely changes."""
        if room <= self.room:
            return self
        more = max(room, 2 * self.room) - self.room
        buffer = jnp.zeros((more, *self.buffer.shape[1:]), self.buffer.dtype)
        xp = np if isinstance(self.written, np.ndarray) else jnp
        return dataclasses.replace(
            self,
            buffer=jnp.concatenate([self.buffer, buffer]),
            written=xp.concatenate([self.written, np.zeros(more, bool)]),
        )

    def _marked(self, buffer: Array, indices: Any) -> "Rows":
        """With a new buffer, in which `indices` were written."""
        known = as_known(indices)
        if known is not None and isinstance(self.written, np.ndarray):
            written = self.written.copy()
            written[known] = True
        else:
            slots = jnp.where(indices < 0, self.room, indices)
            written = jnp.asarray(self.written).at[slots].set(True, mode="drop")
        return Rows(buffer, written, self._reached(indices))

    def _reached(self, indices: Any) -> Any:
        if isinstance(self.size, tuple):
            return ()
        known, size = as_known(indices), as_known(self.size)
        if known is not None and size is not None:
            return np.int32(max(size, known.max(initial=-1) + 1))
        inside = jnp.where(indices < self.room, indices, -1)
        return jnp.maximum(self.size, jnp.max(inside, initial=-1) + 1).astype(np.int32)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Ragged:
    """Elements that may differ in shape, one by one; indices must be known.

    Attributes:
        elements: An array for each element; one of no size stands for an element that
            was never written.
        filled: For each element whether it was written.
    """

    elements: tuple[Array | np.ndarray, ...]
    filled: tuple[bool, ...] = dataclasses.field(metadata={"static": True})

    @classmethod
    def empty(cls, length: int) -> "Ragged":
        """Nothing written yet."""
        return cls((np.zeros(0),) * length, (False,) * length)

    @property
    def room(self) -> int:
        """How many elements there are."""
        return len(self.elements)

    def length(self) -> Any:
        """How many elements there are, an int32 scalar."""
        return np.int32(self.room)

    def was_written(self, indices: Any) -> Any:
        """Whether each of `indices` was written; those out of range were not."""
        held = np.asarray((*self.filled, False))
        return held[_need_known(indices).clip(-1, self.room)]

    def read(self, index: Any) -> Any:
        """Element `index`.

        Raises:
            ValueError: If it was never written.
            TypeError: If the index is traced.
        """
        index = int(_need_known(index))
        if not self.filled[index]:
            raise ValueError(
                f"TensorArray: element {index} must be written before it is read, as "
                "elements may differ in shape. Or give `element_shape`: then it is "
                "zeros."
            )
        return self.elements[index]

    def gather(self, indices: Any) -> Array:
        """Elements `indices` as one array.

        Raises:
            ValueError: If one was never written, or shapes differ.
        """
        elements = [self.read(index) for index in _need_known(indices)]
        if len({element.shape for element in elements}) != 1:
            shapes = ", ".join(str(list(e.shape)) for e in elements) or "no elements"
            raise ValueError(
                f"TensorArray: elements must have one shape to be stacked, got {shapes}"
                ". `concat` joins elements of several lengths."
            )
        return jnp.stack(elements)

    def write(self, index: Any, value: Array) -> "Ragged":
        """With `value` as element `index`, which must be in range."""
        index = int(_need_known(index))
        elements, filled = list(self.elements), list(self.filled)
        elements[index], filled[index] = value, True
        return Ragged(tuple(elements), tuple(filled))

    def scatter(self, indices: Any, values: Array) -> "Ragged":
        """With the rows of `values` as elements `indices`; the last of equal holds."""
        store = self
        for index, value in zip(_need_known(indices), values, strict=True):
            store = store.write(index, value)
        return store

    def stack(self) -> Array:
        """All elements as one array; see `gather`."""
        return self.gather(np.arange(self.room))

    def concat(self) -> Array:
        """The elements joined along their first axis, in which they may differ."""
        elements = [self.read(index) for index in np.arange(self.room)]
        for element in elements:
            _check_joinable(element.shape)
        if not elements:
            raise ValueError("TensorArray: elements must exist to be joined, got none.")
        return jnp.concatenate(elements)

    def with_room(self, room: int) -> "Ragged":
        """With `room` elements at least."""
        more = Ragged.empty(max(0, room - self.room))
        return Ragged(self.elements + more.elements, self.filled + more.filled)


def _check_joinable(shape: tuple[int, ...]) -> None:
    if not shape:
        raise ValueError(
            "TensorArray: elements must have a first axis to be joined, got scalars. "
            "Use `stack`."
        )


def _need_known(indices: Any) -> np.ndarray:
    known = as_known(indices)
    if known is None:
        raise TypeError(
            "TensorArray: indices must be known where elements may differ in shape, "
            f"got {describe(indices)}, traced. Give `element_shape`, or leave "
            "`infer_shape` at True."
        )
    return known
