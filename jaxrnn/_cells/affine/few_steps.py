"""Whether XLA's loop runs a few steps faster than the native loops.

A call of a native loop costs a fixed time, and prepares the kernels once. Each step
is then faster than a step of XLA's loop. `tests/native/test_few_steps.py` has the
measured times.
"""

import math
from typing import TYPE_CHECKING

import jax

from ..._loops.steps import Run

if TYPE_CHECKING:
    from .cell import AffineCell

# Fitted to measured times of results and gradients, in microseconds.
CALL = 12.0  # The fixed time of a native call.
ENTRY = 5e-5  # The time to prepare an entry of a kernel.
STEP = 1.0  # What a native step saves, in all and for each entry.
ENTRY_OF_STEP = 3e-5  # For up to four rows, which one read of an entry serves.


def why_few_steps(cell: "AffineCell", run: Run) -> str | None:
    """The reason why XLA's loop runs these steps faster on a CPU, or None."""
    rows, depth = run.inputs.shape[1 - run.steps.axis], run.inputs.shape[-1]
    specs = jax.tree.leaves(cell.param_specs(depth))
    entries = sum(math.prod(spec.shape) for spec in specs)
    saved = STEP + ENTRY_OF_STEP * max(1, rows / 4) * entries
    if run.steps.time > (CALL + ENTRY * entries) / saved:
        return None
    return "XLA's loop is faster for so few steps"
