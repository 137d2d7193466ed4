"""What every kernel is asked."""

import abc
import dataclasses
from typing import Any, Self

from ._machines import MACHINES, Machine, machine_here
from ._work import Work


@dataclasses.dataclass(frozen=True)
class Kernel(abc.ABC):
    """A way to run the loop of an affine cell on one kind of machine.

    Attributes:
        machine: The machine that it is made for; None for the likeliest.
    """

    machine: str | None = None

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """What users call it."""

    @property
    @abc.abstractmethod
    def platform(self) -> str:
        """What it runs on, as JAX calls it: "tpu" or "cuda"."""

    def on(self, machine: Machine) -> Self:
        """The same, made for another machine of its platform."""
        return dataclasses.replace(self, machine=machine.name)

    def made_for(self, likeliest: str) -> Machine:
        """The machine given, or the one that JAX runs on, or else the likeliest."""
        if self.machine is not None:
            return MACHINES[self.machine]
        here = machine_here()
        if here is not None and here.platform == self.platform:
            return here
        return MACHINES[likeliest]

    @abc.abstractmethod
    def declines(self, work: Work) -> str | None:
        """Why it cannot run that work, if it cannot."""

    @abc.abstractmethod
    def says(self, work: Work) -> str:
        """How it would run that work, which it does not decline."""

    @abc.abstractmethod
    def rule(self, cell: Any, history: bool) -> Any:
        """How the sequences of a cell are run by it, a `Rule`."""

    def __str__(self) -> str:
        return repr(self.name)
