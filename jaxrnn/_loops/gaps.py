"""Masks with gaps: moves the valid steps to the front of each row.

A run over the moved steps is a run with lengths, which every loop supports. No loop
computes a masked step.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from .._base.math import expand_rows
from .._base.typing import Array, PyTree
from . import masking

# Indexing options for indices that form a permutation.
_PERMUTATION = {"mode": "promise_in_bounds", "unique_indices": True}


class Kept(NamedTuple):
    """The positions of the valid steps of a mask.

    *The run* consists only of the valid steps; *the row* is the sequence that the user
    passed.

    Attributes:
        lengths: int32 `[batch]`, the number of valid steps of each row.
        sources: int32 `[batch, time]`, the index in the row of step t of the run. The
            masked steps follow the valid steps, in order.
        places: int32 `[batch, time]`, the inverse of `sources`.
        last: int32 `[batch, time]`, the index in the run of the last valid step up to
            step t of the row; -1 before the first valid step.
    """

    lengths: Array
    sources: Array
    places: Array
    last: Array

    @classmethod
    def by(cls, mask: Array) -> "Kept":
        """Returns the positions for a mask, bool `[batch, time]`."""
        counts = lambda mask: jnp.cumsum(mask, 1, dtype=jnp.int32)
        last, lengths = counts(mask) - 1, jnp.sum(mask, 1, dtype=jnp.int32)
        places = jnp.where(mask, last, lengths[:, None] + counts(~mask) - 1)
        ts = jnp.arange(mask.shape[1], dtype=jnp.int32)
        put = lambda places: jnp.zeros_like(places).at[places].set(ts, **_PERMUTATION)
        return cls(lengths, jax.vmap(put)(places), places, last)

    def to_front(self, tree: PyTree, axis: int) -> PyTree:
        """Reorders sequences from the order of the row to the order of the run."""
        return masking.read_steps(tree, self.sources, axis)

    def resets(self, where: Array) -> Array:
        """Converts resets of the row, bool `[batch, time]`, to resets of the run.

        A reset at a masked step takes effect at the next valid step.
        """
        counts = self.to_front(jnp.cumsum(where, 1, dtype=jnp.int32), 1)
        rest = counts[:, 1:] > counts[:, :-1]
        return jnp.concatenate([counts[:, :1] > 0, rest], axis=1)

    def to_places(self, outputs: PyTree, axis: int) -> PyTree:
        """Moves the run's outputs to their steps in the row; masked steps get zeros."""
        return masking.read_steps(outputs, self.places, axis)

    def states(self, states: PyTree, first: PyTree, axis: int) -> PyTree:
        """Returns the state after each step of the row; masked steps keep the state.

        Args:
            states: The states after the steps of the run.
            first: The state before the first step, each leaf `[batch, ...]`.
            axis: The time axis of `states`.
        """
        last = jnp.swapaxes(self.last, 1, axis)
        states = masking.read_steps(
            states, jnp.maximum(self.last, 0), axis, unique=False
        )
        first = jax.tree.map(lambda x: jnp.expand_dims(x, axis), first)
        either = lambda x, first: jnp.where(expand_rows(last >= 0, x), x, first)
        return jax.tree.map(either, states, first)
