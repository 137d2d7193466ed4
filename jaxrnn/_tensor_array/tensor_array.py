"""`TensorArray`: TensorFlow's array of arrays, as an immutable pytree."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import as_dtype
from .._base.errors import describe, is_array
from .._base.inputs import as_array
from .._base.math import cast_if_weak, cast_number
from .._base.tensor_shape import TensorShape
from .._base.typing import Array, ArrayLike, DType
from .checks import (
    as_element_shape,
    as_integers,
    as_size,
    check_first_write,
    check_range,
)
from .store import Ragged, Rows, as_known


@dataclasses.dataclass(frozen=True)
class _Kind:
    """What is static: the constructor's arguments in their final form."""

    dtype: DType
    size: int
    dynamic_size: bool
    infer_shape: bool
    element_shape: tuple[int | None, ...] | None
    room: int = 0  # At least so many rows, once the shape is known.


@jax.tree_util.register_pytree_with_keys_class
class TensorArray:
    """An array of arrays of one dtype: every write returns the new array.

    It is a pytree, and goes through `jit`, `grad`, `vmap` and the carry of
    `lax.while_loop`, `scan`, `cond` and `raw_rnn`. A write inside of a compiled loop is
    done in place. A loop of your own (or a `lax.cond`) must not change the structure of
    what it carries, which JAX calls a number of children, so give `element_shape` there
    or write once before; `raw_rnn` finds it by itself.

    What is wrong (an index out of range, a second write to one index, another shape or
    dtype, a read of an element of unknown shape) is an error wherever it is known:
    always outside of jit, and under jit as far as indices are Python integers. What is
    known at run time alone does this: a write out of range is dropped, a read out of
    range gives zeros, of two writes to one index the last one holds (and has the
    gradient). `jax.experimental.checkify.checkify` makes errors of these.

    An array that may grow does so outside of jit. Inside of a compiled function the
    room must be known: `size` (or what was written before) bounds it.

    Never written elements read as zeros. Gradients: `stack` and `unstack`, `gather` and
    `scatter`, `read` and `write`, `split` and `concat` are each other's transposes;
    there is no `grad` to call.

    Args:
        dtype: The dtype of all elements.
        size: How many elements, an int.
        dynamic_size: Whether writes beyond `size` make the array larger.
        clear_after_read: Taken for TensorFlow's sake: reading never clears.
        tensor_array_name: Taken for TensorFlow's sake.
        handle: Must be None: there are no resources here.
        flow: Must be None, likewise.
        infer_shape: Whether the first write fixes the shape of all elements. If not,
            elements may differ in shape; then indices must be Python integers.
        element_shape: The shape of an element, with None for axes that are not known;
            None for what the first write says.
        colocate_with_first_write_call: Taken for TensorFlow's sake.
        name: Taken for TensorFlow's sake.

    Raises:
        ValueError: If `size` is missing or negative; if there is a `handle` or `flow`.
        TypeError: If `size` is no integer, or `dtype` names none.

    Example:
        >>> import jax.numpy as jnp, jaxrnn
        >>> ta = jaxrnn.TensorArray(jnp.float32, size=3)
        >>> ones = jnp.ones(2, jnp.float32)
        >>> ta = ta.write(0, ones).write(2, 2 * ones)
        >>> ta.stack().tolist()
        [[1.0, 1.0], [0.0, 0.0], [2.0, 2.0]]

    Source: `tf.TensorArray`.
    """

    def __init__(
        self,
        dtype: DType,
        size: int | None = None,
        dynamic_size: bool | None = None,
        clear_after_read: bool | None = None,
        tensor_array_name: str | None = None,
        handle: None = None,
        flow: None = None,
        infer_shape: bool = True,
        element_shape: Any = None,
        colocate_with_first_write_call: bool = True,
        name: str | None = None,
    ) -> None:
        del clear_after_read, tensor_array_name, colocate_with_first_write_call, name
        for argument, value in (("handle", handle), ("flow", flow)):
            if value is not None:
                raise ValueError(
                    f"TensorArray: `{argument}` must be None, got {describe(value)}. "
                    "The array itself is what is passed on."
                )
        self._kind = _Kind(
            as_dtype("TensorArray", dtype),
            as_size(size),
            bool(dynamic_size),
            bool(infer_shape),
            as_element_shape(element_shape),
        )
        shape = self._kind.element_shape
        unknown = shape is None or None in shape
        self._store: Rows | Ragged | None = None if unknown else self._rows(shape)

    @property
    def dtype(self) -> DType:
        """The dtype of the elements."""
        return self._kind.dtype

    @property
    def element_shape(self) -> TensorShape | None:
        """The shape of every element; None while it is not known, or if they differ."""
        if not isinstance(self._store, Rows):
            return None
        return TensorShape(self._store.buffer.shape[1:])

    @property
    def dynamic_size(self) -> bool:
        """Whether writes beyond the size make the array larger."""
        return self._kind.dynamic_size

    def size(self, name: str | None = None) -> Any:
        """How many elements there are, an int32 scalar; traced only if it may grow."""
        del name
        return (
            np.int32(self._kind.size) if self._store is None else self._store.length()
        )

    def write(
        self, index: ArrayLike, value: ArrayLike, name: str | None = None
    ) -> "TensorArray":
        """The array with `value` at `index`, an int or an integer scalar.

        Raises:
            ValueError: If the shape of `value` is not that of the other elements, or
                `index` is out of range (also an `IndexError`) or was written before.
            TypeError: If `value` has another dtype or `index` is no integer.
        """
        del name
        where = "TensorArray.write"
        value = self._as_value(where, value)
        index = as_integers(where, "index", index, rank=0)
        store = self._store_to_write(where, index, value.shape)
        return self._with(store.write(index, value))

    def read(self, index: ArrayLike, name: str | None = None) -> Array:
        """The element at `index`, an int or an integer scalar; reading never clears.

        Under jit a read out of range gives zeros, so no `lax.cond` needs to stand
        around it; inside of one, JAX makes the gradient of all elements at each read.

        Raises:
            ValueError: If `index` is out of range (also an `IndexError`), or the shape
                of the element is not known as nothing was written.
            TypeError: If `index` is no integer.
        """
        del name
        where = "TensorArray.read"
        index = as_integers(where, "index", index, rank=0)
        check_range(where, index, self.size())
        return self._store_to_read(where).read(index)

    def stack(self, name: str | None = None) -> Array:
        """All elements as one array `[size, ...]`.

        Under jit an array that may grow has a traced size: then all of its room comes,
        zeros after the last element.

        Raises:
            ValueError: If the shape of the elements is not known, or they differ.
        """
        del name
        return self._store_to_read("TensorArray.stack").stack()

    def unstack(self, value: ArrayLike, name: str | None = None) -> "TensorArray":
        """An array of the rows of `value`, `[size, ...]`.

        Raises:
            ValueError: If `value` has no axes, or not as many rows as the array has
                elements (and may not grow).
            TypeError: If it has another dtype.
        """
        del name
        where = "TensorArray.unstack"
        value = self._as_value(where, value)
        if value.ndim == 0:
            raise ValueError(f"{where}: `value` must have rows, got {describe(value)}.")
        self._check_count(where, "rows of `value`", value.shape[0])
        self._check_element(where, value.shape[1:])
        return self._with_rows(value)

    def gather(self, indices: ArrayLike, name: str | None = None) -> Array:
        """The elements at `indices`, `[n]`, as one array `[n, ...]`; any order.

        Raises:
            ValueError: If an index is out of range (also an `IndexError`); if shapes
                differ or are not known.
            TypeError: If `indices` are no integers.
        """
        del name
        where = "TensorArray.gather"
        indices = as_integers(where, "indices", indices, rank=1)
        check_range(where, indices, self.size())
        return self._store_to_read(where).gather(indices)

    def scatter(
        self, indices: ArrayLike, value: ArrayLike, name: str | None = None
    ) -> "TensorArray":
        """The array with the rows of `value`, `[n, ...]`, at `indices`, `[n]`.

        Of rows with one index the last one holds, and has the gradient.

        Raises:
            ValueError: If an index is out of range (also an `IndexError`) or was
                written before; if there are not as many indices as rows.
            TypeError: If `indices` are no integers or `value` has another dtype.
        """
        del name
        where = "TensorArray.scatter"
        value = self._as_value(where, value)
        slots = as_integers(where, "indices", indices, rank=1)
        if value.ndim == 0 or value.shape[0] != slots.shape[0]:
            raise ValueError(
                f"{where}: `value` must have one row for each of {slots.shape[0]} "
                f"indices, got {describe(value)}."
            )
        store = self._store_to_write(where, slots, value.shape[1:])
        return self._with(store.scatter(slots, value))

    def concat(self, name: str | None = None) -> Array:
        """The elements joined along their first axis; their lengths may differ.

        Raises:
            ValueError: If elements have no axes; if their other axes differ.
        """
        del name
        return self._store_to_read("TensorArray.concat").concat()

    def split(
        self, value: ArrayLike, lengths: ArrayLike, name: str | None = None
    ) -> "TensorArray":
        """An array whose element i is the next `lengths[i]` rows of `value`.

        Lengths are static: they are shapes.

        Raises:
            ValueError: If `value` has no axes; if the lengths do not add up to its
                rows, or are not as many as the array has elements.
            TypeError: If `lengths` are traced or no integers.
        """
        del name
        where = "TensorArray.split"
        value = self._as_value(where, value)
        counts = as_known(as_integers(where, "lengths", lengths, rank=1))
        if counts is None:
            raise TypeError(
                f"{where}: `lengths` must be known, got traced ones: they are shapes."
            )
        if value.ndim == 0 or counts.sum() != value.shape[0] or (counts < 0).any():
            raise ValueError(
                f"{where}: `lengths` must add up to the rows of `value`, got "
                f"{counts.tolist()} for {describe(value)}."
            )
        self._check_count(where, "`lengths`", len(counts))
        parts = jnp.split(value, np.cumsum(counts)[:-1]) if len(counts) else []
        for part in parts:
            self._check_element(where, part.shape)
        if len(set(counts.tolist())) == 1 and self._kind.infer_shape:
            return self._with_rows(jnp.stack(parts))
        return self._with(Ragged(tuple(parts), (True,) * len(parts)))

    def identity(self) -> "TensorArray":
        """The array itself: it never changes."""
        return self

    def close(self, name: str | None = None) -> None:
        """Does nothing: there is no resource to free."""

    def grad(self, source: str, flow: Any = None, name: str | None = None) -> Any:
        """Not available: differentiate with `jax.grad`.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            "TensorArray.grad: there are no gradient arrays. Differentiate the "
            "function that writes and reads by `jax.grad`."
        )

    def __repr__(self) -> str:
        shape = self.element_shape
        shown = "" if shape is None else f", element_shape={list(shape)}"
        return f"TensorArray({self.dtype}, size={self.size()}{shown})"

    def __array__(self, *_: Any, **__: Any) -> Any:
        """Not an array itself: `stack` makes one."""
        raise TypeError(f"{self!r} must be stacked to be an array: `.stack()`.")

    def tree_flatten_with_keys(self) -> tuple[tuple, _Kind]:
        """What is held, under its name, and what is static."""
        if self._store is None:  # As a child None would be taken for a missing leaf.
            return (), self._kind
        return ((jax.tree_util.GetAttrKey("elements"), self._store),), self._kind

    @classmethod
    def tree_unflatten(cls, kind: _Kind, children: Any) -> "TensorArray":
        """The array of what `tree_flatten_with_keys` gave."""
        array = cls.__new__(cls)
        array._kind, (array._store,) = kind, tuple(children) or (None,)
        return array

    # Looking after what is held.

    def _with(self, store: Rows | Ragged) -> "TensorArray":
        return self.tree_unflatten(self._kind, (store,))

    def _with_rows(self, rows: Array) -> "TensorArray":
        length = rows.shape[0]
        size = np.int32(length) if self.dynamic_size else ()
        return self._with(Rows(rows, np.ones(length, bool), size))

    def _rows(self, shape: Any) -> Rows:
        kind = self._kind
        size = kind.size if kind.dynamic_size else None
        return Rows.empty(max(kind.size, kind.room), shape, kind.dtype, size)

    def _store_to_read(self, where: str) -> Rows | Ragged:
        if self._store is None:
            raise ValueError(
                f"{where}: the shape of the elements must be known, but nothing was "
                "written. Every write returns the new array, `ta = ta.write(...)`; or "
                "give `element_shape`, and what was never written reads as zeros."
            )
        return self._checked(self._store)

    def _store_to_write(
        self, where: str, indices: Any, shape: tuple[int, ...]
    ) -> Rows | Ragged:
        """What is held, with room for `indices`, if they may be written."""
        self._check_element(where, shape)
        store = self._store
        if store is None:
            ragged = not self._kind.infer_shape
            store = Ragged.empty(self._kind.size) if ragged else self._rows(shape)
        known = as_known(indices)
        if self.dynamic_size and known is not None:
            check_range(where, indices, np.iinfo(np.int32).max)
            store = store.with_room(int(known.max(initial=-1)) + 1)
        elif self.dynamic_size and not store.room:
            raise ValueError(
                f"{where}: `size` must say how much room there is, got 0 and a traced "
                "index. Under jit an array cannot grow: make it with the size that it "
                "may reach."
            )
        store = self._checked(store)
        check_range(where, indices, store.room)
        check_first_write(where, indices, store)
        return store

    def _checked(self, store: Rows | Ragged) -> Rows | Ragged:
        if isinstance(store, Rows) and np.ndim(store.written) != 1:
            raise ValueError(
                "TensorArray: the array must be one, got a batch of them, "
                f"{describe(store.buffer)} in all. Use it inside of jax.vmap."
            )
        return store

    def _as_value(self, where: str, value: Any) -> Array:
        cast = cast_if_weak if is_array(value) else cast_number
        array = cast(as_array(where, "value", value), self.dtype)
        if array.dtype != self.dtype:
            raise TypeError(
                f"{where}: `value` must have dtype {self.dtype}, got "
                f"{describe(array)}. Cast it."
            )
        return array

    def _check_element(self, where: str, shape: tuple[int, ...]) -> None:
        known = self.element_shape
        want = self._kind.element_shape if known is None else tuple(known)
        if want is None:
            return
        fits = len(want) == len(shape) and all(
            w is None or w == s for w, s in zip(want, shape, strict=True)
        )
        if not fits:
            raise ValueError(
                f"{where}: elements must have shape {list(want)}, got {list(shape)}."
            )

    def _check_count(self, where: str, what: str, count: int) -> None:
        size = as_known(self.size())
        if not self.dynamic_size and count != size:
            raise ValueError(
                f"{where}: {what} must be as many as there are elements, {size}, got "
                f"{count}. Or make the array with `dynamic_size=True`."
            )


def is_tensor_array(value: Any) -> bool:
    """For `is_leaf`: whether this is one array rather than a nest."""
    return isinstance(value, TensorArray)


# For loops, which must know what they carry before the first write.


def is_like(array: TensorArray, other: Any) -> bool:
    """Whether both were made by the same arguments; what they hold may differ."""
    return is_tensor_array(other) and array._kind == other._kind


def with_room(array: TensorArray, room: int) -> TensorArray:
    """The same elements with room for `room` at least, if the array may grow."""
    kind, store = array._kind, array._store
    if not kind.dynamic_size:
        return array
    kind = dataclasses.replace(kind, room=max(room, kind.room))
    children = () if store is None else (store.with_room(room),)
    return array.tree_unflatten(kind, children)


def shaped_like(array: TensorArray, other: TensorArray) -> TensorArray:
    """The same elements, of the shape of those of `other`, if none is known yet."""
    if array.element_shape is not None or other.element_shape is None:
        return array
    return array._with(array._rows(other.element_shape))


def of_rows(rows: Array, size: Any) -> TensorArray:
    """An array that may grow, whose first `size` rows are elements."""
    array = TensorArray(rows.dtype, 0, dynamic_size=True)
    written = np.arange(rows.shape[0], dtype=np.int32) < size
    return array._with(Rows(rows, written, size))


def opaque(tree: Any) -> Any:
    """The nest with 0 for every leaf: a TensorArray is one leaf, and so is None."""
    is_leaf = lambda x: x is None or is_tensor_array(x)
    return jax.tree.map(lambda _: 0, tree, is_leaf=is_leaf)
