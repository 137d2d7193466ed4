"""Masks with gaps: the steps that a mask keeps, moved to the front of each row.

A run over these is a run with lengths, so every loop can take it, and none computes
what the mask leaves out.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from .._base.math import expand_rows
from .._base.typing import Array, PyTree
from . import masking

# Of indices that are a permutation.
_PERMUTATION = {"mode": "promise_in_bounds", "unique_indices": True}


class Kept(NamedTuple):
    """Where the steps are that a mask keeps.

    *The run* is over these alone; *the row* is the sequence that the user gave.

    Attributes:
        lengths: int32 `[batch]`, the number of steps that are kept of each row.
        sources: int32 `[batch, time]`, which step of the row is step t of the run. The
            steps that are left out follow, in order, from the row's length on.
        places: int32 `[batch, time]`, the inverse of `sources`.
        last: int32 `[batch, time]`, the number of the last step of the run up to step
            t of the row; -1 before the first.
    """

    lengths: Array
    sources: Array
    places: Array
    last: Array

    @classmethod
    def by(cls, mask: Array) -> "Kept":
        """Those of a mask, bool `[batch, time]`."""
        counts = lambda mask: jnp.cumsum(mask, 1, dtype=jnp.int32)
        last, lengths = counts(mask) - 1, jnp.sum(mask, 1, dtype=jnp.int32)
        places = jnp.where(mask, last, lengths[:, None] + counts(~mask) - 1)
        ts = jnp.arange(mask.shape[1], dtype=jnp.int32)
        put = lambda places: jnp.zeros_like(places).at[places].set(ts, **_PERMUTATION)
        return cls(lengths, jax.vmap(put)(places), places, last)

    def to_front(self, tree: PyTree, axis: int) -> PyTree:
        """Sequences in the order of the run, time along `axis`."""
        return masking.read_steps(tree, self.sources, axis)

    def resets(self, where: Array) -> Array:
        """The resets of the run, of resets bool `[batch, time]`.

        A reset of a step that is left out takes effect at the next one that is kept.
        """
        counts = self.to_front(jnp.cumsum(where, 1, dtype=jnp.int32), 1)
        return jnp.diff(counts, axis=1, prepend=0) > 0

    def to_places(self, outputs: PyTree, axis: int) -> PyTree:
        """The outputs of the run, zeros past its lengths, in the order of the rows."""
        return masking.read_steps(outputs, self.places, axis)

    def states(self, states: PyTree, first: PyTree, axis: int) -> PyTree:
        """The state after each step of a row, which those left out do not change.

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
