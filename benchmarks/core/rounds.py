"""A race: all peers time the same case in turn, round after round."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from ..peers import OURS
from .cases import Case
from .machine import BUSY, busy_while
from .process import Peer
from .results import deviation

PAUSE_S = 0.02  # OpenMP's threads look for work for a while before they sleep.
LOOK_S, LOOKS = 0.2, 10
SCALING_PEERS = (OURS, "scan")

Result = dict[str, Any]


def run_case(
    case: Case, peers: dict[str, Peer], rounds: int, tick: Callable[[str], None]
) -> Result:
    """The result of a case: the milliseconds of each peer in each round, and more.

    Calls `tick(what)` before each of `len(peers) + rounds` parts of the work.

    Raises:
        RuntimeError: If jaxrnn itself fails: nothing can be compared then.
    """
    results: dict[str, Result] = {}
    for name, peer in peers.items():
        tick(f"{case.name}: {name} compiles")
        results[name] = _prepare(case, peer)
    agree(results, case.tolerance)
    running = [name for name in peers if "variant" in results[name]]
    busy = in_turn(
        running,
        range(rounds),
        lambda name: _time(peers[name], results[name]),
        lambda: tick(case.name),
    )
    for name in running:
        peers[name].ask("drop")
    return {"name": case.name, "case": case.as_dict(), "busy": busy, "peers": results}


def in_turn(
    names: Sequence[str],
    rounds: Sequence[int],
    run: Callable[[str], None],
    tick: Callable[[], None] = lambda: None,
) -> list[float]:
    """Runs all names in each round; another one is first each time.

    Returns how busy other programs kept the machine before each round.
    """
    busy = []
    for number in rounds:
        tick()
        busy.append(wait_for_quiet())
        first = number % max(len(names), 1)
        for name in [*names[first:], *names[:first]]:
            run(name)
            time.sleep(PAUSE_S)
    return busy


def wait_for_quiet() -> float:
    """How busy other programs keep the machine; waits a little if they do."""
    for _ in range(LOOKS):
        share = busy_while(lambda: time.sleep(LOOK_S))
        if not share > BUSY:
            break
    return share


def _prepare(case: Case, peer: Peer) -> Result:
    if case.group == "scaling" and peer.name not in SCALING_PEERS:
        return {"left_out": "not part of the scaling tables"}
    return _unless_ours_failed(peer, peer.ask("prepare", case=case.as_dict()))


def _time(peer: Peer, result: Result) -> None:
    """Adds a round's time to the result; a peer that fails loses those it has."""
    if "failed" in result:
        return
    answer = _unless_ours_failed(peer, peer.ask("time"))
    if "failed" in answer:
        result.clear()
        result.update(answer)
    else:
        for name, value in answer.items():
            result.setdefault(name, []).append(value)


def _unless_ours_failed(peer: Peer, answer: Result) -> Result:
    if peer.name == OURS and "failed" in answer:
        raise RuntimeError(f"{OURS} failed: {answer['failed']}")
    return answer


def agree(results: dict[str, Result], tolerance: float) -> None:
    """Replaces each peer's sums by how far they are from the reference's.

    The reference is the first peer, in the order of `results`, with the same equation:
    jaxrnn for all that compute TensorFlow's.
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
