"""The memory of a whole process that trains over many steps.

    python -m benchmarks.memory.peak

prints it as JSON. It is a process of its own because a process's peak never falls.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TRAINING_STEPS = 3
STEPS = 100_000
LEARNING_RATE = 0.1
ROOT = Path(__file__).resolve().parents[2]


def measure_peak() -> dict[str, Any]:
    """Runs the process, and returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory.peak"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return json.loads(done.stdout)


def _train() -> dict[str, Any]:
    """A few training steps over very long sequences."""
    import jax  # Here, for the process that only asks has no use for it.

    from .cases import Case
    from .strategies import OURS, make_arguments, training_step
    from .worker import sizes

    case = Case(STEPS, 8, 256, 2, "float32", "final", rounds=1)
    params, inputs = jax.block_until_ready(make_arguments(case))
    gradients = training_step("sqrt", case)

    def train(params: Any, inputs: jax.Array) -> tuple[jax.Array, Any]:
        loss, moves = gradients(params, inputs)
        return loss, jax.tree.map(lambda p, d: p - LEARNING_RATE * d, params, moves)

    program = jax.jit(train, donate_argnums=0).lower(params, inputs).compile()
    start_rss, seconds, losses = _peak_rss(), [], []
    for _ in range(TRAINING_STEPS):
        begin = time.perf_counter()
        loss, params = program(params, inputs)
        losses.append(float(loss))  # Waits for it.
        seconds.append(time.perf_counter() - begin)
    return {
        "name": case.name,
        "steps": case.steps,
        "strategy": repr(OURS["sqrt"]),
        "training_steps": TRAINING_STEPS,
        "seconds": sum(seconds) / len(seconds),
        "losses": losses,
        "start_rss": start_rss,
        "peak_rss": _peak_rss(),
        "temp_bytes": sizes(program)["temp_bytes"],
    }


def _peak_rss() -> int:
    """The most memory that the process has had, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    print(json.dumps(_train()))
