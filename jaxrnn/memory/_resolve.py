"""What the argument `swap_memory` of a driver stands for."""

import jax
import numpy as np

from .._base.errors import describe
from ._keep import Keep
from ._offload import Offload
from ._recompute import Recompute
from ._strategy import Strategy


def resolve(swap_memory: bool | Strategy, platform: str | None = None) -> Strategy:
    """The strategy that a value of `swap_memory` stands for.

    False is `Keep()`. True is `Offload(Recompute())`; on the CPU, where host and device
    share one memory and nothing would be moved, it is `Recompute()`.

    Args:
        swap_memory: False, True or a strategy, which is returned as it is.
        platform: Where it runs, "cpu", "gpu" or "tpu"; None for JAX's default backend,
            as in drivers. To lower or export for another platform than that, pass the
            strategy itself to the driver.

    Raises:
        TypeError: If `swap_memory` is neither a bool nor a strategy.

    Example:
        >>> import jaxrnn
        >>> jaxrnn.memory.resolve(True, "cpu"), jaxrnn.memory.resolve(True, "tpu")
        (Recompute(), Offload())
    """
    return as_strategy("resolve", "swap_memory", swap_memory, platform)


def as_strategy(
    where: str, name: str, swap_memory: object, platform: str | None = None
) -> Strategy:
    """The same, with the names that messages use."""
    if isinstance(swap_memory, Strategy):
        return swap_memory
    if isinstance(swap_memory, bool | np.bool_):
        if not swap_memory:
            return Keep()
        is_cpu = (platform or jax.default_backend()) == "cpu"
        return Recompute() if is_cpu else Offload(Recompute())
    fix = ""
    if isinstance(swap_memory, type) and issubclass(swap_memory, Strategy):
        fix = f" Make one: {swap_memory.__name__}()."
    if isinstance(swap_memory, str):
        fix = " True is the best for this platform."
    raise TypeError(
        f"{where}: `{name}` must be True, False or a strategy of `jaxrnn.memory`, "
        f"got {describe(swap_memory)}.{fix}"
    )
