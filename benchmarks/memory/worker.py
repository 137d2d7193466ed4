"""The process that runs the training steps of one case; see `measure.py`.

Each request is answered by a dict; one that fails is answered by the reason.
"""

import gc
import hashlib
import re
from typing import Any

import jax
import numpy as np

from ..core.programs import compiled
from ..core.timing import measure, timed
from ..core.worker import ROUND, serve, versions
from . import peak
from .cases import Case
from .strategies import make_arguments, planned_bytes, training_step


class Worker:
    """The programs of a case, and the gradients that they computed."""

    def __init__(self, name: str) -> None:
        del name
        self.programs: dict[str, Any] = {}
        self.gradients: dict[str, list[np.ndarray]] = {}

    def hello(self) -> dict[str, Any]:
        """Versions and the device."""
        stats = _device().memory_stats() or {}
        return {
            "versions": versions(("jaxrnn", "jax", "jaxlib")),
            "backend": jax.default_backend(),
            "device": _device().device_kind,
            "device_bytes": stats.get("bytes_limit"),
        }

    def begin(self, case: dict[str, Any]) -> dict[str, Any]:
        """Makes the inputs."""
        self.case = Case(**case)
        self.args = jax.block_until_ready(make_arguments(self.case))
        return {}

    def compile(self, name: str) -> dict[str, Any]:
        """What is known of a training step before it runs."""
        step = training_step(name, self.case)
        [(_, program, facts)] = compiled(step, *self.args)
        self.programs[name] = program
        return facts | {
            "program": _fingerprint(program),
            "planned_bytes": planned_bytes(name, self.case),
        }

    def first(self, name: str) -> dict[str, Any]:
        """The first call: its time, its gradients, and the new peak, if any."""
        before = _peak()
        (_, gradients), seconds = timed(self._run, name)
        self.gradients[name] = [
            np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(gradients)
        ]
        after = _peak()
        return {"ms": 1e3 * seconds, "peak_bytes": after if after != before else None}

    def time(self, name: str) -> dict[str, Any]:
        """The median time of a few calls, or the time of a long one."""
        return {"ms": measure(lambda: self._run(name), **ROUND)}

    def differences(self, reference: str) -> dict[str, float]:
        """The largest difference of gradients, relative to the largest gradient."""
        theirs = self.gradients[reference]
        return {
            name: max(map(_difference, ours, theirs))
            for name, ours in self.gradients.items()
        }

    def drop(self, name: str) -> dict[str, Any]:
        """Frees a program."""
        self.programs.pop(name, None)
        gc.collect()
        return {}

    def train(self) -> dict[str, Any]:
        """The memory of this process after training over many steps."""
        return peak.train()

    def _run(self, name: str) -> Any:
        return jax.block_until_ready(self.programs[name](*self.args))


def _fingerprint(program: Any) -> str:
    """Equal for equal programs, whatever part of the source they are from."""
    instructions = re.sub(r", metadata=\{[^}]*\}", "", program.as_text())
    instructions = instructions[instructions.index("\n") :]  # Without the tables.
    return hashlib.sha256(instructions.encode()).hexdigest()[:12]


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    scale = np.abs(theirs).max()
    return float(np.abs(ours - theirs).max() / max(scale, 1e-30))


def _device() -> Any:
    return jax.devices()[0]


def _peak() -> int | None:
    """The most memory of the device that the process has used; None if unknown."""
    return (_device().memory_stats() or {}).get("peak_bytes_in_use")


if __name__ == "__main__":
    serve(Worker)
