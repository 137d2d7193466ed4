"""Memory strategies: what a run saves for its backward pass (`swap_memory`).

* `Keep`, selected by `False`, saves everything that the backward pass reads.
* `Recompute` saves the states between segments of steps, and recomputes the rest.
* `Nested` nests segments, so that memory grows with the logarithm of the steps.
* `Offload` stores in host memory what another strategy saves.

`True` selects `Offload(Recompute())` or, on the CPU, where host and device share one
memory, `Recompute()`; see `resolve`. Results of different strategies may differ by
rounding. `jaxrnn.memory_plan` reports what each strategy would save and cost. A custom
strategy is a frozen dataclass derived from `Strategy` with one method, `plan`, that
returns a `CheckpointPlan`.
"""

from .._base.public import set_public_module as _set_public_module
from ._strategy import (
    CheckpointPlan as CheckpointPlan,
    Keep as Keep,
    Nested as Nested,
    Offload as Offload,
    Recompute as Recompute,
    Strategy as Strategy,
    resolve as resolve,
)

_set_public_module(globals())
