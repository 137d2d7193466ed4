"""From the times of the rounds to ratios."""

import dataclasses
from typing import Any

import numpy as np

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Spread:
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray) -> "Spread | None":
        """That of the values of all rounds; None if there are none."""
        if not len(values):
            return None
        low, median, high = np.percentile(values, (25, 50, 75))
        return cls(float(median), float(low), float(high))

    @property
    def inverse(self) -> "Spread":
        """That of 1 by the values."""
        return Spread(1 / self.median, 1 / self.high, 1 / self.low)

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


def ran(row: Row, name: str) -> Row:
    """The result of a peer, or of a strategy, in a case; empty if there is none.

    A strategy whose program equals another's has the other's result.
    """
    results = row["peers"] if "peers" in row else row["strategies"]
    result = results.get(name, {})
    return ran(row, result["same_as"]) if "same_as" in result else result


def times(row: Row, name: str) -> np.ndarray:
    """The milliseconds in each round; empty if it did not run, or failed."""
    result = ran(row, name)
    return np.array([] if "failed" in result else result.get("ms", []))


def time(row: Row, name: str) -> Spread | None:
    """The milliseconds; None if it did not run."""
    return Spread.of(times(row, name))


def ratio(row: Row, name: str, to: str) -> Spread | None:
    """The time by that of `to` in the same round; None if one of them did not run."""
    ours, theirs = times(row, to), times(row, name)
    return Spread.of(theirs / ours) if len(ours) and len(theirs) else None
