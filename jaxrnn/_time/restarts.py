"""Several sequences stored end to end in a row: where each starts, and from what."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from .._base.gathers import read_at
from .._base.typing import Array, PyTree
from . import masking


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Restarts:
    """Where sequences start within the rows, and the states that they start from.

    Attributes:
        starts: int32 `[batch, time]`, or `[time, batch]`, with the axes of the inputs:
            the number of the sequence that starts at a step, -1 where none does.
        restart_states: The initial state of each sequence, each leaf
            `[sequences, ...]`; None where they are passed separately, as arguments to
            differentiate with respect to.
    """

    starts: Any
    restart_states: Any

    def restart(self, sequence: Array, state: PyTree) -> PyTree:
        """`state`, with a restart state in each row in which a sequence starts.

        Args:
            sequence: int32 `[batch]`, one step of `starts`, or all of them.
            state: The state before that step, each leaf `[batch, ...]`, or before each
                of them, with the axes of `starts` first.
        """
        restart_states = rows_of(self.restart_states, sequence)
        return masking.choose(sequence >= 0, restart_states, state)


def rows_of(tree: PyTree, indices: Array) -> PyTree:
    """Rows `indices` of each leaf `[rows, ...]`; an arbitrary row for -1."""

    def read(leaf: Any) -> Any:
        if not leaf.shape[0]:
            return jnp.zeros((*indices.shape, *leaf.shape[1:]), leaf.dtype)
        return read_at(leaf, jnp.maximum(indices, 0))

    return jax.tree.map(read, tree)
