"""What the argument `swap_memory` of a driver stands for."""

import numpy as np

from .._errors import describe
from ._keep import Keep
from ._offload import Offload
from ._recompute import Recompute
from ._strategy import Strategy


def resolve(swap_memory: bool | Strategy, platform: str | None = None) -> Strategy:
    """The strategy that a value of `swap_memory` stands for.

    Args:
        swap_memory: False, True or a strategy.
        platform: Where the program is to run, "cpu", "gpu" or "tpu", as
            `jax.default_backend()` names them: then an `Offload` to the very same
            memory is taken away. None for the strategy as programs are built, whatever
            they are lowered for.

    Raises:
        TypeError: If it is neither a bool nor a strategy.

    Example:
        >>> import jaxrnn
        >>> jaxrnn.memory.resolve(True)
        Offload()
        >>> jaxrnn.memory.resolve(True, "cpu")
        Recompute()
    """
    strategy = as_strategy("resolve", swap_memory)
    if platform == "cpu" and isinstance(strategy, Offload):
        return strategy.of
    return strategy


def as_strategy(where: str, swap_memory: object) -> Strategy:
    """The same for any platform, `where` being named in messages."""
    if isinstance(swap_memory, Strategy):
        return swap_memory
    if isinstance(swap_memory, bool | np.bool_):
        return Offload(Recompute()) if swap_memory else Keep()
    fix = ""
    if isinstance(swap_memory, type) and issubclass(swap_memory, Strategy):
        fix = f" Make one: {swap_memory.__name__}()."
    raise TypeError(
        f"{where}: `swap_memory` must be True, False or a strategy of `jaxrnn.memory`, "
        f"got {describe(swap_memory)}.{fix}"
    )
