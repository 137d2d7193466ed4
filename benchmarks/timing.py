"""Measures the duration of calls."""

import statistics
import time
from collections.abc import Callable
from typing import Any


def measure(run: Callable[[], Any], seconds: float) -> float:
    """The median milliseconds of a call, over enough calls to fill `seconds`."""
    return statistics.median(back_to_back(run, seconds))


def back_to_back(run: Callable[[], Any], seconds: float) -> list[float]:
    """The milliseconds of each call, for enough calls to fill `seconds`.

    The first call wakes the threads and fills the caches, so it does not count. If it
    takes `seconds` or longer, the warm-up is negligible and the call counts.
    """
    _, first = timed(run)
    times = [first] if first >= seconds else []
    while sum(times) < seconds:
        times.append(timed(run)[1])
    return [1e3 * one for one in times]


def after_pauses(run: Callable[[], Any], pause: float, calls: int) -> list[float]:
    """The milliseconds of each call, for calls after a pause of so many seconds.

    Before the first call, other processes have filled the caches, so it does not count.
    """
    run()
    times = []
    for _ in range(calls):
        time.sleep(pause)
        times.append(1e3 * timed(run)[1])
    return times


def timed(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, float]:
    """The result of a call and its duration in seconds."""
    start = time.perf_counter()
    result = function(*args, **kwargs)
    return result, time.perf_counter() - start
