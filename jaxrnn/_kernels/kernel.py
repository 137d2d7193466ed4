"""What every Pallas kernel provides beside what every implementation does."""

import abc
import dataclasses
from typing import Any

from .._base.typing import Array, Params, PyTree
from .implementation import Implementation
from .machines import MACHINES, machine_of
from .operands import BackwardOperands, ForwardOperands
from .work import Work


@dataclasses.dataclass(frozen=True)
class Kernel(Implementation):
    """The forward and the backward loop of an affine cell, each in one kernel.

    Attributes:
        interpret: Whether Pallas's interpreter runs it, on any device; True or
            parameters of the interpreter.
    """

    interpret: Any = dataclasses.field(default=False, kw_only=True)

    @abc.abstractmethod
    def forward(
        self, work: Work, operands: ForwardOperands, types: PyTree
    ) -> tuple[PyTree, PyTree]:
        """The forward loop.

        Args:
            work: The cell and the sizes.
            operands: What it reads.
            types: Those of the results of a step, `(output, saved)`, each leaf
                `[batch, size]`; `saved` is `(zs, state)`, or `()`.

        Returns:
            `(output, saved)` of all steps, `[time, batch, size]`, and the final state.
        """

    @abc.abstractmethod
    def backward(
        self, work: Work, operands: BackwardOperands
    ) -> tuple[list[Array], PyTree, Params]:
        """The backward loop.

        Args:
            work: The cell and the sizes.
            operands: What it reads.

        Returns:
            The cotangents of the products, `[time, batch, columns]`, of the initial
            state, `[batch, size]`, and of the elementwise parameters.
        """

    @property
    def _memory(self) -> int:
        """The bytes of memory next to the arithmetic units."""
        named = MACHINES.get(self.machine or "")
        return (named or machine_of(self.platform)).memory
