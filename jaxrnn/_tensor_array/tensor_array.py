"""`TensorArray`: TensorFlow's array of arrays, as an immutable pytree."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import as_axis_size, as_dtype, check_given, check_rank
from .._base.errors import describe, is_array
from .._base.expect import expect
from .._base.math import axis_size, concrete_or_none, module_for_size
from .._base.trees import RowlessArray, TensorShape
from .._base.typing import Array, ArrayLike, DType
from . import checks
from .store import Indices, Ragged, Rows, Store, check_element

_SIZE = "Pass a Python integer, or a symbolic size of `jax.export`."


@dataclasses.dataclass(frozen=True)
class _Config:
    """The static part of a `TensorArray`: the constructor's arguments, normalized."""

    dtype: DType
    size: int
    dynamic_size: bool
    infer_shape: bool
    element_shape: tuple[int | None, ...] | None
    capacity: int = 0  # The minimum capacity of the buffer.


@jax.tree_util.register_pytree_with_keys_class
class TensorArray(RowlessArray):
    """An array of arrays that share a dtype; every write returns a new `TensorArray`.

    A `TensorArray` is a pytree. It can be an argument of functions under `jit`, `grad`
    and `vmap`, an operand of `lax.cond`, and part of the carry of `lax.while_loop`,
    `lax.scan` and `raw_rnn`. Inside a compiled loop, writes happen in place. If the
    element shape is unknown, the first write changes the structure of the array, but a
    loop or `lax.cond` must keep the structure. For your own loops and for
    `lax.cond`, pass `element_shape`, or write one element beforehand. `dynamic_rnn`
    infers the element shape of a `TensorArray` in a state.

    A wrong shape or dtype always raises an error, and so does a read of an element
    whose shape is unknown. Outside jit, an index out of range and a second write to an
    index also raise errors. Under jit, these two mistakes may go undetected if the
    index or the array is traced. In that case, a write out of range is dropped, a read
    out of range returns zeros, and of two writes to one index, the last counts and gets
    the gradient. `jax.experimental.checkify.checkify` reports the undetected mistakes
    as errors, except in the steps of a compiled `raw_rnn`.

    An array with `dynamic_size` grows if the index of a write is known. A write at a
    traced index cannot extend the array; the capacity is then `size`, or more if more
    elements were written earlier. If a state holds such an array, `dynamic_rnn` and
    similar functions give the array enough capacity for one more write in each step. If
    your own loop carries the state from one call to the next, the capacity of the
    state's arrays must not change; create such arrays with `size`, without
    `dynamic_size`.

    Elements that were never written read as zeros. In gradients, the methods `stack`
    and `unstack` are transposes of each other, as are `gather` and `scatter`, `read`
    and `write`, and `split` and `concat`. The method `grad` is not available.

    Args:
        dtype: The dtype of all elements.
        size: The number of elements, an int or, under `jax.export`, a symbolic size.
        dynamic_size: Whether writes beyond `size` make the array larger.
        clear_after_read: Accepted for compatibility with TensorFlow; reading never
            clears an element.
        tensor_array_name: Accepted for compatibility with TensorFlow.
        handle: Must be None, because the array has no resource handle.
        flow: Must be None.
        infer_shape: Whether the first write fixes the shape of all elements. If this is
            False and `element_shape` does not give all sizes, elements may differ in
            shape, and indices must not be traced.
        element_shape: The shape of an element, with None for unknown axes; None to use
            the shape of the first write.
        colocate_with_first_write_call: Accepted for compatibility with TensorFlow.
        name: Accepted for compatibility with TensorFlow.

    Raises:
        ValueError: If `size` is missing or negative; if `handle` or `flow` is given.
        TypeError: If `size` is not an integer, or `dtype` is not a dtype.

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
        for argument, value in (("handle", handle), ("flow", flow)):
            expect(value in (None,), argument, "be None", value)
        self._config = _Config(
            as_dtype(dtype),
            as_axis_size("size", check_given("size", size, _SIZE), _SIZE),
            bool(dynamic_size),
            bool(infer_shape),
            checks.as_element_shape(element_shape),
        )
        shape = self._config.element_shape
        unknown = shape is None or None in shape
        self._store: Store | None = None if unknown else self._rows(shape)

    @property
    def dtype(self) -> DType:
        """The dtype of the elements."""
        return self._config.dtype

    @property
    def element_shape(self) -> TensorShape | None:
        """The shape of every element, with None for axes of unknown size.

        The result is None if nothing is known about the shape.
        """
        if isinstance(self._store, Rows):
            return TensorShape._partial(self._store.buffer.shape[1:])
        known = self._config.element_shape
        return None if known is None else TensorShape._partial(known)

    @property
    def dynamic_size(self) -> bool:
        """Whether a write beyond the size makes the array larger."""
        return self._config.dynamic_size

    def size(self, name: str | None = None) -> Indices:
        """The number of elements, an int32 scalar; under jit, it may be traced."""
        store = self._store
        return axis_size(self._config.size) if store is None else store.length()

    def write(
        self, index: ArrayLike, value: ArrayLike, name: str | None = None
    ) -> "TensorArray":
        """Returns a copy with `value` at `index`, an int or integer scalar array.

        Raises:
            ValueError: If `value` does not have the shape of the other elements; if
                `index` is out of range (also an `IndexError`) or was written before.
            TypeError: If `value` has another dtype, or if `index` is not an integer.
        """
        value = checks.as_value(value, self.dtype)
        index = checks.as_indices("index", index, "an integer")
        store = self._store_to_write(index, value.shape)
        return self._with(store.write(index, value))

    def read(self, index: ArrayLike, name: str | None = None) -> Array:
        """Returns the element at `index`, an int or integer scalar array.

        At a traced index, a read out of range returns zeros, so you need no `lax.cond`
        around the read. Inside a `lax.cond`, a read is slow to differentiate, because
        JAX computes the gradient of all elements.

        Raises:
            ValueError: If `index` is out of range (also an `IndexError`), or if the
                shape of the element is unknown because nothing was written.
            TypeError: If `index` is not an integer.
        """
        index = checks.as_indices("index", index, "an integer")
        checks.check_range(index, self.size())
        return self._store_to_read().read(index)

    def stack(self, name: str | None = None) -> Array:
        """Returns all elements as one array `[size, ...]`.

        Under jit, an array that may grow has a traced size. The result is then
        `[capacity, ...]`, with zeros after the last element.

        Raises:
            ValueError: If shapes of elements are unknown or differ.
        """
        return self._store_to_read().stack()

    def unstack(self, value: ArrayLike, name: str | None = None) -> "TensorArray":
        """Returns an array whose elements are the rows of `value`, `[size, ...]`.

        Raises:
            ValueError: If `value` is a scalar; if a row does not have the element
                shape; if the array may not grow, and `value` does not have one row for
                each element.
            TypeError: If `value` has another dtype.
        """
        value = checks.as_value(value, self.dtype)
        check_rank("value", value, 1, "[size, ...]")
        self._check_count("value", value)
        check_element(value.shape[1:], self.element_shape)
        return self._with_rows(value)

    def gather(self, indices: ArrayLike, name: str | None = None) -> Array:
        """Returns the elements at `indices`, `[n]` in any order, stacked to `[n, ...]`.

        Raises:
            ValueError: If an index is out of range (also an `IndexError`); if shapes
                differ or are unknown.
            TypeError: If `indices` are not integers.
        """
        indices = checks.as_indices("indices", indices, "integers [n]", None)
        checks.check_range(indices, self.size())
        return self._store_to_read().gather(indices)

    def scatter(
        self, indices: ArrayLike, value: ArrayLike, name: str | None = None
    ) -> "TensorArray":
        """Returns a copy with the rows of `value`, `[n, ...]`, at `indices`, `[n]`.

        If an index occurs twice, the last row for this index counts and gets the
        gradient.

        Raises:
            ValueError: If an index is out of range (also an `IndexError`) or was
                written before; if `value` does not have one row for each index, or a
                row does not have the element shape.
            TypeError: If `indices` are not integers, or if `value` has another dtype.
        """
        value = checks.as_value(value, self.dtype)
        slots = checks.as_indices("indices", indices, "integers [n]", None)
        checks.check_count("value", value, slots.shape[0], "index")
        store = self._store_to_write(slots, value.shape[1:])
        return self._with(store.scatter(slots, value))

    def concat(self, name: str | None = None) -> Array:
        """Joins the elements along their first axis, whose sizes may differ.

        Raises:
            ValueError: If elements are scalars, or if they differ in rank or in an axis
                other than the first.
        """
        return self._store_to_read().concat()

    def split(
        self, value: ArrayLike, lengths: ArrayLike, name: str | None = None
    ) -> "TensorArray":
        """Returns an array whose element i is the next `lengths[i]` rows of `value`.

        Raises:
            ValueError: If `value` is a scalar; if a length is negative; if the lengths
                do not add up to the number of rows of `value`; if there is not one
                length for each element.
            TypeError: If `lengths` are not integers, or if they are traced; they must
                be known because they determine array shapes.
        """
        value = checks.as_value(value, self.dtype)
        lengths = checks.as_indices("lengths", lengths, "integers [n]", None)
        counts = concrete_or_none(lengths)
        if counts is None:
            fix = "Pass Python integers, which determine the shapes of the elements."
            raise TypeError(f"`lengths` must not be traced. {fix}")
        check_rank("value", value, 1, "[rows, ...]")
        rows = value.shape[0]
        fits = counts.sum() == rows and counts.min(initial=0) >= 0
        must = f"be at least 0 and add up to {rows}, the number of rows of `value`"
        expect(fits, "lengths", must, counts.tolist())
        self._check_count("lengths", counts)
        parts = jnp.split(value, np.cumsum(counts)[:-1]) if len(counts) else []
        for part in parts:
            check_element(part.shape, self.element_shape)
        if len(set(counts.tolist())) == 1 and self._config.infer_shape:
            return self._with_rows(jnp.stack(parts))
        return self._with(Ragged(tuple(parts), (True,) * len(parts)))

    def identity(self) -> "TensorArray":
        """Returns the array itself, which never changes."""
        return self

    def close(self, name: str | None = None) -> None:
        """Does nothing, because there is no resource to free."""

    def grad(self, source: str, flow: Any = None, name: str | None = None) -> Any:
        """Not available; use `jax.grad` to differentiate.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            "JAX needs no gradient arrays. Apply `jax.grad` to the whole function."
        )

    def __repr__(self) -> str:
        store = self._store
        if isinstance(store, Rows) and not (
            is_array(store.buffer) and np.ndim(store.written) == 1
        ):
            # The leaves do not describe a single TensorArray, because `vmap` has added
            # an axis, or `jax.tree.map` has replaced the leaves, for example with text.
            return f"TensorArray({self.dtype}, elements={describe(store.buffer)})"
        shape = self.element_shape
        shape_text = "" if shape is None else f", element_shape={list(shape)}"
        return f"TensorArray({self.dtype}, size={self.size()}{shape_text})"

    def __array__(self, *_: Any, **__: Any) -> Any:
        """Raises TypeError; use `stack` to get the elements as one array."""
        text = f"an array of numbers must be given, got {self!r}. Call `.stack()`."
        raise TypeError(text)

    def tree_flatten_with_keys(self) -> tuple[tuple, _Config]:
        """Returns the elements as a named child, and the static part."""
        if self._store is None:  # None as a child would look like a missing leaf.
            return (), self._config
        return ((jax.tree_util.GetAttrKey("elements"), self._store),), self._config

    @classmethod
    def tree_unflatten(cls, config: _Config, children: Any) -> "TensorArray":
        """Restores the array; the inverse of `tree_flatten_with_keys`."""
        array = cls.__new__(cls)
        array._config = config
        (array._store,) = tuple(children) or (None,)
        return array

    def _with(self, store: Store) -> "TensorArray":
        return self.tree_unflatten(self._config, (store,))

    def _with_rows(self, rows: Array) -> "TensorArray":
        length = rows.shape[0]
        written = module_for_size(length).ones(length, bool)
        size = axis_size(length) if self.dynamic_size else ()
        return self._with(Rows(rows, written, size))

    def _rows(self, shape: Any) -> Rows:
        config = self._config
        capacity = max(config.size, config.capacity)
        size = config.size if config.dynamic_size else None
        return Rows.empty(capacity, shape, config.dtype, size)

    def _store_to_read(self) -> Store:
        if self._store is None:
            raise ValueError(
                "an element must be written before a read, got no writes. Read the "
                "array that `write` returned, or pass `element_shape` to read zeros."
            )
        return self._checked(self._store)

    def _store_to_write(self, indices: Indices, shape: tuple) -> Store:
        """Checks a write to `indices`; returns the store, extended if necessary."""
        check_element(shape, self.element_shape)
        store = self._store
        if store is None:
            ragged = not self._config.infer_shape
            store = Ragged.empty(self._config.size) if ragged else self._rows(shape)
        known = concrete_or_none(indices)
        if self.dynamic_size and known is not None:
            checks.check_range(indices, np.iinfo(np.int32).max)
            store = store.with_capacity(int(known.max(initial=-1)) + 1)
        elif self.dynamic_size:
            must = "be at least 1 for writes at traced indices"
            fix = "Pass the number of elements; a traced index cannot extend an array."
            expect(store.capacity, "size", must, store.capacity, fix)
        store = self._checked(store)
        fix = "To let the array grow, create it with `dynamic_size=True`."
        checks.check_range(indices, axis_size(store.capacity), fix)
        checks.check_first_write(indices, store.was_written(indices))
        return store

    def _checked(self, store: Store) -> Store:
        if isinstance(store, Rows) and np.ndim(store.written) != 1:
            raise ValueError(
                "a method must be called on one TensorArray, got a batch with elements "
                f"{describe(store.buffer)}. Use `jax.vmap`."
            )
        return store

    def _check_count(self, name: str, entries: Any) -> None:
        """Raises ValueError unless there is one entry for each element."""
        fix = "For any number of elements, create the array with `dynamic_size=True`."
        if not self.dynamic_size:
            checks.check_count(name, entries, self._config.size, fix=fix)
