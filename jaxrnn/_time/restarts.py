"""Several sequences end to end in one row: where each starts, and from which state."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

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
            `[sequences, ...]`; None where it is passed apart, to be differentiated by.
    """

    starts: Any
    restart_states: Any

    def enter(self, which: Array, state: PyTree) -> PyTree:
        """`state` with the rows replaced in which a sequence starts.

        Args:
            which: `[batch]`, one step of `starts`.
            state: The state before that step, each leaf `[batch, ...]`.
        """
        return masking.choose(which >= 0, rows_of(self.restart_states, which), state)


def rows_of(tree: PyTree, which: Array) -> PyTree:
    """Row `which[b]` of each leaf `[rows, ...]` for each b; any row for -1."""

    def read(leaf: Any) -> Any:
        if not leaf.shape[0]:
            return jnp.zeros((which.shape[0], *leaf.shape[1:]), leaf.dtype)
        return leaf[jnp.maximum(which, 0)]

    return jax.tree.map(read, tree)
