"""Measures the duration of calls."""

import statistics
import time
from collections.abc import Callable
from typing import Any


def measure(run: Callable[[], Any], seconds: float) -> float:
    """The median milliseconds of a call, over enough calls to fill `seconds`.

    The first call wakes the threads and fills the caches, so it does not count. If it
    takes `seconds` or longer, the warm-up is negligible and the call counts.
    """
    _, first = timed(run)
    times = [first] if first >= seconds else []
    while sum(times) < seconds:
        times.append(timed(run)[1])
    return 1e3 * statistics.median(times)


def timed(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, float]:
    """The result of a call and its duration in seconds."""
    start = time.perf_counter()
    result = function(*args, **kwargs)
    return result, time.perf_counter() - start
