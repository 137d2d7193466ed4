"""How long a call takes."""

import statistics
import time
from collections.abc import Callable
from typing import Any


def measure(run: Callable[[], Any], seconds: float) -> float:
    """The median milliseconds of a call, over as many calls as take `seconds`.

    The first call, which wakes the threads and fills the caches, does not count unless
    it takes `seconds` by itself: then the warm-up is negligible.
    """
    _, first = timed(run)
    times = [first] if first >= seconds else []
    while sum(times) < seconds:
        times.append(timed(run)[1])
    return 1e3 * statistics.median(times)


def timed(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, float]:
    """The result of a call and the seconds that it took."""
    start = time.perf_counter()
    result = function(*args, **kwargs)
    return result, time.perf_counter() - start
