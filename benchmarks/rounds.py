"""A race: in each round, all contestants time the same case in turn."""

import dataclasses
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .cases import TOLERANCE, Case
from .machine import BUSY, busy_while
from .process import Process
from .results import deviation

PAUSE_S = 0.02  # OpenMP's threads spin for a while before they sleep.
LOOK_S, LOOKS = 0.2, 10

Result = dict[str, Any]
Rounds = dict[str, list[float]]


def run_case(
    case: Case,
    peers: Mapping[str, Process],
    rounds: Mapping[str, int],
    choose: bool = False,
    tolerance: float = TOLERANCE,
) -> Result:
    """The result of a case: each peer's numbers over all rounds, and more.

    Args:
        case: The case.
        peers: The processes by name.
        rounds: The number of rounds of each measurement (a method of `Worker`).
        choose: Whether a peer runs the fastest of its variants, not the first.
        tolerance: Results count as equal up to this deviation.
    """
    fields = dataclasses.asdict(case)
    results = {
        name: peer.ask("prepare", case=fields, choose=choose)
        for name, peer in peers.items()
    }
    agree(results, tolerance)
    names = [name for name in peers if "variant" in results[name]]
    measured: dict[str, Rounds] = {name: {} for name in names}
    busy = []
    for do, number in rounds.items():
        for turn in range(number):
            busy.append(wait_for_quiet() > BUSY)
            first = turn % max(len(names), 1)
            for name in [*names[first:], *names[:first]]:
                _measure(peers[name], do, results[name], measured[name])
                time.sleep(PAUSE_S)
    for name in names:
        peers[name].ask("drop")
    summarize(results, measured)
    row = {"name": case.name, "case": fields, "rounds": len(busy), "busy": sum(busy)}
    return row | {"peers": results}


def _measure(peer: Process, do: str, result: Result, measured: Rounds) -> None:
    """Add a round; if the peer fails, discard its earlier rounds."""
    if "failed" in result:
        return
    answer = peer.ask(do)
    if "failed" in answer:
        result.clear()
        result.update(answer)
    else:
        for name, value in answer.items():
            measured.setdefault(name, []).append(value)


def summarize(results: Mapping[str, Result], measured: Mapping[str, Rounds]) -> None:
    """Replace each peer's facts with `numbers`, and `ratios` to the first peer's.

    The numbers are facts, which are known without running, or those of the rounds.
    The ratios are taken in each round. Both are `spread`s.
    """
    numbers = {
        name: {key: [value] for key, value in result.pop("facts", {}).items()}
        | ({} if "failed" in result else measured.get(name, {}))
        for name, result in results.items()
    }
    first = next(iter(numbers.values()), {})
    for name, found in numbers.items():
        shared = [key for key in found if key in first]
        ratios = {key: spread(np.divide(found[key], first[key])) for key in shared}
        spreads = {key: spread(found[key]) for key in found}
        results[name] |= {"numbers": spreads, "ratios": ratios} if found else {}


def spread(values: Iterable[float]) -> list[float]:
    """The least value, the quartiles and the largest value."""
    return np.percentile(values, (0, 25, 50, 75, 100)).tolist()


def wait_for_quiet() -> float:
    """Wait a little while other programs are busy, and return their last share."""
    for _ in range(LOOKS):
        share = busy_while(lambda: time.sleep(LOOK_S))
        if not share > BUSY:
            break
    return share


def agree(results: Mapping[str, Result], tolerance: float) -> None:
    """Replace each peer's checksums with their deviation from the first peer's."""
    reference: tuple[str, Any] | None = None
    for name, result in results.items():
        sums = result.pop("sums", None)
        if sums is not None:
            first, expected = reference = reference or (name, sums)
            far = deviation(sums, expected)
            result["agreement"] = {
                "reference": None if first == name else first,
                "deviation": far,
                "same": bool(far <= tolerance),
            }
