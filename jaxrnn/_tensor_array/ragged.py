"""The elements of a `TensorArray` that may differ in shape, one by one."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.errors import describe
from .._base.known import as_known
from .._base.typing import Array
from .checks import check_joinable


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Ragged:
    """Elements that may differ in shape, one by one; indices must be known.

    Attributes:
        elements: An array for each element, an empty one where none was written.
        written: For each element whether it was written.
    """

    elements: tuple[Array | np.ndarray, ...]
    written: tuple[bool, ...] = dataclasses.field(metadata={"static": True})

    @classmethod
    def empty(cls, length: int) -> "Ragged":
        """Nothing written yet."""
        return cls((np.zeros(0),) * length, (False,) * length)

    @property
    def capacity(self) -> int:
        """How many elements there are."""
        return len(self.elements)

    def length(self) -> Any:
        """How many elements there are, an int32 scalar."""
        return np.int32(self.capacity)

    def was_written(self, indices: Any) -> Any:
        """Whether each of `indices` was written; False where one is out of range."""
        written = np.asarray((*self.written, False))
        return written[_need_known(indices).clip(-1, self.capacity)]

    def read(self, index: Any) -> Any:
        """Element `index`.

        Raises:
            ValueError: If it was never written.
            TypeError: If the index is traced.
        """
        index = int(_need_known(index))
        if not self.written[index]:
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
        elements, written = list(self.elements), list(self.written)
        elements[index], written[index] = value, True
        return Ragged(tuple(elements), tuple(written))

    def scatter(self, indices: Any, values: Array) -> "Ragged":
        """With the rows of `values` as elements `indices`; of equal the last wins."""
        store = self
        for index, value in zip(_need_known(indices), values, strict=True):
            store = store.write(index, value)
        return store

    def stack(self) -> Array:
        """All elements as one array; see `gather`."""
        return self.gather(np.arange(self.capacity))

    def concat(self) -> Array:
        """The elements joined along their first axis, in which they may differ."""
        elements = [self.read(index) for index in np.arange(self.capacity)]
        for element in elements:
            check_joinable(element.shape)
        if not elements:
            raise ValueError("TensorArray: elements must exist to be joined, got none.")
        return jnp.concatenate(elements)

    def with_capacity(self, capacity: int) -> "Ragged":
        """With `capacity` elements at least."""
        more = Ragged.empty(max(0, capacity - self.capacity))
        return Ragged(self.elements + more.elements, self.written + more.written)


def _need_known(indices: Any) -> np.ndarray:
    known = as_known(indices)
    if known is None:
        raise TypeError(
            "TensorArray: indices must be known where elements may differ in shape, "
            f"got {describe(indices)}, traced. Give `element_shape`, or leave "
            "`infer_shape` at True."
        )
    return known
