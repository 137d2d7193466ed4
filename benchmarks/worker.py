"""The process of one peer: answers requests, a line of JSON each.

    python -m benchmarks.worker NAME

Requests, read from stdin: `{"do": "hello"}`, `{"do": "prepare", "case": {...}}`,
`{"do": "time"}`, `{"do": "drop"}`. Each is answered by one line on stdout.
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
from collections.abc import Mapping
from typing import Any

from .built import Built, LeftOutError, Variant
from .cases import Case
from .data import make_data
from .results import checksums
from .timing import measure

ROUND = {"seconds": 0.06, "least": 2}
TURN = {"seconds": 0.03, "least": 1}
TURNS, ENOUGH_S = 5, 3.0
OUT_OF_REACH = 1.25


class Worker:
    """A peer, and the variant of the present case that races."""

    case_type: type = Case
    round: Mapping[str, float] = ROUND

    def __init__(self, name: str):
        self.name = name
        self.chosen: Variant | None = None

    def load(self) -> Any:
        """The peer: `USES` and `build`."""
        return importlib.import_module(f"benchmarks.peers.{self.name}")

    def hello(self) -> dict[str, Any]:
        """The versions of what the peer uses; or why it cannot be used."""
        try:
            self.peer = self.load()
        except (ImportError, LeftOutError) as error:
            return {"missing": str(error)}
        return {"versions": {package: _version(package) for package in self.peer.USES}}

    def prepare(self, case: dict[str, Any]) -> dict[str, Any]:
        """Builds all variants, and keeps the one that a short trial finds fastest."""
        case = self.case_type(**case)
        data = make_data(case)
        try:
            built: Built = self.peer.build(case, data)
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
        """Forgets the case."""
        self.chosen = None
        gc.collect()
        return {}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"  # But on the path.


def _sums(variant: Variant) -> dict[str, list[float]] | None:
    raw = variant.run()
    return None if variant.read is None else checksums(variant.read(raw))


def _trial(built: Built) -> dict[str, float]:
    """Milliseconds of each variant, the least of a few turns.

    Those that are far behind after two turns get no more, and slow ones no more than
    those two.
    """
    if len(built.variants) == 1:
        return dict.fromkeys(built.variants, 0.0)
    best = dict.fromkeys(built.variants, math.inf)
    start = time.perf_counter()
    for turn in range(TURNS):
        if turn >= 2 and time.perf_counter() - start > ENOUGH_S:
            break
        reach = OUT_OF_REACH * min(best.values())
        for name, variant in built.variants.items():
            if turn < 2 or best[name] <= reach:
                best[name] = min(best[name], measure(variant.run, **TURN))
    return best


def serve(worker: Any) -> None:
    """Answers by a worker's methods until stdin ends.

    What libraries print goes to stderr.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(worker, request.pop("do"))(**request)
        except Exception as error:
            traceback.print_exc()
            answer = {"failed": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    serve(Worker(sys.argv[1]))
