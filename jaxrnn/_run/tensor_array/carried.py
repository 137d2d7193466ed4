"""Prepares TensorArrays for the carry of a loop, whose shapes must not change.

A loop may write some arrays but never read them. `LoopWrites` removes these arrays from
the carry. In the carry, they would make the time of the backward pass quadratic in the
number of steps, because XLA's CPU compiler copies the cotangent of such an array at
every step. Instead, each step returns the values that it writes, and one scatter after
the loop fills each array. To find out which arrays a step reads, the step is traced
once more.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from ..._base.errors import expect
from ..._base.trees import is_tensor_array, map_parts
from ..._base.typing import Array, AxisSize, PyTree
from .store import Indices, Stacked
from .tensor_array import TensorArray

Step: TypeAlias = Callable[[Array, PyTree], tuple[PyTree, PyTree]]
"""`step(t, carry) -> (carry, y)`."""
Writes: TypeAlias = dict[int, list[tuple[Array, Array]]]
"""Maps the number of an array to pairs of indices `[n]` and values `[n, ...]`."""


def _is_opaque(value: object) -> bool:
    """An `is_leaf` function for which TensorArrays and None are leaves."""
    return value is None or is_tensor_array(value)


def with_capacity_for(tree: PyTree, steps: AxisSize, first: int = 0) -> PyTree:
    """Extends TensorArrays with `dynamic_size` to hold one write for each step.

    Inside a compiled loop, a TensorArray cannot grow, and writes out of range are
    dropped. If the loop has no steps, each TensorArray gets capacity for one write,
    because a step is still traced. If `steps` is symbolic, the tree does not change.

    Args:
        tree: The carry of a loop before its first step.
        steps: The number of steps.
        first: The index at which the first step writes to an array that has no elements
            yet.
    """
    if not isinstance(steps, int):
        return tree
    steps = max(1, steps)

    def extend(array: Any) -> TensorArray:
        config = array._config
        store = array._store
        if not config.dynamic_size:
            return array
        if isinstance(store, Stacked):
            array._single()
            return array._with(store.padded(max(first, store.written_end()) + steps))
        capacity = max(first + steps, config.capacity)
        config = dataclasses.replace(config, capacity=capacity)
        return array.tree_unflatten(config, (store,))

    return map_parts(is_tensor_array, extend, tree)


def with_known_shapes(tree: PyTree, after: Callable[[], PyTree]) -> PyTree:
    """Gives each TensorArray the element shape that it has after a step.

    Args:
        tree: The carry of a loop before its first step.
        after: A function that returns the carry after a step. The function is called
            only if the tree holds a TensorArray whose element shape is unknown.
    """
    leaves = jax.tree.leaves(tree, is_leaf=is_tensor_array)
    if not any(is_tensor_array(x) and x._store is None for x in leaves):
        return tree

    def shaped(array: TensorArray, other: PyTree) -> TensorArray:
        written = is_tensor_array(other) and isinstance(other._store, Stacked)
        if array._store is not None or not written:
            return array
        return array._with(array._stacked(other.element_shape))

    return map_parts(is_tensor_array, shaped, tree, after())


def as_loop_carry(
    step: Step, carry: PyTree, max_steps: AxisSize, first_write: int
) -> PyTree:
    """Gives TensorArrays the capacity and shapes with which a loop can carry them.

    Args:
        step: The body of a compiled loop.
        carry: The carry before the first step.
        max_steps: The maximum number of steps.
        first_write: The index at which the first step writes to an empty array.
    """
    carry = with_capacity_for(carry, max_steps, first_write)
    return with_known_shapes(
        carry, lambda: jax.eval_shape(step, jnp.int32(0), carry)[0]
    )


def of_elements(elements: Array, size: Indices) -> TensorArray:
    """A TensorArray with `dynamic_size` that holds the first `size` elements."""
    array = TensorArray(elements.dtype, 0, dynamic_size=True)
    return array._with(Stacked.of(elements, size, size))


@dataclasses.dataclass(frozen=True, eq=False)
class LoopWrites:
    """The TensorArrays of a carry that the steps of a loop write but do not read.

    An array is identified by its *number* among the leaves of the carry.

    Attributes:
        arrays: The arrays before the loop, by number.
        must_carry: The numbers of arrays that must stay in the carry, because a traced
            step reads or replaces them.
    """

    arrays: dict[int, TensorArray]
    must_carry: set[int] = dataclasses.field(default_factory=set)

    @classmethod
    def find(cls, step: Step, carry: PyTree, max_steps: AxisSize) -> "LoopWrites":
        """Finds the arrays, by tracing a step.

        Args:
            step: The body of the loop.
            carry: The carry before the first step. Its TensorArrays have known shapes.
            max_steps: The maximum number of steps. If the writes of all steps need
                more than twice the memory of an array, the loop carries the array. The
                loop also carries arrays of symbolic size, arrays whose elements may
                differ in shape, and all arrays if `max_steps` is symbolic.
        """
        leaves = jax.tree.leaves(carry, is_leaf=_is_opaque)
        static = {i: x for i, x in enumerate(leaves) if _is_static(x, max_steps)}
        must_carry = set()

        def watch(t: Array, carry: PyTree) -> None:
            leaves = jax.tree.leaves(carry, is_leaf=_is_opaque)
            arrays = cls({i: leaves[i] for i in static}, must_carry)
            for i, writes in arrays._writes(step(t, arrays._watched(carry))[0]).items():
                count = max_steps * sum(len(indices) for indices, _ in writes)
                if count > 2 * leaves[i]._store.capacity:
                    must_carry.add(i)

        if static:
            jax.eval_shape(watch, jnp.int32(0), carry)
        return cls({i: x for i, x in static.items() if i not in must_carry})

    def without(self, carry: PyTree) -> PyTree:
        """Replaces the arrays in a carry by None."""
        return self._map(lambda i, array: None, carry)

    def emitting(self, step: Step) -> Step:
        """A step for carries without the arrays; returns `(carry, (y, writes))`."""

        def emit(t: Array, carry: PyTree) -> tuple[PyTree, tuple[PyTree, Writes]]:
            after, y = step(t, self._watched(carry))
            writes = self._writes(after)
            must = "use the same TensorArrays each time it is traced"
            fix = "Python values that `loop_fn` reads must not change between traces."
            expect(not self.must_carry, "loop_fn", must, sorted(self.must_carry), fix)
            return self.without(after), (y, writes)

        return emit

    def filled(self, carry: PyTree, taken: Array, writes: Writes) -> PyTree:
        """Returns the carry after the loop, with the arrays.

        Args:
            carry: The carry after the loop, without the arrays.
            taken: The number of steps taken.
            writes: The stacked writes of all steps.
        """

        def fill(i: int, array: Any) -> TensorArray:
            return array._with(_fill(array._store, taken, writes[i]))

        return self._map(fill, carry)

    def _watched(self, carry: PyTree) -> PyTree:
        """Puts the arrays into the carry, with elements that record their use."""

        def watch(i: int, array: Any) -> TensorArray:
            store = array._store
            watched = _Watched(store.buffer, store.written, store.size, self, i)
            return array._with(watched)

        return self._map(watch, carry)

    def _writes(self, carry: PyTree) -> Writes:
        """The writes of a step to each array, from the carry after the step."""
        writes = {}
        for i, leaf in enumerate(jax.tree.leaves(carry, is_leaf=_is_opaque)):
            store: Any = leaf._store if i in self.arrays else None
            here = (self, i)
            if isinstance(store, _Watched) and (store.arrays, store.number) == here:
                writes[i] = list(store.writes)
                continue
            if i in self.arrays:  # The step replaced the array.
                self.must_carry.add(i)
            jax.tree.leaves(leaf)  # Flattening marks the arrays in `leaf` as read.
        return writes

    def _map(self, fn: Callable[[int, TensorArray], PyTree], carry: PyTree) -> PyTree:
        """Replaces the leaf of each number in `arrays` by `fn(number, array)`."""
        leaves, structure = jax.tree.flatten(carry, is_leaf=_is_opaque)
        for i, array in self.arrays.items():
            leaves[i] = fn(i, array)
        return structure.unflatten(leaves)


def _is_static(leaf: PyTree, max_steps: AxisSize) -> bool:
    """Whether a leaf is a TensorArray with a buffer, and all sizes are ints."""
    if not (is_tensor_array(leaf) and isinstance(leaf._store, Stacked)):
        return False
    return isinstance(leaf._store.capacity, int) and isinstance(max_steps, int)


def _fill(store: Stacked, taken: Array, writes: list[tuple[Array, Array]]) -> Stacked:
    """Applies the writes of all steps in the order of the loop."""
    if not writes:
        return store
    indices = jnp.concatenate([indices for indices, _ in writes], axis=1)
    values = jnp.concatenate([values for _, values in writes], axis=1)
    steps, count, *shape = values.shape
    is_taken = jnp.arange(steps, dtype=jnp.int32) < taken
    # `scatter` drops writes to index -1, so steps that are not taken write nothing.
    indices = jnp.where(is_taken[:, None], indices, -1)
    return store.scatter(indices.reshape(-1), values.reshape(steps * count, *shape))


@dataclasses.dataclass(frozen=True, eq=False)
class _Watched(Stacked):
    """Holds the elements of an array inside a step, and records their use.

    A write does not change the elements. No step notices this, because an array that a
    step reads stays in the carry.

    Attributes:
        arrays: The `LoopWrites` of the loop, to which this array belongs.
        number: The number of the array.
        writes: The indices `[n]` and values `[n, ...]` of each write.
    """

    arrays: LoopWrites
    number: int
    writes: tuple[tuple[Array, Array], ...] = ()

    def was_written(self, indices: Indices) -> Indices:
        return jnp.zeros(indices.shape, bool)

    def write(self, index: Indices, value: Array) -> "_Watched":
        return self.scatter(index[None], value[None])

    def scatter(self, indices: Indices, values: Array) -> "_Watched":
        writes = (*self.writes, (jnp.asarray(indices), values))
        return dataclasses.replace(self, writes=writes)

    def length(self) -> Indices:
        return super().length() if isinstance(self.size, tuple) else self._read().size

    def read(self, index: Indices) -> Array:
        return self._read().read(index)

    def gather(self, indices: Indices) -> Array:
        return self._read().gather(indices)

    def stack(self) -> Array:
        return self._read().stack()

    def padded(self, capacity: int) -> Stacked:
        return self._read().padded(capacity)

    def _read(self) -> Stacked:
        """Returns the elements, and notes that the loop must carry the array."""
        self.arrays.must_carry.add(self.number)
        return Stacked(self.buffer, self.written, self.size)


def _flatten(watched: _Watched) -> tuple[tuple, None]:
    """The elements; flattening counts as a read, because JAX may use the leaves."""
    return (watched._read(),), None


def _unflatten(_: None, elements: Any) -> Any:
    return elements[0]


jax.tree_util.register_pytree_node(_Watched, _flatten, _unflatten)
