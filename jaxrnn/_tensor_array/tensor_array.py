"""`TensorArray`: TensorFlow's array of arrays, as an immutable pytree."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import as_dtype, check_one_of
from .._base.errors import describe, is_array
from .._base.math import axis_size, concrete_or_none, module_for_size
from .._base.tensor_shape import TensorShape
from .._base.trees import RowlessArray
from .._base.typing import Array, ArrayLike, DType
from . import checks
from .store import Ragged, Rows


@dataclasses.dataclass(frozen=True)
class _Config:
    """The static part: the constructor's arguments, normalized."""

    dtype: DType
    size: int
    dynamic_size: bool
    infer_shape: bool
    element_shape: tuple[int | None, ...] | None
    capacity: int = 0  # The fewest rows of the buffer, once the shape is known.


@jax.tree_util.register_pytree_with_keys_class
class TensorArray(RowlessArray):
    """An array of arrays of one dtype: every write returns the new array.

    It is a pytree: it can be an argument of functions under `jit`, `grad` and `vmap`,
    an operand of `lax.cond`, and part of the carry of `lax.while_loop`, `lax.scan` and
    `raw_rnn`. A write inside of a compiled loop is done in place. The first write to an
    array of unknown element shape changes its structure, and a carry must keep its
    structure: for a custom loop or `lax.cond` give `element_shape`, or write once
    before; drivers infer the shape of arrays in a state.

    An index out of range, a second write to one index, another shape or dtype, and a
    read of an element of unknown shape are errors where they can be detected: always
    outside of jit, and under jit where indices are Python integers. With traced
    indices a write out of range is dropped, a read out of range returns zeros, and of
    two writes to one index the last one counts (and gets the gradient).
    `jax.experimental.checkify.checkify` reports these as errors, except in the steps of
    a compiled `raw_rnn`.

    An array with `dynamic_size` grows outside of jit. Inside of a compiled function its
    capacity is fixed: `size`, or more if more elements were written before. Drivers
    give an array in a state capacity for one more write in each step. In a loop that
    carries the state from one driver call to the next its capacity must not change:
    there give `size`, without `dynamic_size`.

    Elements that were never written read as zeros. Gradients: `stack` and `unstack`,
    `gather` and `scatter`, `read` and `write`, `split` and `concat` are each other's
    transposes; `grad` is not available.

    Args:
        dtype: The dtype of all elements.
        size: The number of elements, an int, or symbolic under `jax.export`.
        dynamic_size: Whether writes beyond `size` make the array larger.
        clear_after_read: Accepted for compatibility with TensorFlow; reading never
            clears an element.
        tensor_array_name: Accepted for compatibility with TensorFlow.
        handle: Must be None: there are no resources here.
        flow: Must be None, likewise.
        infer_shape: Whether the first write fixes the shape of all elements. If not,
            elements may differ in shape; then indices must be Python integers.
        element_shape: The shape of an element, with None for unknown axes; None if the
            first write gives it.
        colocate_with_first_write_call: Accepted for compatibility with TensorFlow.
        name: Accepted for compatibility with TensorFlow.

    Raises:
        ValueError: If `size` is missing or negative; if there is a `handle` or `flow`.
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
            check_one_of("TensorArray", argument, value, (None,), "None")
        self._config = _Config(
            as_dtype("TensorArray", dtype),
            checks.as_size(size),
            bool(dynamic_size),
            bool(infer_shape),
            checks.as_element_shape(element_shape),
        )
        shape = self._config.element_shape
        unknown = shape is None or None in shape
        self._store: Rows | Ragged | None = None if unknown else self._rows(shape)

    @property
    def dtype(self) -> DType:
        """The dtype of the elements."""
        return self._config.dtype

    @property
    def element_shape(self) -> TensorShape | None:
        """The shape of every element, in which None is an axis that is not yet known.

        None if nothing is known.
        """
        if isinstance(self._store, Rows):
            return TensorShape._partial(self._store.buffer.shape[1:])
        known = self._config.element_shape
        return None if known is None else TensorShape._partial(known)

    @property
    def dynamic_size(self) -> bool:
        """Whether writes beyond the size make the array larger."""
        return self._config.dynamic_size

    def size(self, name: str | None = None) -> Any:
        """The number of elements, an int32 scalar; traced only if that may grow."""
        store = self._store
        return axis_size(self._config.size) if store is None else store.length()

    def write(
        self, index: ArrayLike, value: ArrayLike, name: str | None = None
    ) -> "TensorArray":
        """The array with `value` at `index`, an int or an integer scalar array.

        Raises:
            ValueError: If the shape of `value` is not that of the other elements, or
                `index` is out of range (also an `IndexError`) or was written before.
            TypeError: If `value` has another dtype or `index` is not an integer.
        """
        caller = "TensorArray.write"
        value = checks.as_value(caller, value, self.dtype)
        index = checks.as_integers(caller, "index", index, rank=0)
        store = self._store_to_write(caller, index, value.shape)
        return self._with(store.write(index, value))

    def read(self, index: ArrayLike, name: str | None = None) -> Array:
        """The element at `index`, an int or an integer scalar array.

        Under jit a read out of range returns zeros, so no `lax.cond` is needed around
        it; inside of one, JAX computes the gradient of all elements at each read.

        Raises:
            ValueError: If `index` is out of range (also an `IndexError`), or the shape
                of the element is unknown because nothing was written.
            TypeError: If `index` is not an integer.
        """
        caller = "TensorArray.read"
        index = checks.as_integers(caller, "index", index, rank=0)
        checks.check_range(caller, index, self.size())
        return self._store_to_read(caller).read(index)

    def stack(self, name: str | None = None) -> Array:
        """All elements as one array `[size, ...]`.

        Under jit an array that may grow has a traced size: then the result is
        `[capacity, ...]`, zeros after the last element.

        Raises:
            ValueError: If the shape of the elements is unknown, or they differ.
        """
        return self._store_to_read("TensorArray.stack").stack()

    def unstack(self, value: ArrayLike, name: str | None = None) -> "TensorArray":
        """The array whose elements are the rows of `value`, `[size, ...]`.

        Raises:
            ValueError: If `value` has no axes, or its number of rows is not the number
                of elements and the array may not grow.
            TypeError: If it has another dtype.
        """
        caller = "TensorArray.unstack"
        value = checks.as_value(caller, value, self.dtype)
        if value.ndim == 0:
            raise ValueError(
                f"{caller}: `value` must have rows, got {describe(value)}."
            )
        self._check_count(caller, "rows of `value`", value.shape[0])
        checks.check_element(caller, value.shape[1:], self.element_shape)
        return self._with_rows(value)

    def gather(self, indices: ArrayLike, name: str | None = None) -> Array:
        """The elements at `indices`, `[n]` in any order, as one array `[n, ...]`.

        Raises:
            ValueError: If an index is out of range (also an `IndexError`); if shapes
                differ or are unknown.
            TypeError: If `indices` are not integers.
        """
        caller = "TensorArray.gather"
        indices = checks.as_integers(caller, "indices", indices, rank=1)
        checks.check_range(caller, indices, self.size())
        return self._store_to_read(caller).gather(indices)

    def scatter(
        self, indices: ArrayLike, value: ArrayLike, name: str | None = None
    ) -> "TensorArray":
        """The array with the rows of `value`, `[n, ...]`, at `indices`, `[n]`.

        If an index occurs twice, its last row counts, and gets the gradient.

        Raises:
            ValueError: If an index is out of range (also an `IndexError`) or was
                written before; if there are not as many rows as indices.
            TypeError: If `indices` are not integers or `value` has another dtype.
        """
        caller = "TensorArray.scatter"
        value = checks.as_value(caller, value, self.dtype)
        slots = checks.as_integers(caller, "indices", indices, rank=1)
        if value.ndim == 0 or value.shape[0] != slots.shape[0]:
            raise ValueError(
                f"{caller}: `value` must have one row for each of {slots.shape[0]} "
                f"indices, got {describe(value)}."
            )
        store = self._store_to_write(caller, slots, value.shape[1:])
        return self._with(store.scatter(slots, value))

    def concat(self, name: str | None = None) -> Array:
        """The elements joined along their first axis; their lengths may differ.

        Raises:
            ValueError: If elements have no axes, or differ in rank or in other axes
                than the first.
        """
        return self._store_to_read("TensorArray.concat").concat()

    def split(
        self, value: ArrayLike, lengths: ArrayLike, name: str | None = None
    ) -> "TensorArray":
        """An array whose element i is the next `lengths[i]` rows of `value`.

        Raises:
            ValueError: If `value` has no axes; if the lengths do not add up to its
                rows, or are not as many as the array has elements.
            TypeError: If `lengths`, which are sizes of arrays, are traced; or if they
                are not integers.
        """
        caller = "TensorArray.split"
        value = checks.as_value(caller, value, self.dtype)
        lengths = checks.as_integers(caller, "lengths", lengths, rank=1)
        counts = concrete_or_none(lengths)
        if counts is None:
            raise TypeError(f"{caller}: `lengths` must be known shapes, got traced.")
        if value.ndim == 0 or counts.sum() != value.shape[0] or (counts < 0).any():
            raise ValueError(
                f"{caller}: `lengths` must add up to the rows of `value`, got "
                f"{counts.tolist()} for {describe(value)}."
            )
        self._check_count(caller, "`lengths`", len(counts))
        parts = jnp.split(value, np.cumsum(counts)[:-1]) if len(counts) else []
        for part in parts:
            checks.check_element(caller, part.shape, self.element_shape)
        if len(set(counts.tolist())) == 1 and self._config.infer_shape:
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
        store = self._store
        if isinstance(store, Rows) and not (
            is_array(store.buffer) and np.ndim(store.written) == 1
        ):
            # A batch of arrays; or what JAX, or a message, puts in place of leaves.
            return f"TensorArray({self.dtype}, elements={describe(store.buffer)})"
        shape = self.element_shape
        shape_text = "" if shape is None else f", element_shape={list(shape)}"
        return f"TensorArray({self.dtype}, size={self.size()}{shape_text})"

    def __array__(self, *_: Any, **__: Any) -> Any:
        """Raises TypeError: `stack` returns an array."""
        raise TypeError(f"{self!r} must be stacked to be an array: `.stack()`.")

    def tree_flatten_with_keys(self) -> tuple[tuple, _Config]:
        """The elements under their name, and the static part."""
        if self._store is None:  # As a child, None would look like a missing leaf.
            return (), self._config
        return ((jax.tree_util.GetAttrKey("elements"), self._store),), self._config

    @classmethod
    def tree_unflatten(cls, config: _Config, children: Any) -> "TensorArray":
        """The inverse of `tree_flatten_with_keys`."""
        array = cls.__new__(cls)
        array._config, (array._store,) = config, tuple(children) or (None,)
        return array

    def _with(self, store: Rows | Ragged) -> "TensorArray":
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

    def _store_to_read(self, caller: str) -> Rows | Ragged:
        if self._store is None:
            raise ValueError(
                f"{caller}: the shape of the elements must be known, but nothing was "
                "written. Every write returns the new array, `ta = ta.write(...)`; or "
                "give `element_shape`, for zeros."
            )
        return self._checked(self._store)

    def _store_to_write(self, caller: str, indices: Any, shape: tuple) -> Rows | Ragged:
        """The elements, with capacity for `indices`, if these may be written."""
        checks.check_element(caller, shape, self.element_shape)
        store = self._store
        if store is None:
            ragged = not self._config.infer_shape
            store = Ragged.empty(self._config.size) if ragged else self._rows(shape)
        known = concrete_or_none(indices)
        if self.dynamic_size and known is not None:
            checks.check_range(caller, indices, np.iinfo(np.int32).max)
            store = store.with_capacity(int(known.max(initial=-1)) + 1)
        elif self.dynamic_size and not store.capacity:
            raise ValueError(
                f"{caller}: `size` must be the capacity, got 0 and a traced index. "
                "Under jit an array cannot grow: give the size that it may reach."
            )
        store = self._checked(store)
        checks.check_range(caller, indices, axis_size(store.capacity))
        checks.check_first_write(caller, indices, store.was_written(indices))
        return store

    def _checked(self, store: Rows | Ragged) -> Rows | Ragged:
        if isinstance(store, Rows) and np.ndim(store.written) != 1:
            raise ValueError(
                "TensorArray: the array must be one, got a batch of arrays, "
                f"{describe(store.buffer)}. Use it inside of jax.vmap."
            )
        return store

    def _check_count(self, caller: str, what: str, count: int) -> None:
        size = self._config.size
        if not self.dynamic_size and count != size:
            raise ValueError(
                f"{caller}: {what} must be as many as there are elements, {size}, got "
                f"{count}. Or make the array with `dynamic_size=True`."
            )
