"""Kills runs with SIGKILL at random steps, continues them, compares where they end.

    python -m distributed.kill                            # one process
    python -m distributed.kill --layout '2 processes'     # one of two is killed
    python -m distributed.kill --resume '4 devices'       # on another layout

On the same layout the final parameters and all losses must be equal bit for bit. On
another one sums are rounded otherwise.
"""

import contextlib
import random
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import tyro
from flag_types import Count, Seed

from . import launch

STEPS = 60
FLAGS = f"--data recall --steps {STEPS} --units 8 --batch-size 8 --save-every 5".split()


def count_lines(path):
    """The lines of a file; 0 if there is none."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill_at(layout, folder, step, victim):
    """Starts a run and kills one of its processes after a step.

    Returns:
        The steps that were done, and the seconds until the others ended by themselves.
    """
    with launch.started(layout, folder, FLAGS) as processes:
        while count_lines(folder / "losses.jsonl") < step:
            if processes[0].poll():
                raise RuntimeError((folder / "0.log").read_text()[-3000:])
            time.sleep(0.001)
        processes[victim].kill()
        began = time.perf_counter()
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
        seconds = time.perf_counter() - began
    return count_lines(folder / "losses.jsonl"), seconds


def last_checkpoint(folder):
    """The step of the last complete checkpoint, or 0."""
    names = (path.name for path in (folder / "checkpoints").glob("*"))
    return max((int(name) for name in names if name.isdigit()), default=0)


def difference(a, b):
    """The largest difference in losses and final parameters of two folders."""
    losses = np.abs(launch.read_losses(a)[0] - launch.read_losses(b)[0]).max()
    parameters = map(launch.read_parameters, (a, b))
    return max(losses, launch.largest_difference(*parameters))


def main(
    times: Count = 20,
    layout: launch.Name = "1 device",
    resume: launch.Name | None = None,
    seed: Seed = 0,
):
    """Kills and continues; returns the largest difference to a run that was not killed.

    Args:
        times: Runs to kill.
        layout: Where the runs take place.
        resume: Where they continue; on the same layout, unless given.
        seed: Of the steps at which runs are killed, and of the process that is.
    """
    rng, largest = random.Random(seed), 0.0
    first, second = (launch.LAYOUTS[name] for name in (layout, resume or layout))
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        launch.run(first, whole, FLAGS)
        for i in range(times):
            killed = Path(folder) / str(i)
            step, victim = rng.randrange(STEPS), rng.randrange(first.processes)
            done, seconds = kill_at(first, killed, step, victim)
            saved = last_checkpoint(killed)
            launch.run(second, killed, FLAGS)
            found = difference(whole, killed)
            largest = max(largest, found)
            print(
                f"process {victim} killed after {done} steps, {saved} of them saved; "
                f"all ended in {seconds:.1f} s; largest difference {found:.1e}",
                flush=True,
            )
    print(f"{times} kills, largest difference {largest:.1e}")
    return largest


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
