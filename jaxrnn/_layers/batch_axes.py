"""Any number of batch axes, where a driver has one."""

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
    """Merges the batch axes of nests into one, and splits that one again.

    Attributes:
        shape: The sizes of the batch axes; `()` for a single row without an axis.
        time_major: Whether time comes before them.
    """

    shape: tuple[int, ...]
    time_major: bool

    @property
    def rows(self) -> int:
        """The number of rows."""
        return math.prod(self.shape)

    def check(self, where: str, name: str, tree: PyTree, start: int = 0) -> None:
        """Raises ValueError for a leaf with other batch axes.

        Args:
            where: The module, for messages.
            name: The name of the nest.
            tree: The nest; leaves without axes are not checked.
            start: The number of axes before the batch axes.
        """
        if len(self.shape) == 1:
            return  # The drivers check one axis.
        end = start + len(self.shape)
        for leaf_name, leaf in named_leaves(name, tree):
            if leaf.ndim and leaf.shape[start:end] != self.shape:
                raise ValueError(
                    f"{where}: `{leaf_name}` must have rows along the axes "
                    f"{list(self.shape)}, got {describe(leaf)}."
                )

    def merge(self, tree: PyTree) -> PyTree:
        """`[*shape, ...]` to `[rows, ...]`; leaves without axes stay as they are."""
        count = len(self.shape)
        merge = lambda x: x.reshape(self.rows, *x.shape[count:])
        return self._map(lambda x: merge(x) if x.ndim >= count else x, tree)

    def split(self, tree: PyTree) -> PyTree:
        """The inverse of `merge`."""
        split = lambda x: x.reshape(*self.shape, *x.shape[1:])
        return self._map(lambda x: split(x) if x.ndim else x, tree)

    def merge_sequences(self, tree: PyTree) -> PyTree:
        """`[*shape, time, ...]` to `[rows, time, ...]`, or with time first."""
        if not self.time_major:
            return self.merge(tree)
        count = 1 + len(self.shape)
        merge = lambda x: x.reshape(x.shape[0], self.rows, *x.shape[count:])
        return self._map(merge, tree)

    def split_sequences(self, tree: PyTree) -> PyTree:
        """The inverse of `merge_sequences`."""
        if not self.time_major:
            return self.split(tree)
        split = lambda x: x.reshape(x.shape[0], *self.shape, *x.shape[2:])
        return self._map(split, tree)

    def _map(self, fn: Callable[[Any], Any], tree: PyTree) -> PyTree:
        # With one axis nothing is reshaped: sharded arrays keep their layout.
        return tree if len(self.shape) == 1 else jax.tree.map(fn, tree)
