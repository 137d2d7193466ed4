"""Checks and measures jaxrnn on one NVIDIA GPU, in at most eight minutes.

It needs JAX with CUDA, and nothing else. Flax and PyTorch are also measured if they are
installed. It writes one page with all results, failures included.
"""

import argparse
import contextlib
import datetime
import os
import queue
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from . import cases, gpu_page, peers
from .machine import CORES, commit, describe
from .peers import Contestant
from .process import Process, said, started
from .rounds import run_case

Result = dict[str, Any]

RESULTS = Path(__file__).resolve().parent / "results" / "gpu.md"
SECONDS = 480
# After these shares of the time, no check or case of a part starts.
SHARES = {"checks": 0.4, "times": 0.65, "loops": 0.77, "kernels": 0.84, "memory": 0.9}
END = 0.98
PATIENCE_S = 60  # A process that does not answer for this long is ended.
PROCESSES = min(6, max(1, CORES // 2))  # They share the GPU, as nothing is timed.
# Products of float32 arrays are in TF32, which rounds to 11 bits.
TF32_TOLERANCE = 2e-2
BYTES = 8e9  # Programs that need more do not run.
CHECKER = Contestant("checks", "")
# By part: the contestants, the cases of each preset and the rounds.
RACES = {
    "times": (peers.GPU, cases.GPU_TIMES, {"time": 5}),
    "loops": (peers.GPU_LOOPS, cases.GPU_LOOPS, {"time": 5}),
    "kernels": (peers.GPU_KERNELS, cases.GPU_KERNELS, {"time": 5}),
    "memory": (peers.GPU_MEMORY, cases.GPU_MEMORY, {"time": 3, "peak": 1}),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `python -m benchmarks gpu`."""
    small = "a few checks and small cases in half a minute, which also run on a CPU"
    parser.add_argument("--small", action="store_true", help=small)
    out = "file for the page (default: benchmarks/results/gpu.md; with --small: none)"
    parser.add_argument("--out", type=Path, metavar="FILE", help=out)


class Clock:
    """The time since the start of the command."""

    def __init__(self) -> None:
        self.start = time.monotonic()

    @property
    def seconds(self) -> float:
        """The seconds so far."""
        return time.monotonic() - self.start

    def is_over(self, share: float) -> bool:
        """Whether this share of the command's time is over."""
        return self.seconds >= share * SECONDS

    def patience(self) -> float:
        """The seconds that a process may take to answer."""
        return max(1, min(PATIENCE_S, END * SECONDS - self.seconds))

    def say(self, text: str) -> None:
        """Print a line of progress."""
        print(f"[{self.seconds:3.0f} of {SECONDS} s] {text}", file=sys.stderr)


def run(options: argparse.Namespace) -> int:
    """Run all parts, write the page after each, and print it.

    Returns:
        The exit status: 1 if something failed.

    Raises:
        SystemExit: If JAX finds no GPU, and the run is not a small one.
    """
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # The processes inherit it.
    out = options.out or (None if options.small else RESULTS)
    result, clock = _new_result("small" if options.small else "full"), Clock()
    for part in SHARES:
        try:
            _check(result, clock) if part == "checks" else _race(part, result, clock)
        except Exception as error:  # The other parts still run.
            result["errors"].append(f"{part}: {type(error).__name__}: {error}")
        if result["platform"] != "gpu" and not options.small:
            raise SystemExit(_no_gpu(result))
        result["seconds"] = clock.seconds
        if out:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(gpu_page.write(result))
    print(gpu_page.write(result), end="")
    return 1 if gpu_page.failures(result) else 0


def _new_result(preset: str) -> Result:
    """A result in which nothing has run yet."""
    return {
        "preset": preset,
        "date": datetime.date.today().isoformat(),
        "commit": commit(peers.ROOT),
        "machine": describe(),
        "platform": "unknown",
        "facts": {},
        "versions": {},
        "errors": [],
        "checks": [],
        "races": {},
    }


def _no_gpu(result: Result) -> str:
    found = "; ".join(result["errors"]) or f"its platform is {result['platform']}"
    return (
        f"JAX finds no NVIDIA GPU here ({found}). Install JAX with CUDA, for example "
        "`pip install 'jax[cuda12]'`. With --small, the command also runs on a CPU."
    )


def _check(result: Result, clock: Clock) -> None:
    """Find out what the device is, and run the checks in several processes."""
    clock.say("starting JAX")
    is_small = result["preset"] == "small"
    idle: queue.SimpleQueue[Process] = queue.SimpleQueue()

    def run(check: Result) -> None:
        process = idle.get()
        if not clock.is_over(SHARES["checks"]):
            clock.say(f"checking {check['part']}: {check['name']}")
            check["answer"] = process.ask("check", **check)
        idle.put(process)

    with contextlib.ExitStack() as stack:

        def start() -> Process:
            module = "benchmarks.gpu_checks"
            process = Process(CHECKER, limit=clock.patience, module=module)
            stack.callback(process.close)
            idle.put(process)
            return process

        first = start()
        result |= _asked(first, "hello")
        if result["platform"] != "gpu" and not is_small:
            return
        result["checks"] = ordered(_asked(first, "names", small=is_small))
        for _ in range(PROCESSES - 1):
            start()
        with ThreadPoolExecutor(PROCESSES) as pool:
            list(pool.map(run, result["checks"]))


def _asked(process: Process, do: str, **request: Any) -> Result:
    answer = process.ask(do, **request)
    if "failed" in answer:
        raise RuntimeError(answer["failed"])
    return answer


def ordered(names: dict[str, list[str]]) -> list[Result]:
    """The checks; each part gets on equally, if time is short."""
    ranks = [
        (rank / len(of_part), part, name)
        for part, of_part in names.items()
        for rank, name in enumerate(of_part)
    ]
    return [{"part": part, "name": name} for _, part, name in sorted(ranks)]


def _race(part: str, result: Result, clock: Clock) -> None:
    """Measure the cases of a part until the time is over."""
    contestants, presets, rounds = RACES[part]
    if result["preset"] == "small":
        rounds = dict.fromkeys(rounds, 1)
    names = [one.name for one in contestants]
    clock.say(f"starting {', '.join(names)}")
    race: Result = {"names": names, "cases": [], "versions": {}, "missing": {}}
    race["todo"] = list(presets[result["preset"]])
    result["races"][part] = race
    tf32 = TF32_TOLERANCE if result["platform"] == "gpu" else 0
    with started(contestants, clock.patience) as (processes, hellos):
        race |= said(hellos)
        missing = {name: {"missing": why} for name, why in race["missing"].items()}
        while race["todo"] and not clock.is_over(SHARES[part]):
            case = race["todo"][0]
            clock.say(f"measuring {case.name}")
            limits = {"limit": BYTES, "choose": False}
            tolerance = max(case.tolerance, tf32)
            row = run_case(case, processes, rounds, tolerance, **limits)
            if clock.is_over(END):
                return  # The last case was cut.
            row["peers"] |= missing
            race["cases"].append(row)
            race["todo"].pop(0)
