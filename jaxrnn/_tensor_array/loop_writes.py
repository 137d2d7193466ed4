"""TensorArrays that a loop writes but does not read: filled after the loop.

In the carry of a loop, such an array makes the gradient quadratic in the number of
steps: the derivative saves the array at every step, and XLA's CPU compiler copies its
cotangent at every step of the backward pass. Instead, each step returns what it writes,
and one scatter after the loop fills the array.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.trees import is_tensor_array
from .._base.typing import Array, PyTree
from .carried import is_opaque
from .store import Rows

Step = Callable[[Array, PyTree], tuple[PyTree, PyTree]]
"""`step(t, carry) -> (carry, y)`."""
Writes = dict[int, list[tuple[Array, Array]]]
"""For each array, by its number: pairs of indices `[n]` and values `[n, ...]`."""


@dataclasses.dataclass(frozen=True)
class LoopWrites:
    """The TensorArrays of a carry that the steps of a loop write but do not read.

    Attributes:
        carry: The carry before the loop.
        rows: The contents of these arrays before the loop. The keys are the numbers of
            the arrays among the leaves of the carry.
    """

    carry: PyTree
    rows: dict[int, Rows]

    @classmethod
    def of(cls, step: Step, carry: PyTree) -> "LoopWrites":
        """Finds the arrays, by tracing a step.

        Args:
            step: The body of the loop.
            carry: The carry before the first step. Its TensorArrays have known shapes.
        """
        rows = {
            number: leaf._store
            for number, leaf in enumerate(jax.tree.leaves(carry, is_leaf=is_opaque))
            if is_tensor_array(leaf) and isinstance(leaf._store, Rows)
        }
        rows = {number: store for number, store in rows.items() if store.capacity}
        while rows:
            found = cls(carry, rows)
            try:
                jax.eval_shape(found.emitting(step), jnp.int32(0), found.without(carry))
                return found
            except _ReadError as error:
                rows = {i: store for i, store in rows.items() if i != error.number}
        return cls(carry, {})

    def without(self, carry: PyTree) -> PyTree:
        """Replaces the arrays in a carry by None."""
        return self._map(lambda number, _: None, carry)

    def emitting(self, step: Step) -> Step:
        """Returns the step for carries without the arrays; its y is `(y, writes)`."""

        def emit(t: Array, carry: PyTree) -> tuple[PyTree, tuple[PyTree, Writes]]:
            stores = {i: _WriteOnly.of(rows, i) for i, rows in self.rows.items()}
            after, y = step(t, self._with_stores(carry, stores))
            return self.without(after), (y, dict(self._writes(after)))

        return emit

    def filled(self, carry: PyTree, taken: Array, writes: Writes) -> PyTree:
        """Returns the carry after the loop, with the arrays.

        Args:
            carry: The carry after the loop, without the arrays.
            taken: The number of steps taken.
            writes: The stacked writes of all steps.
        """
        stores = {i: _fill(x, taken, writes[i]) for i, x in self.rows.items()}
        return self._with_stores(carry, stores)

    def _with_stores(self, carry: PyTree, stores: Mapping[int, Rows]) -> PyTree:
        arrays = jax.tree.leaves(self.carry, is_leaf=is_opaque)
        return self._map(lambda number, _: arrays[number]._with(stores[number]), carry)

    def _writes(self, carry: PyTree) -> Iterator[tuple[int, list]]:
        leaves = jax.tree.leaves(carry, is_leaf=is_opaque)
        for number in self.rows:
            store = leaves[number]._store
            if not isinstance(store, _WriteOnly) or store.number != number:
                raise _ReadError(number)  # The step returned another array.
            yield number, list(store.writes)

    def _map(self, fn: Callable[[int, Any], Any], carry: PyTree) -> PyTree:
        """Maps `fn(number, leaf)` over the places of the arrays in a carry."""
        leaves, structure = jax.tree.flatten(carry, is_leaf=is_opaque)
        leaves = [fn(i, x) if i in self.rows else x for i, x in enumerate(leaves)]
        return structure.unflatten(leaves)


def _fill(rows: Rows, taken: Array, writes: list[tuple[Array, Array]]) -> Rows:
    """Applies the writes of all steps in the order of the loop."""
    if not writes:
        return rows
    indices = jnp.concatenate([indices for indices, _ in writes], axis=1)
    values = jnp.concatenate([values for _, values in writes], axis=1)
    is_taken = jnp.arange(indices.shape[0], dtype=jnp.int32) < taken
    indices = jnp.where(is_taken[:, None], indices, -1)  # Index -1 is dropped.
    return rows.scatter(indices.reshape(-1), values.reshape(-1, *values.shape[2:]))


class _ReadError(Exception):
    """A step reads the array with this number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclasses.dataclass(frozen=True, eq=False)
class _WriteOnly(Rows):
    """The rows of an array inside a step, which collect writes and cannot be read.

    Attributes:
        number: The number of the array among the leaves of the carry.
        writes: The indices `[n]` and values `[n, ...]` of each write.
    """

    number: int
    writes: tuple[tuple[Array, Array], ...] = ()

    @classmethod
    def of(cls, rows: Rows, number: int) -> "_WriteOnly":
        buffer = jax.ShapeDtypeStruct(rows.buffer.shape, rows.buffer.dtype)
        return cls(buffer, np.zeros(rows.capacity, bool), rows.size, number)

    def write(self, index: Any, value: Array) -> "_WriteOnly":
        return self.scatter(jnp.expand_dims(index, 0), jnp.expand_dims(value, 0))

    def scatter(self, indices: Any, values: Array) -> "_WriteOnly":
        writes = (*self.writes, (jnp.asarray(indices), values))
        return dataclasses.replace(self, writes=writes)

    def length(self) -> Any:
        if isinstance(self.size, tuple):
            return super().length()
        raise _ReadError(self.number)

    def read(self, index: Any) -> Array:
        raise _ReadError(self.number)

    def gather(self, indices: Any) -> Array:
        raise _ReadError(self.number)

    def stack(self) -> Array:
        raise _ReadError(self.number)

    def padded(self, capacity: int) -> "Rows":
        raise _ReadError(self.number)

    def flatten(self) -> tuple[tuple, None]:
        """Refuses to be flattened, because JAX then reads the leaves."""
        raise _ReadError(self.number)


def _unflatten(*_: Any) -> _WriteOnly:
    raise TypeError("an array that cannot be flattened cannot be restored")


jax.tree_util.register_pytree_node(_WriteOnly, _WriteOnly.flatten, _unflatten)
