"""Memory strategies (`swap_memory`): the arrays that a run saves for its backward pass.

* `Keep`, selected by `False`, saves everything that the backward pass reads.
* `Recompute` saves the states between segments of steps, and recomputes the rest.
* `Nested` nests segments, so that memory grows with the logarithm of the number of
  steps.
* `Offload` saves the same arrays as another strategy, but in host memory.

`True` selects `Offload(Recompute())`, except on the CPU, where host and device share
one memory and `True` selects `Recompute()`; see `resolve`. Results of different
strategies may differ by rounding. `jaxrnn.memory_plan` reports the memory and the cost
of each strategy. A custom strategy is a frozen dataclass that derives from `Strategy`
and has one method, `plan`, which returns a `CheckpointPlan`.
"""

from .._base.boundary import export as _export
from ._strategy import (
    CheckpointPlan as CheckpointPlan,
    Keep as Keep,
    Nested as Nested,
    Offload as Offload,
    Recompute as Recompute,
    Strategy as Strategy,
    resolve as resolve,
)

_export(globals())
