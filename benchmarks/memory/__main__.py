"""The command: `python -m benchmarks.memory --preset quick`."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core import command
from ..core.machine import describe as describe_machine
from . import __doc__ as about
from .cases import DTYPES, LOSSES, PRESETS, Case
from .measure import run_case, worker
from .strategies import KEEP, NAMES, describe
from .tables import draw, write_report

Result = dict[str, Any]

CPU_LIMIT_GB = 4.0
SHARE = 0.95  # Of a device's memory.
SIZES = ("batch", "units", "depth", "rounds", "loss", "dtype")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; wrong ones end the program with a message."""
    parser = argparse.ArgumentParser("python -m benchmarks.memory", description=about)
    steps = [f"{n} has {', '.join(map(str, p.rounds))}" for n, p in PRESETS.items()]
    sizes = f"the numbers of steps and the sizes: {'; '.join(steps)} steps"
    only = f"strategies whose name matches: {'; '.join(NAMES)}. `{KEEP}` always runs"
    command.add_options(
        parser, PRESETS, about=sizes, only=only, name="memory_ and the preset"
    )
    add, count = parser.add_argument, command.count
    add("--steps", type=count, nargs="+", metavar="T", help="numbers of time steps")
    add("--batch", type=count, help="number of rows")
    add("--units", type=count, help="units of the LSTM")
    add("--depth", type=count, help="size of the inputs")
    loss = "of the final state, or of all outputs (default: %(default)s)"
    add("--loss", choices=LOSSES, default="final", help=loss)
    dtype = "of parameters and inputs (default: %(default)s)"
    add("--dtype", choices=DTYPES, default="float32", help=dtype)
    limit = (
        "programs that need more memory are compiled, not run (default: "
        f"{CPU_LIMIT_GB:g}, or what the device has)"
    )
    add("--limit", type=float, metavar="GB", help=limit)
    peak = "measure only the resident memory of a process that trains"
    add("--peak", action="store_true", help=peak)
    options = parser.parse_args(arguments)
    options.names = [n for n in NAMES if n == KEEP or re.search(options.only or "", n)]
    preset = PRESETS[options.preset]
    sizes = {name: size for name in SIZES if (size := getattr(options, name))}
    steps = sorted(options.steps or preset.rounds)
    options.cases = [preset.case(number, **sizes) for number in steps]
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, and writes the result after each case."""
    options = parse(arguments)
    if options.list:
        print("\n".join(case.name for case in options.cases), end="\n\n")
        print("\n".join(f"{name}: {describe(name)}" for name in options.names))
        return
    file = options.out / f"{options.name or f'memory_{options.preset}'}.json"
    result = _new_result(options, file)
    if options.peak:
        with worker() as process:
            result["peak"] = _answer(process.ask("train"))
        _write(result, file)
    else:
        _measure(options, result, file)
    print(write_report(result))


def _new_result(options: argparse.Namespace, file: Path) -> Result:
    """A result without cases; with `--resume` or `--peak`, with those saved."""
    with worker() as process:
        hello = _answer(process.ask("hello"))
    device_bytes = hello.pop("device_bytes")
    facts = {"machine": describe_machine(), **hello}
    old = {"cases": []}
    if options.resume or options.peak:
        old = command.saved_result(file, facts)
    return old | {"name": file.stem, **facts, "device_bytes": device_bytes}


def _answer(answer: Result) -> Result:
    """The answer, if it does not report a failure."""
    if "failed" in answer:
        raise SystemExit(answer["failed"])
    return answer


def _measure(options: argparse.Namespace, result: Result, file: Path) -> None:
    limit = _limit_bytes(options.limit, result["device_bytes"])
    done = {row["name"] for row in result["cases"]}
    cases = [case for case in options.cases if case.name not in done]
    total = sum(_parts(options, case) for case in cases)
    with command.progress(total) as (bar, tick):
        for case in cases:
            end = bar.n + _parts(options, case)
            result["cases"].append(run_case(case, options.names, limit, tick))
            bar.update(end - bar.n)  # What was left out.
            _write(result, file)


def _parts(options: argparse.Namespace, case: Case) -> int:
    """The steps of the progress bar: each strategy is compiled, run once, and timed."""
    return len(options.names) * (2 + case.rounds)


def _limit_bytes(limit_gb: float | None, device_bytes: int | None) -> float:
    if limit_gb is not None:
        return 1e9 * limit_gb
    return SHARE * device_bytes if device_bytes else 1e9 * CPU_LIMIT_GB


def _write(result: Result, file: Path) -> None:
    result["cases"].sort(key=lambda row: (row["case"]["loss"], row["case"]["steps"]))
    command.write(result, file, write_report, draw)


if __name__ == "__main__":
    main()
