"""TensorArrays that a loop writes but does not read: filled after the loop.

In the carry of a loop, such an array makes the gradient quadratic in the number of
steps, because XLA's CPU compiler copies the cotangent of the array at every step of the
backward pass. Instead, each step returns what it writes, and one scatter after the loop
fills the array.

Whether a step reads an array is found by tracing the step with arrays that raise an
error when they are read. An array that is read stays in the carry.
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
"""By position of the array: pairs of indices `[n]` and values `[n, ...]`."""


@dataclasses.dataclass(frozen=True)
class LoopWrites:
    """The TensorArrays of a carry that the steps of a loop write but do not read.

    An array is named by its *position* among the leaves of the carry.

    Attributes:
        carry: The carry before the loop.
        stores: The elements of these arrays before the loop, by position.
    """

    carry: PyTree
    stores: dict[int, Rows]

    @classmethod
    def find(cls, step: Step, carry: PyTree, max_steps: Any) -> "LoopWrites":
        """Finds the arrays, by tracing a step.

        Args:
            step: The body of the loop.
            carry: The carry before the first step. Its TensorArrays have known shapes.
            max_steps: The maximum number of steps. The loop carries arrays that are
                smaller, because they need less memory than the writes of all steps, and
                arrays of symbolic size.
        """
        leaves = jax.tree.leaves(carry, is_leaf=is_opaque)
        stores = {i: x._store for i, x in enumerate(leaves) if is_tensor_array(x)}
        found = cls(carry, {i: x for i, x in stores.items() if _holds(x, max_steps)})
        while found.stores:
            try:
                jax.eval_shape(found.emitting(step), jnp.int32(0), found.without(carry))
                break
            except _ReadError as error:
                if error.arrays is not found:  # An outer loop carries the array.
                    raise
                stores = {**found.stores}
                del stores[error.position]
                found = cls(carry, stores)
        return found

    def without(self, carry: PyTree) -> PyTree:
        """Replaces the arrays in a carry by None."""
        return self._map(lambda position: None, carry)

    def emitting(self, step: Step) -> Step:
        """Returns the step for carries without the arrays; its y is `(y, writes)`."""

        def emit(t: Array, carry: PyTree) -> tuple[PyTree, tuple[PyTree, Writes]]:
            stores = {i: _WriteOnly.like(x, self, i) for i, x in self.stores.items()}
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
        stores = {i: _fill(x, taken, writes[i]) for i, x in self.stores.items()}
        return self._with_stores(carry, stores)

    def _with_stores(self, carry: PyTree, stores: Mapping[int, Rows]) -> PyTree:
        arrays = jax.tree.leaves(self.carry, is_leaf=is_opaque)
        return self._map(lambda i: arrays[i]._with(stores[i]), carry)

    def _writes(self, carry: PyTree) -> Iterator[tuple[int, list]]:
        leaves = jax.tree.leaves(carry, is_leaf=is_opaque)
        for position in self.stores:
            store = leaves[position]._store
            is_same = isinstance(store, _WriteOnly) and store.is_at(self, position)
            if not is_same:  # The step put another array into this place.
                raise _ReadError(self, position)
            yield position, list(store.writes)

    def _map(self, fn: Callable[[int], Any], carry: PyTree) -> PyTree:
        """Replaces the leaf at each position of an array by `fn(position)`."""
        leaves, structure = jax.tree.flatten(carry, is_leaf=is_opaque)
        leaves = [fn(i) if i in self.stores else x for i, x in enumerate(leaves)]
        return structure.unflatten(leaves)


def _holds(store: Any, steps: Any) -> bool:
    """Whether a store has at least one element for each step."""
    is_static = isinstance(store, Rows) and isinstance(store.capacity, int)
    return is_static and isinstance(steps, int) and 0 < steps <= store.capacity


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
    """A step reads the array at `position` among the leaves of the carry of a loop."""

    def __init__(self, arrays: LoopWrites, position: int) -> None:
        super().__init__(position)
        self.arrays, self.position = arrays, position


@dataclasses.dataclass(frozen=True, eq=False)
class _WriteOnly(Rows):
    """The elements of an array inside a step, which collect writes and raise on reads.

    Attributes:
        arrays: The arrays of the loop, to which this array belongs.
        position: The position of the array.
        writes: The indices `[n]` and values `[n, ...]` of each write.
    """

    arrays: LoopWrites
    position: int
    writes: tuple[tuple[Array, Array], ...] = ()

    @classmethod
    def like(cls, rows: Rows, arrays: LoopWrites, position: int) -> "_WriteOnly":
        buffer = jax.ShapeDtypeStruct(rows.buffer.shape, rows.buffer.dtype)
        written = np.zeros(rows.capacity, bool)
        return cls(buffer, written, rows.size, arrays, position)

    def is_at(self, arrays: LoopWrites, position: int) -> bool:
        return self.arrays is arrays and self.position == position

    def write(self, index: Any, value: Array) -> "_WriteOnly":
        return self.scatter(jnp.expand_dims(index, 0), jnp.expand_dims(value, 0))

    def scatter(self, indices: Any, values: Array) -> "_WriteOnly":
        writes = (*self.writes, (jnp.asarray(indices), values))
        return dataclasses.replace(self, writes=writes)

    def length(self) -> Any:
        if isinstance(self.size, tuple):
            return super().length()
        raise _ReadError(self.arrays, self.position)

    def read(self, index: Any) -> Array:
        raise _ReadError(self.arrays, self.position)

    def gather(self, indices: Any) -> Array:
        raise _ReadError(self.arrays, self.position)

    def stack(self) -> Array:
        raise _ReadError(self.arrays, self.position)

    def padded(self, capacity: int) -> "Rows":
        raise _ReadError(self.arrays, self.position)

    def flatten(self) -> tuple[tuple, None]:
        """Refuses to be flattened, because JAX then reads the leaves."""
        raise _ReadError(self.arrays, self.position)


def _unflatten(*_: Any) -> _WriteOnly:
    raise TypeError("an array that cannot be flattened cannot be restored")


jax.tree_util.register_pytree_node(_WriteOnly, _WriteOnly.flatten, _unflatten)
