"""`TensorArray`: TensorFlow's array of arrays, as an immutable pytree."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify

from ..._base import arguments
from ..._base.arguments import check_given, check_shape, shape_text
from ..._base.errors import EntryError, Verbatim, describe, expect, is_array
from ..._base.inputs import as_array, check_concrete
from ..._base.math import (
    axis_size,
    cast_if_weak,
    cast_number,
    clamped_to_int32,
    concrete_or_none,
)
from ..._base.trees import RowlessArray, TensorShape, named_dims
from ..._base.typing import Array, ArrayLike, DType
from .store import Indices, Ragged, Stacked, Store, known_or_traced

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
        element_shape: The shape of an element, with None for each axis of unknown size.
            Default: the shape of the first write.
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
        element_shape: int | Sequence[int | None] | None = None,
        colocate_with_first_write_call: bool = True,
        name: str | None = None,
    ) -> None:
        expect(handle is None, "handle", "be None", handle)
        expect(flow is None, "flow", "be None", flow)
        self._config = _Config(
            arguments.as_dtype(dtype),
            arguments.as_axis_size("size", check_given("size", size, _SIZE), _SIZE),
            bool(dynamic_size),
            bool(infer_shape),
            _as_element_shape(element_shape),
        )
        shape = self._config.element_shape
        unknown = shape is None or None in shape
        self._store: Store | None = None if unknown else self._stacked(shape)

    @property
    def dtype(self) -> DType:
        """The dtype of the elements."""
        return self._config.dtype

    @property
    def element_shape(self) -> TensorShape | None:
        """The shape of every element, with None for axes of unknown size.

        The result is None if nothing is known about the shape.
        """
        store = self._single()
        if isinstance(store, Stacked):
            return TensorShape._partial(store.buffer.shape[1:])
        known = self._config.element_shape
        return None if known is None else TensorShape._partial(known)

    @property
    def dynamic_size(self) -> bool:
        """Whether a write beyond the size makes the array larger."""
        return self._config.dynamic_size

    def size(self, name: str | None = None) -> Indices:
        """The number of elements, an int32 scalar; under jit, it may be traced.

        Raises:
            ValueError: If the array is a batch of TensorArrays from `jax.vmap`.
        """
        store = self._single()
        return axis_size(self._config.size) if store is None else store.length()

    def write(
        self, index: ArrayLike, value: ArrayLike, name: str | None = None
    ) -> "TensorArray":
        """Returns a copy with `value` at `index`, an int or integer scalar array.

        Raises:
            ValueError: If `value` does not have the shape of the other elements; if
                `index` is out of range (also an `IndexError`) or was written before.
            TypeError: If the dtype of `value` is not the dtype of the elements, or if
                `index` is not an integer. Python numbers are cast if possible.
        """
        value = _as_value(value, self.dtype, self._shape_after())
        index = _as_indices("index", index)
        store = self._store_to_write("index", index, value.shape)
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
        index = _as_indices("index", index)
        _check_range("index", index, self.size())
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
            TypeError: If the dtype of `value` is not the dtype of the elements. Python
                numbers are cast if possible.
        """
        shape = self._shape_after(self._count())
        return self._of_elements(_as_value(value, self.dtype, shape))

    def gather(self, indices: ArrayLike, name: str | None = None) -> Array:
        """Returns the elements at `indices`, `[n]` in any order, stacked to `[n, ...]`.

        Raises:
            ValueError: If an index is out of range (also an `IndexError`); if the
                shapes of elements differ or are unknown.
            TypeError: If `indices` are not integers.
        """
        indices = _as_indices("indices", indices, None)
        _check_range("indices", indices, self.size())
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
            TypeError: If `indices` are not integers, or if the dtype of `value` is not
                the dtype of the elements. Python numbers are cast if possible.
        """
        slots = _as_indices("indices", indices, None)
        shape = self._shape_after(slots.shape[0])
        value = _as_value(value, self.dtype, shape)
        store = self._store_to_write("indices", slots, value.shape[1:])
        return self._with(store.scatter(slots, value))

    def concat(self, name: str | None = None) -> Array:
        """Concatenates the elements, which may differ in the size of their first axis.

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
        value = _as_value(value, self.dtype, (None, ...))
        counts = _as_indices("lengths", lengths, self._count())
        check_concrete(
            "lengths", counts, fix="The lengths set the shapes of the elements."
        )
        rows = value.shape[0]
        fits = counts.sum() == rows and counts.min(initial=0) >= 0
        must = f"be at least 0 and add up to {rows}, the number of rows of `value`"
        expect(fits, "lengths", must, counts.tolist())
        parts = jnp.split(value, np.cumsum(counts)[:-1]) if len(counts) else []
        for i, part in enumerate(parts):
            check_shape(f"element {i}", part, self._shape_after())
        if len(set(counts.tolist())) == 1 and self._config.infer_shape:
            return self._of_elements(jnp.stack(parts))
        return self._with(Ragged(tuple(parts), (True,) * len(parts)))

    def identity(self) -> "TensorArray":
        """Returns the array itself, which never changes."""
        return self

    def close(self, name: str | None = None) -> None:
        """Does nothing, because there is no resource to free."""

    def grad(self, source: str, flow: object = None, name: str | None = None) -> Any:
        """Raises an error for any `source` and `flow`; use `jax.grad` instead.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            "JAX needs no gradient arrays. Apply `jax.grad` to the whole function."
        )

    def __repr__(self) -> str:
        if isinstance(self._store, Stacked):
            # `size()` would fail if `vmap` added an axis, or if JAX replaced the leaves
            # by other objects, such as strings.
            return f"TensorArray({self.dtype}, elements={describe(self._store.buffer)})"
        size, shape = self.size(), self._config.element_shape
        return f"TensorArray({self.dtype}, size={size}, element_shape={shape})"

    def __array__(self, *_: object, **__: object) -> Any:
        """Raises TypeError; use `stack` to get the elements as one array."""
        raise TypeError(f"a TensorArray is not an array: {self!r}. Call `.stack()`.")

    def tree_flatten_with_keys(self) -> tuple[tuple, _Config]:
        """Returns the elements as a child with a name, and the static arguments."""
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

    def _of_elements(self, elements: Array) -> "TensorArray":
        """Returns an array whose elements are `elements`, `[size, ...]`."""
        size = axis_size(elements.shape[0])
        return self._with(Stacked.of(elements, size, size if self.dynamic_size else ()))

    def _stacked(self, shape: Any) -> Stacked:
        """Returns unwritten elements of this shape."""
        config = self._config
        capacity = max(config.size, config.capacity)
        buffer = jnp.zeros((capacity, *shape), config.dtype)
        return Stacked.of(
            buffer, 0, axis_size(config.size) if self.dynamic_size else ()
        )

    def _count(self) -> int | None:
        """The number of elements that `unstack` and `split` expect; None for any."""
        return None if self.dynamic_size else self._config.size

    def _shape_after(self, *axes: int | None) -> tuple:
        """The shape `[*axes, *element_shape]`, for `check_shape`."""
        shape = self.element_shape
        return (*axes, *((...,) if shape is None else shape))

    def _single(self) -> Store | None:
        """Returns the elements of one TensorArray; refuses a batch from `vmap`."""
        store = self._store
        if isinstance(store, Stacked):
            is_single = np.ndim(store.written) == 1
            must = "be one array, not a batch, outside of `jax.vmap`"
            expect(is_single, "TensorArray", must, store.buffer, "Use `jax.vmap`.")
        return store

    def _store_to_read(self) -> Store:
        store, got = self._single(), Verbatim("an array without elements")
        fix = "Read the array that `write` returned, or pass `element_shape`."
        expect(store is not None, "TensorArray", "be written before a read", got, fix)
        return store  # pyright: ignore[reportReturnType]

    def _store_to_write(self, name: str, indices: Indices, shape: tuple) -> Store:
        """Checks a write to `indices`; returns the store, extended if necessary."""
        store = self._single()
        if store is None:
            ragged = not self._config.infer_shape
            size = self._config.size
            store = Ragged().with_capacity(size) if ragged else self._stacked(shape)
        if self.dynamic_size and isinstance(indices, np.ndarray):
            _check_range(name, indices, arguments.INT32_MAX)
            store = store.with_capacity(int(indices.max(initial=-1)) + 1)
        elif self.dynamic_size:
            must = "be at least 1 for writes at traced indices"
            fix = "Pass the number of elements as `size`. A write at a traced index "
            fix += "cannot make the array grow."
            expect(store.capacity, "size", must, store.capacity, fix)
        fix = "To let the array grow, create it with `dynamic_size=True`."
        _check_range(name, indices, axis_size(store.capacity), fix)
        is_first = ~store.was_written(indices)
        _check_each(is_first, name, "be written only once", indices)
        return store


def _check_each(
    ok: Any,
    name: str,
    must: str,
    indices: Indices,
    fix: str = "",
    error: type[Exception] = ValueError,
) -> None:
    """Applies `expect` to `ok`, booleans for all indices; `checkify` if traced."""
    known = concrete_or_none(ok)
    if known is None:
        checkify.debug_check(jnp.all(ok), f"`{name}` must {must}")
    else:
        expect(known.all(), name, must, indices.tolist(), fix, error)


def _check_range(name: str, indices: Indices, length: Indices, fix: str = "") -> None:
    """Raises an EntryError if an index is outside `[0, length)`; see `_check_each`."""
    inside = (indices >= 0) & (indices < length)
    known = concrete_or_none(length)
    must = f"be in [0, {'size' if known is None else known})"
    _check_each(inside, name, must, indices, fix, EntryError)


def _as_value(value: ArrayLike, dtype: DType, shape: tuple) -> Array:
    """Returns the value as an array; casts a Python number to `dtype` if possible.

    Raises:
        TypeError: If the dtype of the value is not `dtype`.
        ValueError: If the shape of the value does not fit `shape`; see `check_shape`.
    """
    cast = cast_if_weak if is_array(value) else cast_number
    array = cast(as_array("value", value), dtype)
    expect(
        array.dtype == dtype,
        "value",
        f"be {dtype} like the elements",
        array,
        error=TypeError,
    )
    check_shape("value", array, shape)
    return array


def _as_indices(name: str, values: ArrayLike, *shape: int | None) -> Indices:
    """Converts integers of shape `shape` to int32, in NumPy if they are known.

    Integers beyond int32 are clamped, so they stay out of range of the array.

    Raises:
        TypeError: If `values` are not integers.
        ValueError: If `values` do not have this shape.
    """
    what = f"integers {shape_text(shape)}" if shape else "an integer"
    return known_or_traced(
        clamped_to_int32(arguments.as_integers(name, values, what, shape))
    )


def _as_element_shape(shape: object) -> tuple[int | None, ...] | None:
    """The shape as a tuple, with None for unknown sizes; None if `shape` is None."""
    if shape is None:
        return None
    named = named_dims("element_shape", shape)
    return tuple(
        d if d is None else arguments.as_axis_size(n, d) for n, d in named.items()
    )
