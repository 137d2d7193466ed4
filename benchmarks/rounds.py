"""A race: in each round, all contestants time the same case in turn."""

import contextlib
import dataclasses
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from .cases import Case
from .machine import BUSY, busy_while
from .process import Process
from .results import deviation

PAUSE_S = 0.02  # OpenMP's threads spin for a while before they sleep.
LOAD_S = 0.2  # The time until the scheduler has moved the threads.
LOOK_S, LOOKS = 0.2, 10
# It ends by itself if its parent is gone.
LOAD = """
import os
parent = os.getppid()
while os.getppid() == parent:
    sum(range(10_000))
"""

Result = dict[str, Any]


def run_case(
    case: Case,
    peers: Mapping[str, Process],
    rounds: Mapping[str, int],
    tolerance: float | None = None,
    **prepare: Any,
) -> Result:
    """The result of a case: each peer's measurements in each round, and more.

    Args:
        case: The case.
        peers: The processes by name.
        rounds: The number of rounds of each measurement (a method of `Worker`).
        tolerance: Replaces the case's tolerance.
        prepare: Further arguments of `Worker.prepare`.
    """
    fields = dataclasses.asdict(case)
    results = {
        name: peer.ask("prepare", case=fields, **prepare)
        for name, peer in peers.items()
    }
    agree(results, tolerance or case.tolerance)
    names = [name for name in peers if "variant" in results[name]]
    busy = []
    for do, number in rounds.items():
        for turn in range(number):
            busy.append(wait_for_quiet())
            first = turn % max(len(names), 1)
            with one_core_taken() if do == "under_load" else contextlib.nullcontext():
                for name in [*names[first:], *names[:first]]:
                    _measure(peers[name], do, results[name])
                    time.sleep(PAUSE_S)
    for name in names:
        peers[name].ask("drop")
    return {"name": case.name, "case": fields, "busy": busy, "peers": results}


@contextlib.contextmanager
def one_core_taken() -> Iterator[subprocess.Popen]:
    """Let another process compute on one core."""
    process = subprocess.Popen([sys.executable, "-c", LOAD])
    try:
        time.sleep(LOAD_S)
        yield process
    finally:
        process.kill()
        process.wait()


def _measure(peer: Process, do: str, result: Result) -> None:
    """Add a round to the result; if the peer fails, discard its earlier rounds."""
    if "failed" in result:
        return
    answer = peer.ask(do)
    if "failed" in answer:
        result.clear()
        result.update(answer)
    else:
        for name, value in answer.items():
            result.setdefault(name, []).append(value)


def wait_for_quiet() -> float:
    """Wait a little while other programs are busy, and return their last share."""
    for _ in range(LOOKS):
        share = busy_while(lambda: time.sleep(LOOK_S))
        if not share > BUSY:
            break
    return share


def agree(results: Mapping[str, Result], tolerance: float) -> None:
    """Replace each peer's checksums with their deviation from a reference's.

    The reference is the first peer in `results` with the same equation. For peers with
    TensorFlow's equations, it is jaxrnn.
    """
    references: dict[str, tuple[str, Any]] = {}
    for name, result in results.items():
        sums = result.pop("sums", None)
        if sums is not None:
            first, expected = references.setdefault(result["equation"], (name, sums))
            far = deviation(sums, expected)
            result["agreement"] = {
                "reference": None if first == name else first,
                "deviation": far,
                "same": bool(far <= tolerance),
            }
