"""Recomputing what would have been saved, one segment of steps at a time."""

import dataclasses
import math

from .._base.arguments import as_count
from ._strategy import CheckpointPlan, Strategy


@dataclasses.dataclass(frozen=True, repr=False)
class Recompute(Strategy):
    """The states between segments are saved; the backward pass reruns each segment.

    With segments of about the square root of the number of steps, the saved states and
    one segment are of equal size: an LSTM over 10,000 steps saves a thirtieth of what
    `Keep` does. It costs one more forward pass.

    Attributes:
        chunk: The number of steps in a segment; 1 saves every state, and None (the
            default) takes about the square root of the number of steps, a divisor of
            it if one is near.

    Raises:
        TypeError: If `chunk` is not an int.
        ValueError: If `chunk` is less than 1.

    Source: arXiv:1604.06174, section 4.
    """

    chunk: int | None = None

    def __post_init__(self) -> None:
        if self.chunk is not None:
            as_count("Recompute", "chunk", self.chunk)

    def plan(self, time: int) -> CheckpointPlan:
        """Segments of one size."""
        return CheckpointPlan((self.chunk or _near_root(time),))


def _near_root(time: int) -> int:
    """About the square root: if possible such that there is no remainder.

    A remainder is compiled separately.
    """
    root = max(1, round(math.sqrt(time)))
    near = sorted(
        range(root - root // 4, root + root // 4 + 1), key=lambda k: abs(k - root)
    )
    return next((k for k in near if time % k == 0), root)
