"""Which kernel runs a loop."""

from typing import Any

from .._errors import describe
from .pallas_mosaic_tpu import PallasMosaicTPU

# What a driver takes as `implementation`. None of the kernels has been measured on its
# hardware yet, so that none is chosen by itself.
IMPLEMENTATIONS = {"xla": None, "pallas_mosaic_tpu": PallasMosaicTPU()}


def as_kernel(where: str, implementation: Any) -> Any:
    """The kernel that an `implementation` names, or None for XLA's loop.

    Raises:
        ValueError: If there is none of that name.
        TypeError: If it is neither a name nor a kernel.
    """
    if implementation is None or isinstance(implementation, PallasMosaicTPU):
        return implementation
    names = ", ".join(IMPLEMENTATIONS)
    if not isinstance(implementation, str):
        raise TypeError(
            f"{where}: `implementation` must be None or one of {names}, got "
            f"{describe(implementation)}."
        )
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"{where}: `implementation` must be None or one of {names}, got "
            f"{implementation!r}."
        )
    return IMPLEMENTATIONS[implementation]
