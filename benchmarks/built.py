"""What a peer makes of a case."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

LEARNING_RATE = 1e-4

RESET_AFTER = "reset after the product"


class LeftOutError(Exception):
    """Raised by a peer that lacks what a case needs; its message is the reason."""


@dataclasses.dataclass(frozen=True)
class Variant:
    """One configuration of a peer, ready to run.

    Attributes:
        run: Makes one call, waits until it is done, and returns its results.
        read: From the results of `run` to named arrays in TensorFlow's layout.
        facts: Numbers known without running: bytes of memory, seconds of compilation.
        function: The JAX function that `run` calls compiled; None for other libraries.
        args: Its arguments.
    """

    run: Callable[[], Any]
    read: Callable[[Any], dict[str, np.ndarray]]
    facts: dict[str, float] = dataclasses.field(default_factory=dict)
    function: Callable[..., Any] | None = None
    args: tuple = ()


@dataclasses.dataclass(frozen=True)
class Built:
    """A peer on a case: its configurations by name; the fastest is raced.

    Attributes:
        variants: Makes each of them; the first is what a user has who chooses nothing.
        equation: How its equations differ from TensorFlow's; empty if they do not.
    """

    variants: dict[str, Callable[[], Variant]]
    equation: str = ""
