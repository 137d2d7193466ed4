"""Whether a run on a CPU is so small that a simpler loop is faster."""

import math
from typing import TYPE_CHECKING

import jax

from ..._base.typing import Array
from ..._run.masking import Steps

if TYPE_CHECKING:
    from ..._cells.affine import AffineCell

# Fitted to measured times of results and gradients, in microseconds.
CALL = 5.0  # The fixed time of a native call.
ENTRY = 6.5e-5  # The time to prepare an entry of a kernel.
STEP = 1.0  # The time that a native step saves, besides the time for its entries.
ENTRY_OF_STEP = 3e-5  # The time that it saves for each entry and up to four rows.

# XLA's loop was the faster one from 32 units on, for up to 8 rows, and in 16 bits.
FEW_UNITS, MOST_ROWS = 24, 8


def why_few_steps(cell: "AffineCell", xs: Array, steps: Steps) -> str | None:
    """The reason why XLA's loop is faster than a native loop on a CPU, or None.

    A call of a native loop costs a fixed time, and prepares the kernels once. Each of
    its steps is then faster than a step of XLA's loop, so XLA's loop is faster for few
    steps.
    """
    rows, depth = xs.shape[1 - steps.axis], xs.shape[-1]
    if not isinstance(rows, int):  # An exported program has no native loop.
        return None
    specs = jax.tree.leaves(cell.param_specs(depth))
    entries = sum(math.prod(spec.shape) for spec in specs)
    saved = STEP + ENTRY_OF_STEP * max(1, rows / 4) * entries
    if steps.time > (CALL + ENTRY * entries) / saved:
        return None
    return "XLA's loop is faster for so few steps"


def why_few_units(cell: "AffineCell", xs: Array, steps: Steps) -> str | None:
    """The reason why a scan is faster on a CPU than XLA's loop, or None.

    XLA's loop computes the gradients of kernels after all steps, but repeats the
    element-wise operations in the backward pass. With few units, the kernels are small,
    so a scan is faster, which adds to their gradients at every step. But only XLA's
    loop skips the steps after the end of the longest row.
    """
    rows = xs.shape[1 - steps.axis]
    is_even = steps.lengths is None and isinstance(rows, int) and rows > MOST_ROWS
    units = max(stage.columns // (stage.blocks or 1) for stage in cell.stages)
    if is_even and units <= FEW_UNITS and xs.dtype.itemsize >= 4:
        return "a scan is faster for so few units"
    return None


def are_few_vectors(operand: Array, vmap_size: int) -> bool:
    """Whether XLA's order of a kernel's gradient is faster than `dot_with_tangent`.

    For few steps and rows, the gradient takes less time than its transposition.

    Args:
        operand: What the kernel multiplies, `[time, batch, depth]`.
        vmap_size: The number of such operands; see `Run`.
    """
    if not all(isinstance(size, int) for size in operand.shape):
        return False
    return vmap_size * math.prod(operand.shape[:2]) <= operand.shape[-1] / 2
