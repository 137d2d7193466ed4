"""Checks and measures jaxrnn on one NVIDIA GPU, in at most eight minutes.

It needs JAX with CUDA, and nothing else; Flax and PyTorch are also measured if they are
installed. It writes one page with what it found, failures included.
"""

import argparse
import datetime
import functools
import queue
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import cases, gpu_page, peers
from .cases import Case
from .machine import CORES, commit, describe
from .peers import Contestant
from .process import Process, started
from .rounds import run_case

Result = dict[str, Any]
Say = Callable[[str], None]

RESULTS = Path(__file__).resolve().parent / "results" / "gpu.md"
MINUTES = 8
# No check, and no measurement, starts after this share of the time.
CHECKS, MEMORY, TIMES = 0.4, 0.55, 0.9
PATIENCE_S = 60  # A process that does not answer for so long is ended.
PROCESSES = min(6, max(1, CORES // 2))  # They share the GPU while nothing is timed.
# Products of float32 arrays are in TF32, which rounds to 11 bits.
TF32_TOLERANCE = 2e-2
BYTES = 8e9  # Programs that need more do not run.


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `python -m benchmarks gpu`."""
    small = "a few checks and small cases in a minute, which also run on a CPU"
    parser.add_argument("--small", action="store_true", help=small)
    out = "the page's file (default: benchmarks/results/gpu.md, with --small none)"
    parser.add_argument("--out", type=Path, metavar="FILE", help=out)


def run(options: argparse.Namespace) -> int:
    """Run all parts, write the page after each, and print it.

    Returns:
        The exit status: 1 if a part failed.
    """
    start = time.monotonic()
    out = options.out or (None if options.small else RESULTS)
    result = _new_result("small" if options.small else "full")

    def say(text: str) -> None:
        seconds = time.monotonic() - start
        print(f"[{seconds:3.0f} of {60 * MINUTES} s] {text}", file=sys.stderr)

    for part, share in ((_check, CHECKS), (_memory, MEMORY), (_times, TIMES)):
        until = start + share * 60 * MINUTES
        try:
            part(result, until, say)
        except Exception as error:  # The other parts shall run.
            name = part.__name__.removeprefix("_")
            result["errors"].append(f"{name}: {type(error).__name__}: {error}")
        if part is _check and result["platform"] != "gpu" and not options.small:
            raise SystemExit(_no_gpu(result))
        result["seconds"] = time.monotonic() - start
        if out:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(gpu_page.write(result))
    print(gpu_page.write(result))
    return 1 if gpu_page.failures(result) else 0


def _new_result(preset: str) -> Result:
    """A result in which nothing has run yet."""
    return {
        "preset": preset,
        "date": datetime.date.today().isoformat(),
        "commit": commit(peers.ROOT),
        "machine": describe(),
        "platform": "none",
        "facts": {},
        "versions": {},
        "errors": [],
        "checks": [],
    }


def _no_gpu(result: Result) -> str:
    found = "; ".join(result["errors"]) or f"only a {result['platform']}"
    return (
        f"JAX finds no NVIDIA GPU here ({found}). Install JAX with CUDA: "
        "pip install 'jax[cuda12]'. With --small, the command runs on a CPU."
    )


def _check(result: Result, until: float, say: Say) -> None:
    """Fill in the device, and run the checks in several processes."""
    say("starting JAX")
    start = functools.partial(Process, CHECKER, PATIENCE_S, "benchmarks.gpu_checks")
    first = start()
    hello = first.ask("hello")
    names = first.ask("names", small=result["preset"] == "small")
    for answer in (hello, names):
        if "failed" in answer:
            first.close()
            raise RuntimeError(answer["failed"])
    result |= hello
    if result["platform"] != "gpu" and result["preset"] != "small":
        first.close()
        return
    waiting: queue.SimpleQueue[Result] = queue.SimpleQueue()
    result["checks"] = ordered(names)
    for check in result["checks"]:
        waiting.put(check)
    work = functools.partial(_work, waiting, until, say)
    threads = [threading.Thread(target=work, args=[first])]
    for _ in range(min(PROCESSES, len(result["checks"])) - 1):
        threads.append(threading.Thread(target=lambda: work(start())))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


CHECKER = Contestant("checks", "")


def ordered(names: dict[str, list[str]]) -> list[Result]:
    """The checks: cuDNN's, then goldens and laws in turn, in case not all fit."""

    def place(part: str, index: int) -> float:
        return 0 if part == "cuDNN" else index / len(names[part])

    placed = [
        (place(part, index), part, name)
        for part, of_part in names.items()
        for index, name in enumerate(of_part)
    ]
    return [{"part": part, "name": name} for _, part, name in sorted(placed)]


def _work(waiting: queue.SimpleQueue, until: float, say: Say, process: Process) -> None:
    """Run the waiting checks in a process until none is left or the time is over."""
    try:
        while time.monotonic() < until:
            try:
                check = waiting.get_nowait()
            except queue.Empty:
                break
            say(f"check of {check['part']}: {check['name']}")
            request = {"part": check["part"], "name": check["name"]}
            check["answer"] = process.ask("check", **request)
    finally:
        process.close()


def _memory(result: Result, until: float, say: Say) -> None:
    todo = cases.GPU_MEMORY[result["preset"]]
    rounds = {"time": 1 if result["preset"] == "small" else 3, "peak": 1}
    result["memory"] = {}
    race(result["memory"], peers.GPU_MEMORY, todo, rounds, result, until, say)


def _times(result: Result, until: float, say: Say) -> None:
    todo = cases.GPU_TIMES[result["preset"]]
    rounds = {"time": 1 if result["preset"] == "small" else 5}
    result["times"] = {}
    race(result["times"], peers.GPU, todo, rounds, result, until, say)


def race(
    found: Result,
    contestants: list[Contestant],
    todo: list[Case],
    rounds: dict[str, int],
    result: Result,
    until: float,
    say: Say,
) -> None:
    """Measure the cases until the time is over; fill in `found`."""
    found |= {"rounds": rounds, "cases": [], "missing": {}, "versions": {}}
    found["names"] = [one.name for one in contestants]
    found["cut"] = [case.name for case in todo]
    say(f"starting {', '.join(found['names'])}")
    with started(contestants, PATIENCE_S) as (processes, hellos):
        for name, hello in hellos.items():
            found["versions"] |= hello.get("versions", {})
            if "missing" in hello:
                found["missing"][name] = hello["missing"]
        for case in todo:
            if time.monotonic() >= until:
                break
            say(f"measuring {case.name}")
            row = run_case(
                case,
                processes,
                rounds,
                tolerance=_tolerance(case, result["platform"]),
                limit=BYTES,
                choose=False,
            )
            row["peers"] |= {name: {"missing": ""} for name in found["missing"]}
            found["cases"].append(row)
            found["cut"].remove(case.name)


def _tolerance(case: Case, platform: str) -> float:
    return max(case.tolerance, TF32_TOLERANCE if platform == "gpu" else 0)
