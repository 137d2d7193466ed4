"""Segments within segments."""

import dataclasses
import math

from .._base.arguments import as_count
from ._strategy import CheckpointPlan, Strategy

_FIX = "Two halves are the least that makes sense."


@dataclasses.dataclass(frozen=True, repr=False)
class Nested(Strategy):
    """Segments within segments: saved states grow with the logarithm of the steps.

    The backward pass over a segment recomputes the states between its `branches`
    parts, and so on down to a few steps. Each level costs one more forward pass, and
    time to compile.

    Attributes:
        branches: The number of parts of a segment, at least 2.

    Raises:
        TypeError: If `branches` is not an int.
        ValueError: If `branches` is less than 2.

    Source: arXiv:1604.06174, section 4.
    """

    branches: int = 8

    def __post_init__(self) -> None:
        as_count("Nested", "branches", self.branches, least=2, fix=_FIX)

    def plan(self, time: int) -> CheckpointPlan:
        """One size of segment for each level, `branches` times the next."""
        levels = max(1, round(math.log(time, self.branches)) - 1)
        innermost = -(-time // self.branches**levels)
        powers = reversed(range(levels))
        return CheckpointPlan(tuple(innermost * self.branches**p for p in powers))
