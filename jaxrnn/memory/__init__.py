"""Memory strategies (`swap_memory`): the arrays that a run saves for its backward pass.

* `Keep`, selected by `False`, saves everything that the backward pass reads.
* `Recompute` saves the states between parts of steps, and recomputes the rest.
* `Offload` saves the same arrays as another strategy, but in host memory.

`True` selects `Offload(Recompute())`, except on the CPU, where host and device share
one memory and `True` selects `Recompute()`; `jaxrnn.explain` tells which one was
selected. Results of different strategies may differ by rounding. `jaxrnn.memory_plan`
reports the memory and the cost of each strategy. A custom strategy is a frozen
dataclass that derives from `Strategy` and has one method, `plan`, which returns a
`CheckpointPlan`.
"""

# Imports `_run/memory.py`, whose public names it lists. Never here: code.

from .._base.modules import set_module as _set_module
from .._run.memory import CheckpointPlan, Keep, Offload, Recompute, Strategy

__all__ = [
    "CheckpointPlan",
    "Keep",
    "Offload",
    "Recompute",
    "Strategy",
]

_set_module(__name__)
