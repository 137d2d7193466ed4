"""Memory strategies: what a run saves for its backward pass (`swap_memory`).

* `Keep`, which `False` stands for: all that the backward pass reads.
* `Recompute`: the states between segments of steps; the rest is recomputed.
* `Nested`: the same with segments within segments; memory is logarithmic in the steps.
* `Offload`: what another strategy saves, in the memory of the host.

`True` stands for `Offload(Recompute())`, and on the CPU, where host and device share
one memory, for `Recompute()`; see `resolve`. A strategy changes values by rounding at
most. `jaxrnn.memory_plan` reports what each would save and cost. A custom strategy is a
frozen dataclass derived from `Strategy` with one method, `plan`, that returns a
`CheckpointPlan`.
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
