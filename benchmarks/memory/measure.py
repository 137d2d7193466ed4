"""One case: every strategy is compiled; those that fit run in turn, in rounds."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from ..core.process import Peer, Process
from ..core.rounds import in_turn
from .cases import Case

Result = dict[str, Any]
Tick = Callable[[str], None]

LONG_MS = 5000  # A first call this long also counts as a round.


class DiedError(Exception):
    """The worker's process ended while it worked on a strategy."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name = name


@contextlib.contextmanager
def worker() -> Iterator[Peer]:
    """A separate process, so that a case begins with empty memory."""
    process = Process("benchmarks.memory.worker")
    try:
        yield Peer("memory", process)
    finally:
        process.close()


def run_case(case: Case, names: list[str], limit: float, tick: Tick) -> Result:
    """The result of a case: each strategy's memory and times, or why it has none.

    If a strategy makes the process die, the case starts again without it. Gradients are
    compared with those of the first strategy that runs. A program may take `limit`
    bytes. Calls `tick(what)` before each part of the work.
    """
    died: dict[str, Result] = {}
    while True:
        alive = [name for name in names if name not in died]
        try:
            with worker() as process:
                result = _Attempt(case, process, limit, tick).run(alive)
        except DiedError as error:
            died[error.name] = {"failed": str(error)}
        else:
            results = result["strategies"] | died
            return result | {"strategies": {name: results[name] for name in names}}


@dataclasses.dataclass
class _Attempt:
    """A case in one process; the results are collected in `strategies`."""

    case: Case
    worker: Peer
    limit: float
    tick: Tick
    strategies: dict[str, Result] = dataclasses.field(default_factory=dict)

    def run(self, names: list[str]) -> Result:
        """Compiles all, runs each once, and times those that run, round after round."""
        busy: list[float] = []
        begun = self.worker.ask("begin", case=self.case.as_dict())
        self.strategies = {name: dict(begun) for name in names}
        for name in self._running():
            self._ask("compile", name)
        self._leave_out()
        # From the smallest: the device reports the peak of the largest so far.
        for name in sorted(self._running(), key=self._temp_bytes):
            self._first(name)
        if running := self._running():
            self._compare(running)
            busy = self._rounds(running)
        return {
            "name": self.case.name,
            "case": self.case.as_dict(),
            "busy": busy,
            "strategies": self.strategies,
        }

    def _ask(self, do: str, name: str) -> Result:
        """The worker's answer about a strategy; a failure is added to its result."""
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
        reasons = {"failed", "left_out", "same_as"}
        return [n for n, r in self.strategies.items() if reasons.isdisjoint(r)]

    def _leave_out(self) -> None:
        """Leaves out programs that are too large, and those that equal another's."""
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

    def _temp_bytes(self, name: str) -> int:
        return self.strategies[name]["temp_bytes"]

    def _first(self, name: str) -> None:
        answer = self._ask("first", name)
        if "failed" not in answer:
            peak = answer["peak_bytes"]
            self.strategies[name] |= {"first_ms": answer["ms"], "peak_bytes": peak}

    def _compare(self, running: list[str]) -> None:
        reference = running[0]
        differences = self.worker.ask("differences", reference=reference)
        for name in running:
            result = self.strategies[name]
            result |= {"reference": reference, "difference": differences[name]}

    def _rounds(self, running: list[str]) -> list[float]:
        """Times all that run, and returns how busy others kept the machine."""
        firsts = {name: self.strategies[name]["first_ms"] for name in running}
        done = int(min(firsts.values()) >= LONG_MS)
        for name, first in firsts.items():
            self.strategies[name]["ms"] = [first] * done
        return in_turn(running, range(done, self.case.rounds), self._time)

    def _time(self, name: str) -> None:
        result = self.strategies[name]
        if "failed" in result:
            return
        answer = self._ask("time", name)
        if "failed" not in answer:
            result["ms"].append(answer["ms"])


def _bytes(result: Result) -> int:
    return sum(result[f"{what}_bytes"] for what in ("temp", "argument", "output"))
