"""A peer's process: `python -m benchmarks.recurrences.worker`."""

import importlib
from typing import Any

from ..core import worker
from ..core.built import Built, LeftOutError, Variant
from ..core.cases import Case
from ..core.timing import timed

LIMIT_GB, LIMIT_S = 4.0, 6.0
ROUND = {"seconds": 0.06, "least": 1}
OWN_FILE = ("recurrentgemma", "torch")


class Worker(worker.Worker):
    """As in the race; programs that are too large or too slow are left out."""

    round = ROUND

    def load(self) -> Any:
        """The module of the forms in JAX, or the peer's own."""
        file = self.name if self.name in OWN_FILE else "forms"
        return importlib.import_module(f"benchmarks.recurrences.{file}")

    def draw(self, case: Case) -> Any:
        """The cell and its arrays."""
        return importlib.import_module("benchmarks.recurrences.data").make_data(case)

    def build(self, case: Case, data: Any) -> Built:
        """The variants that keep within the limits.

        Raises:
            LeftOutError: If there are none.
        """
        built = self.peer.build(case, data, self.name)
        reasons = {name: _too_much(v) for name, v in built.variants.items()}
        fit = {n: v for n, v in built.variants.items() if not reasons[n]}
        if not fit:
            raise LeftOutError("; ".join(reasons.values()))
        return Built(fit)


def _too_much(variant: Variant) -> str:
    """Why a variant is left out; empty if it is not."""
    size = variant.facts.get("temp_bytes", 0) / 1e9
    if size > LIMIT_GB:
        return f"needs {size:.1f} GB, more than {LIMIT_GB:g} GB"
    seconds = timed(variant.run)[1]
    return f"a call takes more than {LIMIT_S:g} s" if seconds > LIMIT_S else ""


if __name__ == "__main__":
    worker.serve(Worker)
