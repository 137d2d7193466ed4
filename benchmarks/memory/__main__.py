"""The command: `python -m benchmarks.memory --preset quick`."""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..machine import describe as describe_machine
from .cases import DTYPES, LOSSES, PRESETS, Case, make_cases
from .measure import run_case, start_worker
from .peak import measure_peak
from .plot import draw
from .report import write_report
from .strategies import KEEP, NAMES, describe

Result = dict[str, Any]

RESULTS = Path(__file__).resolve().parents[1] / "results"
CPU_LIMIT_GB = 4.0
SHARE = 0.95  # Of a device's memory.


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; wrong ones end the program with a message."""
    parser = argparse.ArgumentParser("python -m benchmarks.memory", description=__doc__)
    add = parser.add_argument
    add("--preset", choices=PRESETS, default="quick", help="which cases")
    add("--only", metavar="REGEX", help=f"strategies that match; `{KEEP}` always runs")
    add("--list", action="store_true", help="names cases and strategies, and stops")
    add("--steps", type=_count, nargs="+", metavar="T", help="numbers of time steps")
    add("--batch", type=_count, help="rows")
    add("--units", type=_count, help="of the LSTM")
    add("--depth", type=_count, help="of the inputs")
    add("--rounds", type=_count, help="how often all strategies are timed")
    add("--loss", choices=LOSSES, default="final", help="what is differentiated")
    add("--dtype", choices=DTYPES, default="float32", help="of parameters and inputs")
    add(
        "--limit",
        type=float,
        metavar="GB",
        help=f"what a program may take: {CPU_LIMIT_GB:g}, or what the device has",
    )
    add("--out", type=Path, default=RESULTS, help="folder of the results")
    add("--name", help="what the results are called; `memory_PRESET` by default")
    add("--resume", action="store_true", help="keep the cases that are saved already")
    add(
        "--peak", action="store_true", help="the memory of a process that trains, alone"
    )
    options = parser.parse_args(arguments)
    options.names = [n for n in NAMES if n == KEEP or re.search(options.only or "", n)]
    sizes = ("steps", "batch", "units", "depth", "rounds", "loss", "dtype")
    options.cases = make_cases(
        PRESETS[options.preset], {name: getattr(options, name) for name in sizes}
    )
    return options


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, and writes what came of it after each case."""
    options = parse(arguments)
    if options.list:
        print("\n".join(case.name for case in options.cases), end="\n\n")
        print("\n".join(f"{name}: {describe(name)}" for name in options.names))
        return
    file = options.out / f"{options.name or f'memory_{options.preset}'}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    result = _new_result(options, file)
    if options.peak:
        result["peak"] = measure_peak()
        _write(result, file)
    else:
        _measure(options, result, file)
    print(write_report(result))


def _new_result(options: argparse.Namespace, file: Path) -> Result:
    """A result without cases; with `--resume` or `--peak` those that are saved."""
    worker = start_worker()
    try:
        hello = worker.ask("hello")
    finally:
        worker.close()
    if "failed" in hello:
        raise SystemExit(hello["failed"])
    result = {"name": file.stem, "machine": describe_machine(), **hello, "cases": []}
    if not file.exists() or not (options.resume or options.peak):
        return result
    saved = json.loads(file.read_text())
    for key in ("machine", "versions", "backend", "device"):
        if saved[key] != result[key]:
            raise SystemExit(f"--resume: the saved result is of other {key}")
    return saved | {"name": file.stem}


def _measure(options: argparse.Namespace, result: Result, file: Path) -> None:
    limit = _limit_bytes(options.limit, result["device_bytes"])
    done = {row["name"] for row in result["cases"]}
    cases = [case for case in options.cases if case.name not in done]
    with tqdm(total=sum(_parts(options, case) for case in cases)) as bar:

        def tick(what: str) -> None:
            bar.set_description(what)
            bar.update()

        for case in cases:
            end = bar.n + _parts(options, case)
            result["cases"].append(run_case(case, options.names, limit, tick))
            bar.update(end - bar.n)  # What was left out.
            _write(result, file)


def _parts(options: argparse.Namespace, case: Case) -> int:
    """To compile, to run first, to time."""
    return len(options.names) * (2 + case.rounds)


def _limit_bytes(limit_gb: float | None, device_bytes: int | None) -> float:
    if limit_gb is not None:
        return 1e9 * limit_gb
    return SHARE * device_bytes if device_bytes else 1e9 * CPU_LIMIT_GB


def _write(result: Result, file: Path) -> None:
    """The numbers, the tables and the picture of what there is so far."""
    result["cases"].sort(key=lambda row: (row["case"]["loss"], row["case"]["steps"]))
    file.write_text(json.dumps(result, indent=1) + "\n")
    file.with_suffix(".md").write_text(write_report(result))
    if result["cases"]:
        draw(result, file.with_suffix(".png"))


if __name__ == "__main__":
    main()
