"""The memory of a whole process that trains over many steps."""

import resource
import sys
from typing import Any

import jax

from ..core.programs import compiled
from ..core.timing import timed
from .cases import Case
from .strategies import OURS, make_arguments, training_step

TRAINING_STEPS = 3
CASE = Case(100_000, 8, 256, 2, "float32", "final", rounds=1)
LEARNING_RATE = 0.1


def train() -> dict[str, Any]:
    """A few training steps over very long sequences; needs a separate process.

    A process's peak never falls.
    """
    params, inputs = jax.block_until_ready(make_arguments(CASE))
    gradients_of = training_step("sqrt", CASE)

    def step(params, inputs):
        loss, gradients = gradients_of(params, inputs)
        update = lambda p, g: p - LEARNING_RATE * g
        return loss, jax.tree.map(update, params, gradients)

    [(_, program, facts)] = compiled(step, params, inputs, donate=(0,))
    start_rss, total_s, losses = _peak_rss(), 0.0, []
    for _ in range(TRAINING_STEPS):
        call = lambda params: jax.block_until_ready(program(params, inputs))
        (loss, params), seconds = timed(call, params)
        losses.append(float(loss))
        total_s += seconds
    return {
        "name": CASE.name,
        "steps": CASE.steps,
        "strategy": repr(OURS["sqrt"]),
        "training_steps": TRAINING_STEPS,
        "seconds": total_s / TRAINING_STEPS,
        "losses": losses,
        "start_rss": start_rss,
        "peak_rss": _peak_rss(),
        "temp_bytes": facts["temp_bytes"],
    }


def _peak_rss() -> int:
    """The most memory that the process has had, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
