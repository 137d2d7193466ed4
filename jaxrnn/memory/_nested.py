"""Chunks of chunks."""

import dataclasses
import math

from .._base.arguments import as_count
from ._strategy import Record, Strategy

_FIX = "Two halves are the least that makes sense."


@dataclasses.dataclass(frozen=True, repr=False)
class Nested(Strategy):
    """Chunks of chunks of steps: states of the order of the logarithm of their number.

    Of a chunk the states between its `branches` parts are made when it is gone back,
    and so on down to a few steps. Each level costs the run forward once more, and time
    to compile.

    Attributes:
        branches: How many parts a chunk has, 2 at least.

    Raises:
        TypeError: If `branches` is not an int.
        ValueError: If `branches` is less than 2.

    Source: arXiv:1604.06174, section 4.
    """

    branches: int = 8

    def __post_init__(self) -> None:
        as_count("Nested", "branches", self.branches, least=2, fix=_FIX)

    def record(self, time: int) -> Record:
        """One window for each level, `branches` times the size of the next."""
        levels = max(1, round(math.log(time, self.branches)) - 1)
        innermost = -(-time // self.branches**levels)
        powers = reversed(range(levels))
        return Record(tuple(innermost * self.branches**power for power in powers))
