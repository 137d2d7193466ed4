"""The process that runs the training steps of one case; see `measure.py`.

Each request is answered by a dict; one that fails is answered by the reason.
"""

import gc
import hashlib
import importlib.metadata
import re
from typing import Any

import jax
import numpy as np

from ..timing import measure, timed
from ..worker import serve
from .cases import Case
from .strategies import make_arguments, planned_bytes, training_step

ROUND = {"seconds": 0.06, "least": 2}


class Worker:
    """The programs of a case, and the gradients that they gave."""

    def __init__(self) -> None:
        self.programs: dict[str, Any] = {}
        self.gradients: dict[str, list[np.ndarray]] = {}

    def hello(self) -> dict[str, Any]:
        """Versions, and what we run on."""
        version = importlib.metadata.version
        stats = _device().memory_stats() or {}
        return {
            "versions": {name: version(name) for name in ("jaxrnn", "jax", "jaxlib")},
            "backend": jax.default_backend(),
            "device": _device().device_kind,
            "device_bytes": stats.get("bytes_limit"),
        }

    def begin(self, case: dict[str, Any]) -> dict[str, Any]:
        """Makes the inputs."""
        self.case = Case(**case)
        self.args = jax.block_until_ready(make_arguments(self.case))
        # The first compilation of a process sets up the compiler too.
        jax.jit(lambda x: jax.lax.scan(lambda a, b: (a @ b, a), x, x[None])).lower(
            np.ones((2, 2), np.float32)
        ).compile()
        return {}

    def compile(self, name: str) -> dict[str, Any]:
        """What is known of a training step before it runs."""
        step = jax.jit(training_step(name, self.case))
        lowered, lower_s = timed(step.lower, *self.args)
        program, compile_s = timed(lowered.compile)
        self.programs[name] = program
        return sizes(program) | {
            "lower_s": lower_s,
            "compile_s": compile_s,
            "program": _fingerprint(program),
            "planned_bytes": planned_bytes(name, self.case),
        }

    def first(self, name: str) -> dict[str, Any]:
        """The first call: its time, its gradients, and a new peak, if it is one."""
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
        """How far the gradients are from these: the largest, by the largest of them."""
        theirs = self.gradients[reference]
        return {
            name: max(map(_difference, ours, theirs))
            for name, ours in self.gradients.items()
        }

    def drop(self, name: str) -> dict[str, Any]:
        """Forgets a program."""
        self.programs.pop(name, None)
        gc.collect()
        return {}

    def _run(self, name: str) -> Any:
        return jax.block_until_ready(self.programs[name](*self.args))


def sizes(program: Any) -> dict[str, int]:
    """What XLA says of a compiled program's memory, in bytes."""
    analysis = program.memory_analysis()
    return {
        "temp_bytes": analysis.temp_size_in_bytes,
        "host_temp_bytes": analysis.host_temp_size_in_bytes,
        "argument_bytes": analysis.argument_size_in_bytes,
        "output_bytes": analysis.output_size_in_bytes,
    }


def _fingerprint(program: Any) -> str:
    """Equal for equal programs, wherever in the source they come from."""
    instructions = re.sub(r", metadata=\{[^}]*\}", "", program.as_text())
    instructions = instructions[instructions.index("\n") :]  # Without the tables.
    return hashlib.sha256(instructions.encode()).hexdigest()[:12]


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    scale = np.abs(theirs).max()
    return float(np.abs(ours - theirs).max() / max(scale, 1e-30))


def _device() -> Any:
    return jax.devices()[0]


def _peak() -> int | None:
    """The most memory that the process has used of the device; None if unknown."""
    return (_device().memory_stats() or {}).get("peak_bytes_in_use")


if __name__ == "__main__":
    serve(Worker())
