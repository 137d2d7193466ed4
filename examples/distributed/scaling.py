"""Weak scaling: time a step with one process and with two, at equal rows per process.

    python -m distributed.scaling

Each process has one core and one thread. Each round times one process, two processes
that train together, and two processes that train separately at the same time. The
separate processes share the machine's memory but exchange no data. The script needs
Linux, for `taskset`.
"""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tyro
from flag_types import Count
from tqdm import tqdm

from . import launch

WARM_UP = 5  # Steps that are not timed; the first one compiles.
ONE_THREAD = "XLA_FLAGS=--xla_cpu_multi_thread_eigen=false"


def step_time(processes, folder, flags, core=0):
    """The median seconds of a step; process i runs on core `core + i`."""
    prefixes = [
        ["taskset", "--cpu-list", str(core + i), "env", ONE_THREAD]
        for i in range(processes)
    ]
    launch.run(launch.Layout(processes), folder, flags, prefixes=prefixes)
    return np.median(launch.read_losses(folder)[1][WARM_UP:])


def measure(folder, rows, flags):
    """Seconds per step for one process, two together, and two separate ones."""
    flags = [*flags, "--save-every", "1000000", "--batch-size"]
    one = step_time(1, folder / "one", [*flags, str(rows)])
    two = step_time(2, folder / "two", [*flags, str(2 * rows)])
    run = lambda core: step_time(1, folder / f"{core}", [*flags, str(rows)], core)
    with ThreadPoolExecutor() as pool:
        apart = max(pool.map(run, (0, 1)))
    return one, two, apart


def main(rounds: Count = 5, rows: Count = 128, units: Count = 128, steps: Count = 40):
    """Measures and prints seconds per step; returns them, `[rounds, 3]`.

    Args:
        rounds: The number of measurements of each case.
        rows: The rows per step in each process.
        units: The size of the cells.
        steps: The number of steps in each run.
    """
    flags = ["--data", "recall", "--units", str(units), "--steps", str(steps)]
    seconds = []
    for _ in tqdm(range(rounds), unit="round"):
        with tempfile.TemporaryDirectory() as folder:
            seconds.append(measure(Path(folder), rows, flags))
    one, two, apart = np.median(seconds, axis=0)
    print(f"one process     {1e3 * one:7.2f} ms per step")
    print(f"two, together   {1e3 * two:7.2f} ms, {two / one:.2f} times as long")
    print(f"two, apart      {1e3 * apart:7.2f} ms, {apart / one:.2f} times as long")
    return np.array(seconds)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
