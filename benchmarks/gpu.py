"""Checks and measures jaxrnn on one NVIDIA GPU, in at most eight minutes.

It needs JAX with CUDA, and nothing else. Flax and PyTorch are also measured if they are
installed. It writes one page with all results, failures included.
"""

import argparse
import datetime
import functools
import os
import queue
import sys
import threading
import time
from pathlib import Path
from typing import Any

from . import cases, gpu_page, peers
from .machine import CORES, commit, describe
from .peers import Contestant
from .process import Process, started
from .rounds import run_case

Result = dict[str, Any]

RESULTS = Path(__file__).resolve().parent / "results" / "gpu.md"
SECONDS = 480
# After these shares of the time, no check or case of a part starts.
CHECKS, TIMES, LOOPS, MEMORY, END = 0.4, 0.7, 0.82, 0.9, 0.98
PATIENCE_S = 60  # A process that does not answer for this long is ended.
PROCESSES = min(6, max(1, CORES // 2))  # They share the GPU, as nothing is timed.
# Products of float32 arrays are in TF32, which rounds to 11 bits.
TF32_TOLERANCE = 2e-2
BYTES = 8e9  # Programs that need more do not run.
CHECKER = Contestant("checks", "")


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
    for part in (_check, _times, _loops, _memory):
        try:
            part(result, clock)
        except Exception as error:  # The other parts still run.
            name = part.__name__.removeprefix("_")
            result["errors"].append(f"{name}: {type(error).__name__}: {error}")
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
    start = functools.partial(
        Process, CHECKER, limit=clock.patience, module="benchmarks.gpu_checks"
    )
    first = start()
    try:
        result |= _asked(first, "hello")
        if result["platform"] != "gpu" and not is_small:
            return
        result["checks"] = ordered(_asked(first, "names", small=is_small))
    finally:
        first.close()
    waiting: queue.SimpleQueue[Result] = queue.SimpleQueue()
    for check in result["checks"]:
        waiting.put(check)

    def work() -> None:
        process = start()
        try:
            _work(process, waiting, clock)
        finally:
            process.close()

    count = min(PROCESSES, len(result["checks"]))
    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _asked(process: Process, do: str, **request: Any) -> Result:
    answer = process.ask(do, **request)
    if "failed" in answer:
        raise RuntimeError(answer["failed"])
    return answer


def ordered(names: dict[str, list[str]]) -> list[Result]:
    """The checks; each part gets on equally, if time is short."""
    places = {
        (part, name): index / len(of_part)
        for part, of_part in names.items()
        for index, name in enumerate(of_part)
    }
    keys = sorted(places, key=places.__getitem__)
    return [{"part": part, "name": name} for part, name in keys]


def _work(process: Process, waiting: queue.SimpleQueue, clock: Clock) -> None:
    """Run waiting checks in a process until none is left or the time is over."""
    while not clock.is_over(CHECKS):
        try:
            check = waiting.get_nowait()
        except queue.Empty:
            return
        clock.say(f"checking {check['part']}: {check['name']}")
        check["answer"] = process.ask("check", part=check["part"], name=check["name"])


def _memory(result: Result, clock: Clock) -> None:
    preset = result["preset"]
    result["memory"] = _new_race(peers.GPU_MEMORY, cases.GPU_MEMORY[preset])
    rounds = {"time": 1 if preset == "small" else 3, "peak": 1}
    _race(result["memory"], rounds, result["platform"], MEMORY, clock)


def _times(result: Result, clock: Clock) -> None:
    preset = result["preset"]
    result["times"] = _new_race(peers.GPU, cases.GPU_TIMES[preset])
    rounds = {"time": 1 if preset == "small" else 5}
    _race(result["times"], rounds, result["platform"], TIMES, clock)


def _loops(result: Result, clock: Clock) -> None:
    preset = result["preset"]
    result["loops"] = _new_race(peers.GPU_LOOPS, cases.GPU_LOOPS[preset])
    rounds = {"time": 1 if preset == "small" else 5}
    _race(result["loops"], rounds, result["platform"], LOOPS, clock)


def _new_race(contestants: list[Contestant], todo: list[cases.Case]) -> Result:
    """A race in which nothing was measured yet."""
    race = {"contestants": contestants, "cases": [], "missing": {}, "versions": {}}
    return race | {"todo": list(todo)}


def _race(
    race: Result, rounds: dict[str, int], platform: str, share: float, clock: Clock
) -> None:
    """Measure the cases until the time is over."""
    names = [one.name for one in race["contestants"]]
    clock.say(f"starting {', '.join(names)}")
    tf32 = TF32_TOLERANCE if platform == "gpu" else 0
    with started(race["contestants"], clock.patience) as (processes, hellos):
        for name, hello in hellos.items():
            race["versions"] |= hello.get("versions", {})
            if "missing" in hello:
                race["missing"][name] = hello["missing"]
        while race["todo"] and not clock.is_over(share):
            case = race["todo"][0]
            clock.say(f"measuring {case.name}")
            limits = {"limit": BYTES, "choose": False}
            tolerance = max(case.tolerance, tf32)
            row = run_case(case, processes, rounds, tolerance, **limits)
            if clock.is_over(END):
                return  # The last case was cut.
            missing = race["missing"].items()
            row["peers"] |= {name: {"missing": reason} for name, reason in missing}
            race["cases"].append(row)
            race["todo"].pop(0)
