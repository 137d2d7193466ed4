"""What every implementation of the loop of affine cells provides."""

import abc
import dataclasses
from typing import Any, ClassVar, Self

from .._base.typing import Array, Params, PyTree
from .._time.steps import Steps
from .machines import Machine
from .work import Work


@dataclasses.dataclass(frozen=True)
class Implementation(abc.ABC):
    """A way to run the sequences of affine cells on one kind of machine.

    Attributes:
        name: The name by which users choose it.
        platform: What it runs on, as JAX calls it: "tpu" or "cuda".
        machine: The machine that it is planned for; None for the likeliest.
    """

    name: ClassVar[str]
    platform: ClassVar[str]
    machine: str | None = None

    def on(self, machine: Machine) -> Self:
        """The same, planned for another machine of its platform."""
        return dataclasses.replace(self, machine=machine.name)

    @abc.abstractmethod
    def why_not(self, work: Work) -> str | None:
        """Why it cannot run that work, by the sizes alone, or None."""

    @abc.abstractmethod
    def describe(self, work: Work) -> str:
        """How it would run that work; `why_not` is None."""

    def streamed_bytes(self, work: Work) -> int:
        """The bytes of the matrices that a step reads from the large memory again."""
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
