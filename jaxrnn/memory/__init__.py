"""Memory strategies, which select the arrays that a run saves for its backward pass.

Pass a strategy, or a bool, as `swap_memory` of `dynamic_rnn`:

* `Keep`, or `False`, saves everything that the backward pass reads.
* `Recompute` divides the run into parts of several steps, saves the state before each
  part, and recomputes the rest.
* `Offload` saves the same arrays as another strategy, but in host memory.
* `True` selects `Recompute()` on the CPU, where host and device share one memory, and
  `Offload(Recompute())` on other devices.

`jaxrnn.explain` shows the selected strategy, and `jaxrnn.memory_plan` reports the
memory that each strategy needs. Results of different strategies may differ by rounding.
A custom strategy is a frozen dataclass that derives from `Strategy` and has one method,
`plan`, which returns a `CheckpointPlan`.
"""

# This module only lists the public names of `_run/memory.py`, and contains no code.

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
