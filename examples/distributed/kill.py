"""Kill runs with SIGKILL at random steps, continue them, and compare the results.

    python -m distributed.kill                            # one process
    python -m distributed.kill --layout '2 processes'     # one of two is killed
    python -m distributed.kill --resume '4 devices'       # on another layout

On the same layout, final parameters and all losses must be equal bit for bit. On
another layout, they differ by rounding.
"""

import contextlib
import random
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import tyro

from . import launch

STEPS = 60
FLAGS = f"--data recall --steps {STEPS} --units 8 --batch-size 8 --save-every 5".split()


def count_lines(path):
    """The number of lines in a file; 0 if the file does not exist."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill_at(layout, folder, flags, step, victim, patience):
    """Starts a run and kills one of its processes after a step.

    Returns:
        The number of steps done, and the seconds until the other processes ended. They
        are killed if that takes longer than `patience`.
    """
    with launch.started(layout, folder, flags) as processes:
        while count_lines(folder / "losses.jsonl") < step:
            if processes[0].poll():
                raise RuntimeError((folder / "0.log").read_text()[-3000:])
            time.sleep(0.001)
        processes[victim].kill()
        began = time.perf_counter()
        with contextlib.suppress(subprocess.TimeoutExpired):
            for process in processes:
                process.wait(patience)
        seconds = time.perf_counter() - began
    return count_lines(folder / "losses.jsonl"), seconds


def last_checkpoint(folder):
    """The step of the last complete checkpoint, or 0."""
    names = (path.name for path in (folder / "checkpoints").glob("*"))
    return max((int(name) for name in names if name.isdigit()), default=0)


def main(
    times: int = 20,
    layout: launch.Name = "1 device",
    resume: launch.Name | None = None,
    patience: float = 60,
    seed: int = 0,
):
    """Kills and continues runs; returns the largest difference from an unkilled run.

    Args:
        times: The number of runs to kill.
        layout: The layout of the runs.
        resume: The layout on which the runs continue; by default the same layout.
        patience: Seconds to wait for the other processes to end after a kill.
        seed: The seed that chooses the steps and processes to kill.
    """
    rng, found = random.Random(seed), []
    first, second = (launch.LAYOUTS[name] for name in (layout, resume or layout))
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        launch.run(first, whole, FLAGS)
        for i in range(times):
            killed = Path(folder) / str(i)
            step, victim = rng.randrange(STEPS), rng.randrange(first.processes)
            done, seconds = kill_at(first, killed, FLAGS, step, victim, patience)
            saved = last_checkpoint(killed)
            launch.run(second, killed, FLAGS)
            found.append(np.max(launch.differences(whole, killed)))
            print(
                f"process {victim} killed after {done} steps, {saved} of them saved; "
                f"all ended in {seconds:.1f} s; largest difference {found[-1]:.1e}",
                flush=True,
            )
    print(f"{times} kills, largest difference {np.max(found):.1e}")
    return np.max(found)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
