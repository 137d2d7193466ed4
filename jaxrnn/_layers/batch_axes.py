"""Any number of batch axes, as in Flax, merged into the one that drivers have."""

import dataclasses
import math

import jax

from .._base.errors import describe
from .._base.trees import named_leaves
from .._base.typing import PyTree


@dataclasses.dataclass(frozen=True)
class BatchAxes:
    """Merges the batch axes of nests into one, and splits that one again.

    With one axis nothing is reshaped, so that sharded arrays keep their layout.

    Attributes:
        shape: The sizes of the batch axes; `()` for a single row without an axis.
    """

    shape: tuple[int, ...]

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
            if leaf is not None and leaf.ndim and leaf.shape[start:end] != self.shape:
                raise ValueError(
                    f"{where}: `{leaf_name}` must have rows along the axes "
                    f"{list(self.shape)}, got {describe(leaf)}."
                )

    def merge(self, tree: PyTree, start: int = 0) -> PyTree:
        """`[*shape, ...]` to `[rows, ...]`, after the first `start` axes.

        Leaves with fewer axes are unchanged.
        """
        if len(self.shape) == 1:
            return tree
        end = start + len(self.shape)
        merge = lambda x: x.reshape(*x.shape[:start], self.rows, *x.shape[end:])
        return jax.tree.map(lambda x: merge(x) if x.ndim >= end else x, tree)

    def split(self, tree: PyTree, start: int = 0) -> PyTree:
        """The inverse of `merge`."""
        if len(self.shape) == 1:
            return tree
        end = start + 1
        split = lambda x: x.reshape(*x.shape[:start], *self.shape, *x.shape[end:])
        return jax.tree.map(lambda x: split(x) if x.ndim >= end else x, tree)
