"""What every implementation of whole sequences is asked."""

import abc
import dataclasses
from typing import Any, ClassVar, Self

from .._affine.xla_loop import Rule
from .machines import Machine
from .work import Work


@dataclasses.dataclass(frozen=True)
class Implementation(abc.ABC):
    """A way to run the sequences of affine cells on one kind of machine.

    Attributes:
        name: What users call it.
        platform: What it runs on, as JAX calls it: "tpu" or "cuda".
        machine: The machine that it is made for; None for the likeliest.
    """

    name: ClassVar[str]
    platform: ClassVar[str]
    machine: str | None = None

    def on(self, machine: Machine) -> Self:
        """The same, made for another machine of its platform."""
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
    def rule(self, cell: Any, history: bool) -> Rule:
        """How the sequences of a cell are run by it.

        `rule.check(params, xs, state, steps)` raises `DeclinedError` with the reason,
        if it cannot serve where the program is traced.
        """

    def __str__(self) -> str:
        return repr(self.name)
