"""Which kernel runs a loop."""

import importlib
from typing import Any

from .._base.errors import describe
from .implementation import Implementation
from .machines import MACHINES

# What a driver takes as `implementation`, and where the kernel is; it is imported when
# it is asked for. None of them has been measured on its hardware yet, so that none is
# chosen by itself.
KERNELS = {
    "pallas_mosaic_tpu": "PallasMosaicTPU",
    "pallas_triton": "PallasTriton",
    "cudnn": "Cudnn",
}
NAMES = ("xla", *KERNELS)


def as_implementation(where: str, implementation: Any) -> Implementation | None:
    """The kernel that an `implementation` names, or None for XLA's loop.

    Args:
        where: The function that asks.
        implementation: A name, with the machine after a colon or without; None for the
            best that is known; or a kernel, for those who tune or test one.

    Raises:
        ValueError: If there is none of that name, or no such machine.
        TypeError: If it is none of these.
    """
    if implementation is None or isinstance(implementation, Implementation):
        return implementation
    if not isinstance(implementation, str):
        raise TypeError(
            f"{where}: `implementation` must be None or one of {', '.join(NAMES)}, got "
            f"{describe(implementation)}."
        )
    name, colon, machine = implementation.partition(":")
    if name not in NAMES or (colon and name == "xla"):
        raise ValueError(
            f"{where}: `implementation` must be None or one of {', '.join(NAMES)}, got "
            f"{implementation!r}."
        )
    if name == "xla":
        return None
    kernel = make(name)
    return _on(where, kernel, machine) if colon else kernel


def make(name: str) -> Implementation:
    """The kernel of that name, one of `KERNELS`."""
    return getattr(importlib.import_module(f".{name}", __package__), KERNELS[name])()


def _on(where: str, kernel: Implementation, machine: str) -> Implementation:
    known = [m for m in MACHINES.values() if m.platform == kernel.platform]
    for each in known:
        if each.name == machine:
            return kernel.on(each)
    raise ValueError(
        f"{where}: `implementation` '{kernel.name}:{machine}' names no machine of "
        f"{kernel.platform}: {', '.join(m.name for m in known)}."
    )
