"""The race: all peers time the same case in turn, round after round."""

import time
from collections.abc import Callable
from typing import Any

from .cases import Case
from .machine import BUSY, busy_while
from .peers import OURS
from .process import PeerProcess
from .results import deviation

PAUSE_S = 0.02  # OpenMP's threads look for work for a while before they sleep.
LOOK_S, LOOKS = 0.2, 10
SCALING_PEERS = (OURS, "scan")


def run_case(
    case: Case,
    peers: dict[str, PeerProcess],
    rounds: int,
    tick: Callable[[str], None],
) -> dict[str, Any]:
    """What came of a case: for each peer its times in milliseconds, and what it ran.

    Calls `tick(what)` before each of `len(peers) + rounds` parts of the work.

    Raises:
        RuntimeError: If our own code fails: there is nothing to compare with then.
    """
    results: dict[str, dict[str, Any]] = {}
    for name, peer in peers.items():
        tick(f"{case.name}: {name} compiles")
        results[name] = _prepare(case, peer)
    agree(results, case.tolerance)
    running = [name for name in peers if "variant" in results[name]]
    busy = []
    for number in range(rounds):
        tick(case.name)
        busy.append(wait_for_quiet())
        for name in _rotated(running, number):
            _time(peers[name], results[name])
            time.sleep(PAUSE_S)
    for name in running:
        peers[name].ask("drop")
    return {
        "name": case.name,
        "case": case.as_dict(),
        "busy": busy,
        "peers": results,
    }


def wait_for_quiet() -> float:
    """How busy others keep the machine while our peers sleep; waits a little."""
    for _ in range(LOOKS):
        share = busy_while(lambda: time.sleep(LOOK_S))
        if not share > BUSY:
            break
    return share


def _prepare(case: Case, peer: PeerProcess) -> dict[str, Any]:
    if case.group == "scaling" and peer.name not in SCALING_PEERS:
        return {"left_out": "not part of the scaling tables"}
    return _unless_ours_failed(peer, peer.ask("prepare", case=case.as_dict()))


def _time(peer: PeerProcess, result: dict[str, Any]) -> None:
    """Adds a round's time to the result; a peer that failed has no times at all."""
    if "failed" in result:
        return
    answer = _unless_ours_failed(peer, peer.ask("time"))
    if "failed" in answer:
        result.clear()
        result.update(answer)
    else:
        result.setdefault("ms", []).append(answer["ms"])


def _unless_ours_failed(peer: PeerProcess, answer: dict[str, Any]) -> dict[str, Any]:
    if peer.name == OURS and "failed" in answer:
        raise RuntimeError(f"{OURS} failed: {answer['failed']}")
    return answer


def _rotated(names: list[str], by: int) -> list[str]:
    by %= max(len(names), 1)
    return names[by:] + names[:by]


def agree(results: dict[str, dict[str, Any]], tolerance: float) -> None:
    """Writes to each peer's result how far its numbers are from the reference's.

    The reference is the first peer, in the order of `results`, with the same equation:
    ours for all that compute TensorFlow's.
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
