"""One case: every strategy compiles; those that fit run, in turn, round after round."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from ..process import PeerProcess
from ..race import wait_for_quiet
from .cases import Case

Result = dict[str, Any]
Tick = Callable[[str], None]

LONG_MS = 5000  # A first call that is this long is as good as any other.


class DiedError(Exception):
    """The worker's process ended while a strategy was its business."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name = name


def start_worker() -> PeerProcess:
    """A process of its own, so that a case begins with empty memory."""
    return PeerProcess("memory", module="benchmarks.memory.worker")


def run_case(case: Case, names: list[str], limit: float, tick: Tick) -> Result:
    """What came of a case: for each strategy its memory, its times, or why it has none.

    A strategy that takes the process down with it is left out, and the others start
    again without it.

    Args:
        case: The case.
        names: The strategies; gradients are compared with those of the first that runs.
        limit: The bytes that a program may take.
        tick: Called as `tick(what)` before each part of the work.
    """
    died: dict[str, Result] = {}
    while True:
        alive = [name for name in names if name not in died]
        worker = start_worker()
        try:
            result = _Attempt(case, worker, limit, tick).run(alive)
        except DiedError as error:
            died[error.name] = {"failed": str(error)}
        else:
            result["strategies"] = {
                name: died.get(name) or result["strategies"][name] for name in names
            }
            return result
        finally:
            worker.close()


@dataclasses.dataclass
class _Attempt:
    """A case in one process; results fill `strategies`."""

    case: Case
    worker: PeerProcess
    limit: float
    tick: Tick

    def run(self, names: list[str]) -> Result:
        """All of it."""
        self.strategies: dict[str, Result] = {name: {} for name in names}
        busy: list[float] = []
        begun = self.worker.ask("begin", case=self.case.as_dict())
        if "failed" in begun:
            self.strategies = {name: dict(begun) for name in names}
            names = []
        for name in names:
            self._ask("compile", name)
        self._leave_out()
        for name in self._by_size():
            self._first(name)
        if running := self._running():
            self._compare(running[0])
            busy = self._rounds(running)
        return {
            "name": self.case.name,
            "case": self.case.as_dict(),
            "busy": busy,
            "strategies": self.strategies,
        }

    def _ask(self, do: str, name: str) -> Result:
        """What the worker knows of a strategy; adds to its result what failed."""
        self.tick(f"{self.case.name}: {name}")
        answer = self.worker.ask(do, name=name)
        if answer.get("died"):
            raise DiedError(name, answer["failed"])
        if do == "compile" or "failed" in answer:
            self.strategies[name].update(answer)
        if "failed" in answer:
            self.worker.ask("drop", name=name)
        return answer

    def _running(self) -> list[str]:
        reasons = ("failed", "left_out", "same_as")
        return [
            name
            for name, result in self.strategies.items()
            if not any(reason in result for reason in reasons)
        ]

    def _leave_out(self) -> None:
        """Programs that are too large, or another one's very own."""
        seen: dict[str, str] = {}
        for name in self._running():
            result = self.strategies[name]
            first = seen.setdefault(result["program"], name)
            if first != name:
                result["same_as"] = first
            elif (needs := _bytes(result)) > self.limit:
                result["left_out"] = (
                    f"needs {needs / 1e9:.3g} GB, more than {self.limit / 1e9:.3g} GB"
                )
            if "left_out" in result or "same_as" in result:
                self.worker.ask("drop", name=name)

    def _by_size(self) -> Iterable[str]:
        """From the smallest: a peak that the device tells is that of the largest."""
        return sorted(
            self._running(), key=lambda name: self.strategies[name]["temp_bytes"]
        )

    def _first(self, name: str) -> None:
        answer = self._ask("first", name)
        if "failed" not in answer:
            peak = answer["peak_bytes"]
            self.strategies[name] |= {"first_ms": answer["ms"], "peak_bytes": peak}

    def _compare(self, reference: str) -> None:
        differences = self.worker.ask("differences", reference=reference)
        for name in self._running():
            result = self.strategies[name]
            result |= {
                "reference": reference,
                "difference": differences[name],
                "ms": [],
            }

    def _rounds(self, running: list[str]) -> list[float]:
        """Times all that run, and returns how busy others kept the machine."""
        firsts = [self.strategies[name]["first_ms"] for name in running]
        done = int(min(firsts) >= LONG_MS)
        for name, first in zip(running, firsts, strict=True):
            self.strategies[name]["ms"] = [first] * done
        busy = []
        for number in range(done, self.case.rounds):
            busy.append(wait_for_quiet())
            begin = number % len(running)
            for name in running[begin:] + running[:begin]:
                self._time(name)
        return busy

    def _time(self, name: str) -> None:
        result = self.strategies[name]
        if "failed" in result:
            return
        answer = self._ask("time", name)
        if "failed" not in answer:
            result["ms"].append(answer["ms"])


def _bytes(result: Result) -> int:
    return sum(result[f"{what}_bytes"] for what in ("temp", "argument", "output"))
