"""Functions that run `train.py` on several devices or processes of one machine."""

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np

EXAMPLES = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Layout:
    """The processes, devices and kind of mesh of a run."""

    processes: int = 1
    devices: int = 1  # The number of devices in each process.
    mesh: str = "auto"


Name = Literal[
    "1 device",
    "2 devices",
    "4 devices",
    "4 devices, explicit",
    "4 devices, shard_map",
    "2 processes",
    "4 processes",
]
LAYOUTS: dict[Name, Layout] = {
    "1 device": Layout(),
    "2 devices": Layout(devices=2),
    "4 devices": Layout(devices=4),
    "4 devices, explicit": Layout(devices=4, mesh="explicit"),
    "4 devices, shard_map": Layout(devices=4, mesh="shard_map"),
    "2 processes": Layout(processes=2),
    "4 processes": Layout(processes=4),
}


def free_port():
    """A free port of this machine."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def started(layout, folder, flags):
    """Starts the processes of a run, and kills those that outlast the `with` block.

    The output of process i is written to `i.log` in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "distributed.train", "--mesh", layout.mesh]
    command += ["--folder", str(folder.resolve()), "--processes", str(layout.processes)]
    command += ["--coordinator", f"localhost:{free_port()}", *flags]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(layout.devices),
    }
    runs = []
    try:
        for i in range(layout.processes):
            with (folder / f"{i}.log").open("w") as log:
                run = subprocess.Popen(
                    [*command, "--process", str(i)],
                    cwd=EXAMPLES,
                    env=environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            runs.append(run)
        yield runs
    finally:
        for run in runs:
            run.kill()
            run.wait()


def run(layout, folder, flags, timeout=300):
    """Runs from the start or the last checkpoint to the end.

    Raises:
        RuntimeError: If a process fails; the message is the end of its output.
        subprocess.TimeoutExpired: If a process takes longer than `timeout` seconds.
    """
    with started(layout, folder, flags) as processes:
        for i, process in enumerate(processes):
            if process.wait(timeout):
                raise RuntimeError((folder / f"{i}.log").read_text()[-3000:])


def read_losses(folder):
    """The loss of each step."""
    lines = (folder / "losses.jsonl").read_text().splitlines()
    return np.array([json.loads(line)["loss"] for line in lines])


def read_parameters(folder):
    """The final parameters by name."""
    with np.load(folder / "parameters.npz") as file:
        return dict(file)


def differences(a, b):
    """The largest differences of losses and of final parameters of two folders."""
    losses = np.max(np.abs(read_losses(a) - read_losses(b)))
    first, second = read_parameters(a), read_parameters(b)
    if first.keys() != second.keys():
        names = sorted(first), sorted(second)
        raise ValueError(f"parameters must have the same names, got {names}.")
    apart = [np.max(np.abs(first[name] - second[name])) for name in first]
    return losses, np.max(apart)
