"""The process of a contestant: `python -m benchmarks.worker PEER RUN CHECKOUT`.

It reads requests from stdin, one line of JSON each. A request names a method of
`Worker`: `{"do": "prepare", "case": {...}}`. The worker answers with a line on stdout.
"""

import dataclasses
import gc
import importlib
import importlib.machinery
import importlib.metadata
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from .built import LeftOutError, Variant, Variants
from .cases import Case
from .data import make_data
from .results import checksums
from .timing import measure, timed

ROUND_S = 0.06
TURN_S, TURNS = 0.03, 3  # A short trial finds the fastest variant.


class CheckoutFinder:
    """Imports `jaxrnn` from a checkout, even if an editable install exists."""

    def __init__(self, checkout: str):
        self.checkout = checkout

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """The spec of the checkout's `jaxrnn`; None for other modules."""
        if name == "jaxrnn":
            return importlib.machinery.PathFinder.find_spec(name, [self.checkout])
        return None


class Worker:
    """A peer, and its chosen variant for the current case."""

    def __init__(self, peer: str, run: str, checkout: str):
        self.peer, self.run, self.checkout = peer, run, checkout
        self.chosen: Variant | None = None

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """Call the method `do`. If it fails, `failed` is the error message."""
        try:
            return getattr(self, do)(**request)
        except Exception as error:
            traceback.print_exc()
            return {"failed": f"{type(error).__name__}: {error}"}

    def _load(self) -> Any:
        return importlib.import_module(f"benchmarks.peers.{self.peer}")

    def hello(self) -> dict[str, Any]:
        """The versions of the peer's packages, or the reason why it cannot run."""
        try:
            peer = self._load()
        except ImportError as error:
            return {"missing": str(error)}
        jaxrnn = sys.modules.get("jaxrnn")
        if jaxrnn and not Path(jaxrnn.__file__).is_relative_to(self.checkout):
            return {"missing": "the checkout has no folder jaxrnn"}
        versions = map(importlib.metadata.version, peer.USES)
        return {"versions": dict(zip(peer.USES, versions, strict=True))}

    def build(self, case: Case) -> Variants:
        """The variants of the peer, not compiled yet.

        Raises:
            LeftOutError: If the peer does not support the case.
        """
        peer = self._load()
        case = dataclasses.replace(case, run=self.run or case.run)
        if case.pattern and not getattr(peer, "HAS_PATTERNS", False):
            raise LeftOutError(f"{self.peer} has no patterns")
        if case.lengths == "resets" and not getattr(peer, "HAS_RESETS", False):
            raise LeftOutError(f"{self.peer} has no resets")
        return peer.build(case, make_data(case))

    def prepare(self, case: dict[str, Any], choose: bool) -> dict:
        """Build the variants, and choose the fastest in a short trial.

        Args:
            case: The fields of the case.
            choose: If false, use the first variant without a trial.
        """
        try:
            built = self.build(Case(**case))
            names = list(built)[: None if choose else 1]
            variants = {name: built[name]() for name in names}
        except LeftOutError as reason:
            return {"left_out": str(reason)}
        best = _fastest(variants)
        self.chosen = variants[best]
        sums = checksums(self.chosen.read(self.chosen.run()))
        return {"variant": best, "sums": sums, "facts": self.chosen.facts}

    def time(self) -> dict[str, float]:
        """A round: the median milliseconds of a few calls."""
        return {"ms": measure(self.chosen.run, ROUND_S)}

    def compile(self) -> dict[str, float]:
        """A round: compile the program again, with all caches cleared.

        The milliseconds are CPU time, because the compiler has several threads. The
        seconds of each part are wall-clock time.
        """
        import jax

        function, args = self.chosen.function, self.chosen.args
        jax.clear_caches()
        start = time.process_time()
        # A new function, because JAX caches traces by function.
        jitted = jax.jit(lambda *args: function(*args))
        traced, trace_s = timed(jitted.trace, *args)
        lowered, lower_s = timed(traced.lower)
        _, compile_s = timed(lowered.compile)
        parts = {"trace_s": trace_s, "lower_s": lower_s, "compile_s": compile_s}
        return {"compile_ms": 1e3 * (time.process_time() - start)} | parts

    def drop(self) -> dict[str, Any]:
        """Free the memory of the case."""
        self.chosen = None
        gc.collect()
        return {}


def _fastest(variants: dict[str, Variant]) -> str:
    """The variant with the shortest time in a few turns."""
    if len(variants) == 1:
        return next(iter(variants))
    best = dict.fromkeys(variants, float("inf"))
    for _ in range(TURNS):
        for name, variant in variants.items():
            best[name] = min(best[name], measure(variant.run, TURN_S))
    return min(best, key=best.__getitem__)


def serve(worker: Worker) -> None:
    """Answer requests until stdin ends, and redirect other output to stderr."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(worker.ask(**json.loads(line))) + "\n")


if __name__ == "__main__":
    # Only `jaxrnn` comes from the other checkout, not `benchmarks`.
    sys.meta_path.insert(0, CheckoutFinder(sys.argv[3]))
    serve(Worker(*sys.argv[1:]))
