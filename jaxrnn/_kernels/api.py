"""The implementations that users can name."""

import importlib
from typing import Any

from .._base.errors import describe
from .implementation import Implementation
from .machines import MACHINES

# The class of each `implementation` of a driver, in the module of that name, imported
# on first use. None has been measured on its hardware yet, so none is a default.
KERNELS = {
    "pallas_mosaic_tpu": "PallasMosaicTPU",
    "pallas_triton": "PallasTriton",
    "cudnn": "Cudnn",
}
NAMES = ("xla", *KERNELS)


def as_implementation(where: str, implementation: Any) -> Implementation | None:
    """The `Implementation` of that name, or None for XLA's loop.

    Args:
        where: The calling function, for messages.
        implementation: A name, with or without a machine after a colon; None for the
            best that is known; or an `Implementation`, for those who tune or test one.

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
    named = make(name)
    return _on(where, named, machine) if colon else named


def make(name: str) -> Implementation:
    """The implementation of that name, one of `KERNELS`."""
    return getattr(importlib.import_module(f".{name}", __package__), KERNELS[name])()


def _on(where: str, named: Implementation, machine: str) -> Implementation:
    known = [m for m in MACHINES.values() if m.platform == named.platform]
    for each in known:
        if each.name == machine:
            return named.on(each)
    raise ValueError(
        f"{where}: `implementation` '{named.name}:{machine}' names no machine of "
        f"{named.platform}: {', '.join(m.name for m in known)}."
    )
