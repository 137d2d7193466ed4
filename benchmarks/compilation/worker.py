"""A peer's process: `python -m benchmarks.compilation.worker`."""

import time
from collections.abc import Callable
from typing import Any

import jax

from ..core import worker
from ..core.timing import timed


class Worker(worker.Worker):
    """As in the race, but a round compiles a case anew, and calls it eagerly."""

    def time(self) -> dict[str, Any]:
        """A round: CPU time in all, seconds of each part, and of a second eager call.

        The CPU time is `ms`: the compiler has several threads.
        """
        function, args = self.chosen.function, self.chosen.args
        jax.clear_caches()
        start = time.process_time()
        # A new function: JAX keeps what it has traced of one that it knows.
        jitted = jax.jit(lambda *args: function(*args))
        traced, trace_s = timed(jitted.trace, *args)
        lowered, lower_s = timed(traced.lower)
        _, compile_s = timed(lowered.compile)
        cpu = time.process_time() - start
        parts = {"trace_s": trace_s, "lower_s": lower_s, "compile_s": compile_s}
        return {"ms": 1e3 * cpu, **parts, "eager_ms": 1e3 * _second(function, args)}


def _second(function: Callable[..., Any], args: tuple) -> float:
    """The seconds of a second call outside of jit."""
    jax.block_until_ready(function(*args))
    return timed(lambda: jax.block_until_ready(function(*args)))[1]


if __name__ == "__main__":
    worker.serve(Worker)
