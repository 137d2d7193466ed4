"""A peer's configurations for a case."""

import dataclasses
from collections.abc import Callable, Sequence
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
        facts: Numbers known without running: bytes of memory, seconds of compilation.
        bytes: The memory that a call needs, with its arguments and results.
        function: The JAX function that `run` compiles; None for other libraries.
        args: The arguments of `function`.
    """

    run: Callable[[], Any]
    read: Callable[[Any], dict[str, np.ndarray]]
    facts: dict[str, float] = dataclasses.field(default_factory=dict)
    bytes: int = 0
    function: Callable[..., Any] | None = None
    args: tuple = ()


@dataclasses.dataclass(frozen=True)
class Built:
    """The configurations of a peer for one case; the fastest one races.

    Attributes:
        variants: By name, functions that build a configuration. The first one is the
            peer's default.
        equation: How the peer's equations differ from TensorFlow's; empty if they are
            the same.
        nets: What the variants of a JAX peer compile, in their order.
    """

    variants: dict[str, Callable[[], Variant]]
    equation: str = ""
    nets: Sequence[Any] = ()
