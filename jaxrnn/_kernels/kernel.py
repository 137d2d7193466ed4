"""What every kernel is asked beside what every implementation is."""

import abc
import dataclasses
from typing import Any

from .._base.typing import Array, Params, PyTree
from .implementation import Implementation
from .machines import MACHINES, machine_of
from .operands import Backward, Forward
from .rule import KernelRule
from .work import Work


@dataclasses.dataclass(frozen=True)
class Kernel(Implementation):
    """A way to run the loop of an affine cell, forward and backward.

    Attributes:
        interpret: Whether it is run by Pallas's interpreter, on any device; True or
            parameters of the interpreter.
    """

    interpret: Any = dataclasses.field(default=False, kw_only=True)

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

    def rule(self, cell: Any) -> KernelRule:
        """How the sequences of a cell are run by it."""
        return KernelRule(cell, self)

    @property
    def _memory(self) -> int:
        """The bytes that there are next to the arithmetic."""
        named = MACHINES.get(self.machine or "")
        return (named or machine_of(self.platform)).memory
