"""`Given`: the checked arguments of a run, before zero states are filled in."""

import dataclasses
from typing import Any

import jax

from .._base.typing import AxisSize, DType, Implementation, PyTree
from .memory import CheckpointPlan

_STATIC = {"static": True}
_SAVE_EVERYTHING = CheckpointPlan()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Given:
    """The checked arguments of a function that runs a cell, such as `dynamic_rnn`.

    Attributes:
        inputs: All steps of inputs, in the user's layout: time along `axis`, and rows
            along the other of the first two axes.
        state: The initial state, each leaf `[batch, ...]`; None for the zero state.
        lengths: int32 `[batch]`. The first `lengths[b]` steps of row b are valid.
        mask: Bool, in the layout of the inputs, true at valid steps. There are four
            cases:

            * If all steps are valid, `lengths` and `mask` are both None.
            * If the user passed lengths, only `lengths` is set.
            * If the user passed a mask that may have gaps, only `mask` is set.
            * If the user passed a mask without gaps, `lengths` is set. `mask` is also
              set if there are resets, or if rows interact.
        resets: Bool, in the layout of the inputs, true where a row is reset before the
            step; None without resets.
        reset_state: The state after a reset, like `state`. If None, a reset sets the
            zero state.
        axis: The time axis, 0 or 1.
        dtype: The dtype of the zero state and of the outputs.
        implementation: The user's argument `implementation`.
        returns_states: Whether the user wants the state after every step.
        needs_rows: Whether each leaf of the state must have a batch axis.
        least_steps: The number of steps that TensorFlow's loop runs even if all lengths
            are 0.
        plan: Selects the arrays that the forward pass saves for the backward pass.
        unroll: The number of steps unrolled in each iteration of a scan.
        vmap_size: Product of the sizes of the enclosing `vmap`s; 1 if unknown.
    """

    inputs: PyTree
    state: PyTree
    lengths: Any = None
    mask: Any = None
    resets: Any = None
    reset_state: PyTree = None
    axis: int = dataclasses.field(metadata=_STATIC)
    dtype: DType = dataclasses.field(metadata=_STATIC)
    implementation: Implementation | None = dataclasses.field(
        metadata=_STATIC, default=None
    )
    returns_states: bool = dataclasses.field(metadata=_STATIC, default=False)
    needs_rows: bool = dataclasses.field(metadata=_STATIC, default=False)
    least_steps: int = dataclasses.field(metadata=_STATIC, default=1)
    plan: CheckpointPlan = dataclasses.field(metadata=_STATIC, default=_SAVE_EVERYTHING)
    unroll: int = dataclasses.field(metadata=_STATIC, default=1)
    vmap_size: int = dataclasses.field(metadata=_STATIC, default=1)

    @property
    def time(self) -> AxisSize:
        """The number of steps, an int, or symbolic under `jax.export`."""
        return jax.tree.leaves(self.inputs)[0].shape[self.axis]

    @property
    def rows(self) -> AxisSize:
        """The number of rows."""
        return jax.tree.leaves(self.inputs)[0].shape[1 - self.axis]

    def replace(self, **changes: object) -> "Given":
        """Returns a copy in which `changes` replace attributes."""
        return dataclasses.replace(self, **changes)

    def prefix_tree(self, rows: object, sequences: object) -> "Given":
        """Builds a prefix tree for `in_specs`: one value for each array."""
        return self.replace(
            inputs=sequences,
            state=rows,
            lengths=rows,
            mask=sequences,
            resets=sequences,
            reset_state=rows,
        )
