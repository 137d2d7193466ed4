"""What a peer makes of a case."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

LEARNING_RATE = 1e-4

RESET_AFTER = "reset after the product"


class LeftOutError(Exception):
    """Raised by a peer that does not have what a case asks for; says why."""


@dataclasses.dataclass(frozen=True)
class Variant:
    """One configuration of a peer, ready to run.

    Attributes:
        run: Makes one call and returns, when it is done, what it computed.
        read: From what `run` returned to named arrays in TensorFlow's layout; None for
            what computes nothing to compare.
        facts: Numbers known without running: bytes of memory, seconds of compilation.
    """

    run: Callable[[], Any]
    read: Callable[[Any], dict[str, np.ndarray]] | None
    facts: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Built:
    """A peer on a case: its configurations by name, of which the fastest will race.

    Attributes:
        variants: At least one.
        equation: How what it computes differs from TensorFlow's; empty if it does not.
    """

    variants: dict[str, Variant]
    equation: str = ""
