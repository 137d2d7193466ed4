"""Making again what would have been kept, a chunk of steps at a time."""

import dataclasses
import math

from .._base.arguments import as_count
from ._strategy import Record, Strategy


@dataclasses.dataclass(frozen=True, repr=False)
class Recompute(Strategy):
    """The states between chunks are kept; a chunk is run again when it is gone back.

    With chunks of about the square root of the number of steps, states and chunk are of
    one size: an LSTM over 10,000 steps keeps a thirtieth of what `Keep` does. It costs
    the run forward once more.

    Attributes:
        chunk: The number of steps in a chunk; 1 keeps every state, and None (the
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

    def record(self, time: int) -> Record:
        """One window a chunk."""
        return Record((self.chunk or _near_root(time),))


def _near_root(time: int) -> int:
    """About the square root: if possible such that nothing is left over.

    What is left over is compiled by itself.
    """
    root = max(1, round(math.sqrt(time)))
    near = sorted(
        range(root - root // 4, root + root // 4 + 1), key=lambda k: abs(k - root)
    )
    return next((k for k in near if time % k == 0), root)
