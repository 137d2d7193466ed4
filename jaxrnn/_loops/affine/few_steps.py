"""Decides whether a run on a CPU is so small that a simpler loop is faster."""

import math
from typing import TYPE_CHECKING

import jax

from ..._base.typing import Array
from ..._run.masking import Steps

if TYPE_CHECKING:
    from ..._cells.affine import AffineCell

# Fitted to measured times of results and gradients, in microseconds. An *entry* is one
# number of a kernel: an LSTM with 128 inputs and 128 units has 131,072 entries.
CALL = 5.0  # The fixed time of a native call.
ENTRY = 6.5e-5  # The time that a native call takes to prepare one entry.
STEP = 1.0  # The fixed time that each native step saves.
ENTRY_OF_STEP = 3e-5  # The time that each native step saves per entry and four rows.

# With 32 units or more, with up to 8 rows, or in 16 bits, XLA's loop was faster than a
# scan.
FEW_UNITS, MOST_ROWS = 24, 8


def why_few_steps(cell: "AffineCell", xs: Array, steps: Steps) -> str | None:
    """The reason why XLA's loop is faster than a native loop on a CPU, or None.

    A call of a native loop takes a fixed time, and prepares the kernels once. After
    this, each native step is faster than a step of XLA's loop. So XLA's loop is faster
    only if there are few steps.
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

    XLA's loop computes the gradients of kernels once, after all steps, but repeats the
    element-wise operations in the backward pass. A scan adds to the gradients of
    kernels at every step, which is faster if the kernels are small. With lengths, XLA's
    loop is used, because only XLA's loop skips the steps after the longest row.
    """
    rows = xs.shape[1 - steps.axis]
    is_even = steps.lengths is None and isinstance(rows, int) and rows > MOST_ROWS
    units = max(stage.columns // (stage.blocks or 1) for stage in cell.stages)
    if is_even and units <= FEW_UNITS and xs.dtype.itemsize >= 4:
        return "a scan is faster for so few units"
    return None


def are_few_vectors(operand: Array, vmap_size: int) -> bool:
    """Whether `dot` computes the gradient of a kernel faster than `dot_with_tangent`.

    For few steps and rows, the transposition in `dot_with_tangent` costs more time than
    it saves.

    Args:
        operand: The array that the kernel multiplies, `[time, batch, depth]`.
        vmap_size: The number of operands under `vmap`; see `Run`.
    """
    if not all(isinstance(size, int) for size in operand.shape):
        return False
    return vmap_size * math.prod(operand.shape[:2]) <= operand.shape[-1] / 2
