"""What a derivative keeps of a run: the values of the argument `swap_memory`.

* `Keep`, which `False` stands for: all that it reads.
* `Recompute`: the states between chunks of steps; the rest is made again.
* `Nested`: the same with chunks of chunks, of logarithmic size.
* `Offload`: what another one keeps, in the memory of the host.

`True` stands for `Offload(Recompute())`, and on the CPU, where host and device are one,
for `Recompute()`; `resolve` tells. A strategy changes no value. `jaxrnn.memory_plan`
tells what each would keep and cost. One of your own is a frozen dataclass over
`Strategy` with one method, `record`, that gives a `Record`.
"""

from .._base.public import set_public_module as _set_public_module
from ._keep import Keep as Keep
from ._nested import Nested as Nested
from ._offload import Offload as Offload
from ._recompute import Recompute as Recompute
from ._resolve import resolve as resolve
from ._strategy import Record as Record, Strategy as Strategy

_set_public_module(globals())

__all__ = ["Keep", "Nested", "Offload", "Recompute", "Record", "Strategy", "resolve"]
