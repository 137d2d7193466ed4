"""`TensorShape`: a shape that is one leaf in a structure of sizes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from .arguments import as_axis_size, check_given


class TensorShape:
    """The shape of one state or output, without its batch axis.

    In `state_size` and `output_size`, a tuple is a structure: `(5, 5)` means two
    vectors of size 5. `TensorShape([5, 5])` means one array `[batch, 5, 5]`, and
    `TensorShape([])` means one number per row, `[batch]`.

    Args:
        dims: The sizes of the axes, non-negative integers, or the size of one axis.

    Raises:
        TypeError: If `dims` is neither an integer nor a sequence of integers.
        ValueError: If a size is negative or None.

    Source: `tf.TensorShape`, for fully known shapes.
    """

    __slots__ = ("_dims",)

    def __init__(self, dims: int | Iterable[int]) -> None:
        dims = dims if isinstance(dims, Iterable) else [dims]
        self._dims = tuple(map(_dim, dims))

    @classmethod
    def _partial(cls, dims: Iterable[int | None]) -> TensorShape:
        """The shape of a TensorArray's elements; sizes may be None or symbolic."""
        shape = cls(())
        shape._dims = tuple(dims)
        return shape

    def as_list(self) -> list[int]:
        """The sizes as a list."""
        return list(self._dims)

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self._dims)

    ndims = rank

    def num_elements(self) -> int:
        """The product of the sizes; 1 for rank 0."""
        return math.prod(self._dims)

    def __iter__(self) -> Iterator[int]:
        return iter(self._dims)

    def __len__(self) -> int:
        return len(self._dims)

    def __getitem__(self, index: Any) -> Any:
        return self._dims[index]

    def __eq__(self, other: object) -> bool:
        """Whether `other` has equal sizes; lists and tuples count, as in TensorFlow."""
        if isinstance(other, TensorShape | tuple | list):
            return self._dims == tuple(other)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self._dims)

    def __repr__(self) -> str:
        return f"TensorShape({list(self._dims)})"


def _dim(value: Any) -> Any:
    fix = "Give every axis a size."
    check_given("dims", value, fix, what="known")
    return as_axis_size("dims", value)
