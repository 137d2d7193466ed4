"""From the times of the rounds to ratios."""

import dataclasses
from typing import Any

import numpy as np

from .peers import OURS


@dataclasses.dataclass(frozen=True)
class Spread:
    """The median of per-round ratios, and their quartiles."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


def ratio(result: dict[str, Any], peer: str, to: str = OURS) -> Spread | None:
    """The peer's time by that of `to` in a case; None if one of them did not run."""
    ours, theirs = (times(result, name) for name in (to, peer))
    if not len(ours) or not len(theirs):
        return None
    low, median, high = np.percentile(theirs / ours, (25, 50, 75))
    return Spread(float(median), float(low), float(high))


def inverse(spread: Spread) -> Spread:
    """Our time by the peer's."""
    return Spread(1 / spread.median, 1 / spread.high, 1 / spread.low)


def times(result: dict[str, Any], peer: str) -> np.ndarray:
    """The peer's milliseconds in each round; empty if it did not run."""
    return np.array(result["peers"].get(peer, {}).get("ms", []))


def median_ms(result: dict[str, Any], peer: str) -> float:
    """The median of the peer's rounds."""
    return float(np.median(times(result, peer)))
