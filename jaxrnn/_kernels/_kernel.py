"""What every kernel is asked."""

import abc
import dataclasses
from typing import Any, Self

from .._typing import Array, Params, PyTree
from ._machines import MACHINES, Machine, machine_of
from ._operands import Backward, Forward
from ._rule import KernelRule
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

    @abc.abstractmethod
    def declines(self, work: Work) -> str | None:
        """Why it cannot run that work, if it cannot."""

    @abc.abstractmethod
    def says(self, work: Work) -> str:
        """How it would run that work, which it does not decline."""

    @abc.abstractmethod
    def forward(self, work: Work, given: Forward, types: PyTree) -> PyTree:
        """The loop forward.

        Args:
            work: The cell and the sizes.
            given: What it reads.
            types: Of what is put out at each step, `(output, kept)`, as arrays
                `[batch, size]`; `kept` is `(zs, state)`, or `()`.

        Returns:
            `(output, kept)` of all steps, `[time, batch, size]`, and the final state.
        """

    @abc.abstractmethod
    def backward(
        self, work: Work, given: Backward
    ) -> tuple[list[Array], PyTree, Params]:
        """The loop backward: the cotangents of `(zs, state, small)`.

        Args:
            work: The cell and the sizes.
            given: What it reads.
        """

    def rule(self, cell: Any, history: bool) -> KernelRule:
        """How the sequences of a cell are run by it."""
        return KernelRule(cell, history, self)

    @property
    def _memory(self) -> int:
        """The bytes that there are next to the arithmetic."""
        named = MACHINES.get(self.machine or "")
        return (named or machine_of(self.platform)).memory

    def __str__(self) -> str:
        return repr(self.name)
