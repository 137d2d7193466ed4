"""A peer's configurations for a case."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np


class LeftOutError(Exception):
    """Raised if a peer does not support a case; the message is the reason."""


@dataclasses.dataclass(frozen=True)
class Variant:
    """One configuration of a peer, ready to run.

    Attributes:
        run: Makes one call, waits until it is done, and returns its results.
        read: Converts the results of `run` to named arrays in TensorFlow's layout.
        facts: Numbers known without running, such as bytes of memory.
        function: The JAX function that `run` compiles; None for other libraries.
        args: The arguments of `function`.
    """

    run: Callable[[], Any]
    read: Callable[[Any], dict[str, np.ndarray]]
    facts: dict[str, float] = dataclasses.field(default_factory=dict)
    function: Callable[..., Any] | None = None
    args: tuple = ()


# By name, functions that build a peer's configurations for a case. The first one is the
# peer's default; in a race, the fastest one runs.
Variants = dict[str, Callable[[], Variant]]
