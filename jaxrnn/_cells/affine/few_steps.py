"""Whether XLA's loop runs a few steps faster than the native loops.

A call of a native loop costs a fixed time, and rearranges the kernels once. Each step
is then faster than a step of XLA's loop. `tests/native/test_few_steps.py` has the
measured times.
"""

import math
from typing import TYPE_CHECKING

import jax

from ..._loops.steps import Run

if TYPE_CHECKING:
    from .cell import AffineCell

# In microseconds: the fixed time of a native call, and the time to rearrange an entry
# of a kernel; what a native step saves in all, and for an entry, times the square root
# of the number of rows, because one read of an entry serves all rows.
CALL, ENTRY = 25.0, 7e-4
STEP, ENTRY_OF_STEP = 2.0, 3.8e-5
# A gradient, which the choice does not see, is faster natively at fewer steps.
MOST = 15


def why_few_steps(cell: "AffineCell", run: Run) -> str | None:
    """The reason why XLA's loop runs these steps faster on a CPU, or None."""
    rows, depth = run.inputs.shape[1 - run.steps.axis], run.inputs.shape[-1]
    specs = jax.tree.leaves(cell.param_specs(depth))
    entries = sum(math.prod(spec.shape) for spec in specs)
    saved = STEP + ENTRY_OF_STEP * math.sqrt(rows) * entries
    enough = (CALL + ENTRY * entries) / saved
    if run.steps.time > min(enough, MOST):
        return None
    return "XLA's loop is faster for so few steps"
