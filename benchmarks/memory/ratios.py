"""From a case's results to what is shown: ratios to what the derivative keeps."""

from typing import Any

import numpy as np

from ..ratios import Spread
from .strategies import KEEP

Result = dict[str, Any]


def resolve(row: Result, name: str) -> Result:
    """A strategy's result; where its program is another one's, that one's."""
    result = row["strategies"].get(name, {})
    return resolve(row, result["same_as"]) if "same_as" in result else result


def times(row: Result, name: str) -> np.ndarray:
    """The milliseconds of each round; empty if it did not run to the end."""
    result = resolve(row, name)
    return np.array([] if "failed" in result else result.get("ms", []))


def time_ratio(row: Result, name: str) -> Spread | None:
    """The time by that of `KEEP` in the same round; None if one of the two has none."""
    ours, keep = times(row, name), times(row, KEEP)
    if not len(ours) or not len(keep):
        return None
    low, median, high = np.percentile(ours / keep, (25, 50, 75))
    return Spread(float(median), float(low), float(high))


def memory_ratio(row: Result, name: str) -> float | None:
    """The temporary memory on the device by that of `KEEP`."""
    ours, keep = (temp_mib(row, which) for which in (name, KEEP))
    return ours / keep if ours is not None and keep else None


def temp_mib(row: Result, name: str, where: str = "temp_bytes") -> float | None:
    """Temporary memory of the program; None if it could not be compiled."""
    size = resolve(row, name).get(where)
    return None if size is None else size / 2**20
