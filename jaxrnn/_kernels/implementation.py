"""The implementations of the loop of affine cells: their protocol and their names."""

import abc
import dataclasses
import importlib
from typing import Any, ClassVar, Self

from .._base.errors import describe
from .._base.typing import Array, Params, PyTree
from .._time.steps import Steps
from . import native_calls
from .machines import CPU, MACHINES, Machine
from .work import Work

# The class of each `implementation` of a driver. Each is in the module of that name,
# which is imported on first use. Those for accelerators have not been measured on their
# hardware yet, and run only if they are named.
KERNELS = {
    "pallas_mosaic_tpu": "PallasMosaicTPU",
    "pallas_triton": "PallasTriton",
    "cudnn": "Cudnn",
    "native": "Native",
}
NAMES = ("xla", *KERNELS)


@dataclasses.dataclass(frozen=True)
class Implementation(abc.ABC):
    """A way to run the sequences of affine cells on one kind of machine.

    Attributes:
        name: The name by which users choose it.
        platform: What it runs on, as JAX calls it: "tpu", "cuda" or "cpu".
        is_required: Whether a cell that it cannot run is an error.
        machine: The machine that it is planned for; None for the machine that JAX runs
            on, or else the likeliest of the platform.
    """

    name: ClassVar[str]
    platform: ClassVar[str]
    is_required: ClassVar[bool] = True
    machine: str | None = None

    def on(self, machine: Machine) -> Self:
        """The same, planned for another machine of its platform."""
        return dataclasses.replace(self, machine=machine.name)

    @abc.abstractmethod
    def why_not(self, work: Work) -> str | None:
        """Why it cannot run that work, judging by cell and sizes alone, or None."""

    @abc.abstractmethod
    def how(self, work: Work) -> str:
        """How it would run that work, for which `why_not` is None."""

    def streamed_bytes(self, work: Work) -> int:
        """The bytes of the matrices that every step reads from the large memory."""
        del work
        return 0

    @abc.abstractmethod
    def run_sequences(
        self, cell: Any, params: Params, xs: Array, state: PyTree, steps: Steps
    ) -> tuple[PyTree, PyTree]:
        """`(outputs, state)` of all steps, with derivatives of every order.

        Args:
            cell: An `AffineCell`.
            params: Its parameters.
            xs: Inputs, `[batch, time, depth]` or `[time, batch, depth]`.
            state: The initial state, each leaf `[batch, size]`.
            steps: Which steps there are.

        Raises:
            DeclinedError: If it cannot run them here, with the reason.
        """

    def __str__(self) -> str:
        return repr(self.name)


def as_implementation(where: str, implementation: Any) -> Any:
    """The `Implementation` of that name, None for XLA's loop, or a `Default`.

    Args:
        where: The calling function, for messages.
        implementation: A name, with or without a machine after a colon; None for
            `default()`; or an `Implementation`, to tune or test one.

    Raises:
        ValueError: If no implementation, or no machine of its platform, has that name.
        TypeError: If it is neither None, a string nor an `Implementation`.
    """
    if implementation is None:
        return default()
    if isinstance(implementation, Implementation):
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
    if not colon:
        return named
    machines = (*MACHINES.values(), CPU)
    known = {m.name: m for m in machines if m.platform == named.platform}
    if machine not in known:
        raise ValueError(
            f"{where}: `implementation` '{named.name}:{machine}' names no machine of "
            f"{named.platform}: {', '.join(known)}."
        )
    return named.on(known[machine])


def default() -> Any:
    """What runs if none is named: a `Default`, or None if there is only XLA's loop."""
    if native_calls.why_not_installed():
        return None
    return importlib.import_module(".default", __package__).Default()


def make(name: str) -> Implementation:
    """The implementation of that name, one of `KERNELS`."""
    return getattr(importlib.import_module(f".{name}", __package__), KERNELS[name])()
