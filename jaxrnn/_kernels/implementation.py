"""`Implementation`: a way to run the loop of affine cells; what libraries' calls need.

XLA's loop is not one of them: it is what a run has without an `Implementation`.
"""

import abc
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from .._base.typing import Array, Params, PyTree
from .._time.steps import Steps


class Implementation(abc.ABC):
    """A way to run the sequences of affine cells.

    Attributes:
        name: The name by which users choose it.
        is_required: Whether a cell that it cannot run is an error.
    """

    name: ClassVar[str]
    is_required: ClassVar[bool] = True

    @abc.abstractmethod
    def run_sequences(
        self, cell: Any, params: Params, xs: Array, state: PyTree, steps: Steps
    ) -> tuple[PyTree, PyTree]:
        """`(outputs, state)` of all steps, with derivatives of every order.

        Args:
            cell: An `AffineCell`.
            params: Its parameters.
            xs: Inputs, `[batch, time, depth]` or `[time, batch, depth]`.
            state: The initial state, each leaf `[batch, size]`.
            steps: Which steps there are.

        Raises:
            DeclinedError: If it cannot run them here, with the reason.
        """

    def __str__(self) -> str:
        return repr(self.name)


def why_not_arrays(xs: Array, state: PyTree, steps: Steps) -> str | None:
    """Why a call of a library cannot have these inputs and this state, or None."""
    if not isinstance(xs.shape[1 - steps.axis], int):
        return "the number of rows is symbolic"
    arrays = [xs, *jax.tree.leaves(state)]
    if any(0 in x.shape for x in arrays):
        return "there are no steps, no rows, no inputs, or no units"
    dtypes = {x.dtype for x in arrays}
    if dtypes != {jnp.dtype(jnp.float32)}:
        return f"it computes in float32, got {', '.join(sorted(map(str, dtypes)))}"
    return None


def row_lengths(xs: Array, steps: Steps) -> Array:
    """int32 `[batch]`, the number of steps of each row, from 0 to all."""
    if steps.lengths is None:
        return jnp.full(xs.shape[1 - steps.axis], steps.time, jnp.int32)
    return jnp.clip(steps.lengths, 0, steps.time).astype(jnp.int32)
