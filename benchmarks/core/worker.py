"""The process of a peer: `python -m benchmarks.core.worker`.

It reads requests from stdin, a line of JSON each, which name a peer and one of its
methods: `{"peer": "scan", "do": "prepare", "case": {...}}`. Each is answered by a line
on stdout.
"""

import gc
import importlib
import importlib.metadata
import json
import math
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from .built import Built, LeftOutError, Variant
from .cases import Case
from .data import Data, make_data
from .results import checksums
from .timing import measure

ROUND = {"seconds": 0.06, "least": 2}

# The trial in which the fastest variant is found.
TURN = {"seconds": 0.03, "least": 1}
TURNS, FEW_TURNS = 5, 2
LONG_S = 3.0  # Of a trial this long, further turns are left out.
FAR_BEHIND = 1.25  # A variant this much slower than the best gets no further turns.


class Worker:
    """A peer, and the variant of the present case that is raced."""

    round = ROUND

    def __init__(self, name: str):
        self.name = name
        self.chosen: Variant | None = None

    def load(self) -> Any:
        """The peer's module, which has `USES` and `build`."""
        return importlib.import_module(f"benchmarks.peers.{self.name}")

    def draw(self, case: Case) -> Any:
        """The arrays of a case."""
        return make_data(case)

    def build(self, case: Case, data: Data) -> Built:
        """The peer on a case."""
        return self.peer.build(case, data)

    def hello(self) -> dict[str, Any]:
        """The versions of the peer's packages, or why it cannot be used."""
        try:
            self.peer = self.load()
        except (ImportError, LeftOutError) as error:
            return {"missing": str(error)}
        return {"versions": versions(self.peer.USES)}

    def prepare(self, case: dict[str, Any]) -> dict[str, Any]:
        """Builds all variants, and keeps the one that is fastest in a short trial."""
        case = Case(**case)
        data = self.draw(case)
        try:
            built = self.build(case, data)
        except LeftOutError as reason:
            return {"left_out": str(reason)}
        sums = {name: _sums(variant) for name, variant in built.variants.items()}
        trial = _trial(built)
        best = min(trial, key=trial.__getitem__)
        self.chosen = built.variants[best]
        return {
            "variant": best,
            "trial_ms": trial,
            "sums": sums[best],
            "equation": built.equation,
            "facts": self.chosen.facts,
            "steps": data.steps,
        }

    def time(self) -> dict[str, Any]:
        """A round: the median time of a few calls."""
        return {"ms": measure(self.chosen.run, **self.round)}

    def drop(self) -> dict[str, Any]:
        """Frees the memory of the case."""
        self.chosen = None
        gc.collect()
        return {}


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """The installed version of each package."""
    return {package: _version(package) for package in packages}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"  # But on the path.


def _sums(variant: Variant) -> dict[str, list[float]] | None:
    raw = variant.run()
    return None if variant.read is None else checksums(variant.read(raw))


def _trial(built: Built) -> dict[str, float]:
    """The least milliseconds of each variant in a few turns."""
    if len(built.variants) == 1:
        return dict.fromkeys(built.variants, 0.0)
    best = dict.fromkeys(built.variants, math.inf)
    start = time.perf_counter()
    for turn in range(TURNS):
        if turn >= FEW_TURNS and time.perf_counter() - start > LONG_S:
            break
        limit = FAR_BEHIND * min(best.values())
        for name, variant in built.variants.items():
            if turn < FEW_TURNS or best[name] <= limit:
                best[name] = min(best[name], measure(variant.run, **TURN))
    return best


def serve(make: Callable[[str], Any]) -> None:
    """Answers requests until stdin ends; `make(peer)` is called once for each peer.

    What libraries print goes to stderr.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    workers: dict[str, Any] = {}
    for line in sys.stdin:
        request = json.loads(line)
        name, do = request.pop("peer"), request.pop("do")
        try:
            if name not in workers:
                workers[name] = make(name)
            answer = getattr(workers[name], do)(**request)
        except Exception as error:
            traceback.print_exc()
            answer = {"failed": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    serve(Worker)
