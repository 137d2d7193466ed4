"""Any number of axes of rows, where a driver has one."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax

from .._base.errors import describe
from .._base.trees import named_leaves
from .._base.typing import PyTree


@dataclasses.dataclass(frozen=True)
class BatchAxes:
    """Turns nests with axes of rows into nests with one such axis, and back.

    Attributes:
        shape: The sizes of the axes; `()` where there is a single row without an axis.
        time_major: Whether time comes before them.
    """

    shape: tuple[int, ...]
    time_major: bool

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return math.prod(self.shape)

    def check(self, where: str, name: str, tree: PyTree, start: int = 0) -> None:
        """Raises ValueError for a leaf with rows along other axes.

        Args:
            where: The function that asks.
            name: What the nest is called.
            tree: The nest; leaves without axes have no rows.
            start: The axes before those of the rows.
        """
        if len(self.shape) == 1:
            return  # The drivers say more.
        end = start + len(self.shape)
        for leaf_name, leaf in named_leaves(name, tree):
            if leaf.ndim and leaf.shape[start:end] != self.shape:
                raise ValueError(
                    f"{where}: `{leaf_name}` must have rows along the axes "
                    f"{list(self.shape)}, got {describe(leaf)}."
                )

    def merge(self, tree: PyTree) -> PyTree:
        """`[*shape, ...]` to `[rows, ...]`; what has no axes stays as it is."""
        count = len(self.shape)
        as_one = lambda x: x.reshape(self.rows, *x.shape[count:])
        return self._each(lambda x: as_one(x) if x.ndim >= count else x, tree)

    def split(self, tree: PyTree) -> PyTree:
        """What `merge` made one."""
        apart = lambda x: x.reshape(*self.shape, *x.shape[1:])
        return self._each(lambda x: apart(x) if x.ndim else x, tree)

    def merge_sequences(self, tree: PyTree) -> PyTree:
        """`[*shape, time, ...]` to `[rows, time, ...]`, or with time first."""
        if not self.time_major:
            return self.merge(tree)
        count = 1 + len(self.shape)
        as_one = lambda x: x.reshape(x.shape[0], self.rows, *x.shape[count:])
        return self._each(as_one, tree)

    def split_sequences(self, tree: PyTree) -> PyTree:
        """What `merge_sequences` made one."""
        if not self.time_major:
            return self.split(tree)
        apart = lambda x: x.reshape(x.shape[0], *self.shape, *x.shape[2:])
        return self._each(apart, tree)

    def _each(self, fn: Callable[[Any], Any], tree: PyTree) -> PyTree:
        # Nothing is done to the usual case: arrays over devices keep their layout.
        return tree if len(self.shape) == 1 else jax.tree.map(fn, tree)
