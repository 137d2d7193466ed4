"""Times jaxrnn and its peers on this machine.

    python -m benchmarks race                      # against Flax, PyTorch and others
    python -m benchmarks versions --old CHECKOUT   # against another jaxrnn checkout
    python -m benchmarks memory                    # memory strategies (swap_memory)
    python -m benchmarks compilation               # time to compile
    python -m benchmarks recurrences               # recurrences that run in parallel
    python -m benchmarks gpu                       # all that a GPU can show, in minutes

`benchmarks/README.md` explains the method.
"""

import argparse
import dataclasses
import datetime
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import cases, gpu, peers, report
from .machine import commit, describe, file_name
from .peers import Contestant
from .process import said, started
from .rounds import run_case

Result = dict[str, Any]

RESULTS = Path(__file__).resolve().parent / "results"
NAMES = (
    "run only the cases whose name matches; in `lstm B16 T120 D96 H160 dense train` "
    "the numbers are rows (B), steps (T), inputs (D) and units (H)"
)


@dataclasses.dataclass(frozen=True)
class Command:
    """A subcommand of `python -m benchmarks`.

    Attributes:
        presets: The cases of each preset.
        contestants: The contestants. The first always runs.
        rounds: The number of rounds of each measurement.
        by_mode: The measures with one table per mode.
        measures: The measures with one table for all cases.
    """

    presets: cases.Presets
    contestants: list[Contestant]
    rounds: dict[str, int]
    by_mode: Sequence[report.Measure]
    measures: Sequence[report.Measure]


COMMANDS = {
    "race": Command(
        cases.RACE,
        peers.RACE,
        {"time": 9},
        [report.TIME],
        [report.MEMORY, report.COMPILE_ONCE],
    ),
    "versions": Command(
        cases.VERSIONS,
        [peers.OURS],
        {"time": 9, "compile": 3},
        [report.TIME, report.COMPILE, report.MEMORY],
        [],
    ),
    "memory": Command(
        cases.MEMORY,
        peers.MEMORY,
        {"time": 5},
        [report.TIME],
        [*report.MEMORIES, report.COMPILE_ONCE],
    ),
    "compilation": Command(
        cases.COMPILATION,
        peers.COMPILATION,
        {"compile": 3},
        [report.COMPILE],
        [],
    ),
    "recurrences": Command(
        cases.RECURRENCES,
        peers.RECURRENCES,
        {"time": 9},
        [report.TIME],
        report.MEMORIES[:1],
    ),
}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the arguments. Wrong ones end the program with a message."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        _add_options(commands.add_parser(name), command, needs_old=name == "versions")
    gpu.add_options(commands.add_parser("gpu", description=gpu.__doc__))
    options = parser.parse_args(arguments)
    if options.command == "gpu":
        return options
    try:
        command = COMMANDS[options.command]
        options.cases = cases.select(command.presets[options.preset], options.only)
        options.contestants = _contestants(options, command.contestants)
    except ValueError as error:
        parser.error(str(error))
    return options


def _add_options(
    parser: argparse.ArgumentParser, command: Command, needs_old: bool
) -> None:
    add = parser.add_argument
    add("--preset", choices=command.presets, default="quick")
    add("--only", metavar="REGEX", help=NAMES)
    rounds = report.listed(command.rounds, ": ", ", ")
    add("--rounds", type=_count, help=f"rounds of each measurement (default: {rounds})")
    known = ", ".join(one.name for one in command.contestants)
    add("--peers", metavar="A,B", help=f"some of {known}; the first always runs")
    python = "the Python interpreter for a peer; may be repeated"
    add("--python", metavar="PEER=PATH", action="append", default=[], help=python)
    old = f"also race the jaxrnn in this folder, as {peers.OLD}"
    add("--old", type=Path, metavar="CHECKOUT", required=needs_old, help=old)
    limit = "skip programs that need more memory (default: %(default)s)"
    add("--limit", type=float, metavar="GB", default=4.0, help=limit)
    add("--out", type=Path, default=RESULTS, help="folder for the results")
    add("--name", help="name of the results (default: command and preset)")
    add("--resume", action="store_true", help="skip the cases that are already saved")


def _count(text: str) -> int:
    """An integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return int(text)


def _contestants(
    options: argparse.Namespace, known: list[Contestant]
) -> list[Contestant]:
    """The requested contestants, with their interpreters and checkouts.

    Raises:
        ValueError: If a peer, an interpreter or a checkout does not exist.
    """
    names = [one.name for one in known]
    chosen = options.peers.split(",") if options.peers else names
    pythons = dict(pair.partition("=")[::2] for pair in options.python)
    for name in (*chosen, *pythons):
        if name not in names:
            raise ValueError(f"unknown peer {name!r}; known: {', '.join(names)}")
    for name, path in pythons.items():
        if not Path(path).is_file():
            raise ValueError(f"--python {name}={path}: no such file")
    # Do not resolve symlinks: resolving one would leave the virtual environment.
    made = [
        dataclasses.replace(
            one, python=os.path.abspath(pythons.get(one.name, one.python))
        )
        for one in known
        if one.name in (names[0], *chosen)
    ]
    if options.old:
        if not (options.old / "jaxrnn").is_dir():
            raise ValueError(f"--old {options.old}: no folder jaxrnn in it")
        made.insert(1, Contestant(peers.OLD, "jaxrnn", checkout=options.old.resolve()))
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all cases, save the result after each, and print the tables."""
    options = parse(arguments)
    if options.command == "gpu":
        sys.exit(gpu.run(options))
    from tqdm import tqdm  # `gpu` needs only JAX.

    command = COMMANDS[options.command]
    name = options.name or f"{options.command}_{options.preset}"
    if options.command == "race" and not options.name:
        name = f"{name}_{file_name()}"  # The ratios depend on the processor.
    file = options.out / f"{name}.json"
    rounds = {do: options.rounds or number for do, number in command.rounds.items()}
    limits = {"limit": 1e9 * options.limit, "choose": options.command == "race"}
    result = {
        "name": name,
        "date": datetime.date.today().isoformat(),
        "command": f"{options.command} --preset {options.preset}",
        "rounds": rounds,
        "machine": describe(),
        "commits": _commits(options),
    }
    with started(options.contestants) as (processes, hellos):
        first = options.contestants[0].name
        if first not in processes:
            raise SystemExit(f"{first} cannot run: {hellos[first]['missing']}")
        result |= said(hellos) | {"cases": []}
        if options.resume and file.exists():
            result["cases"] = _saved_cases(file, result)
        done = {row["name"] for row in result["cases"]}
        bar = tqdm([case for case in options.cases if case.name not in done])
        for case in bar:
            bar.set_description(case.name)
            result["cases"].append(run_case(case, processes, rounds, **limits))
            save(result, file)
            page = report.write_report(result, command.by_mode, command.measures)
            file.with_suffix(".md").write_text(page)
    print(report.write_report(result, command.by_mode, command.measures))


def _saved_cases(file: Path, result: Result) -> list[Result]:
    """The cases saved in the file.

    Raises:
        SystemExit: If they were measured under other conditions.
    """
    saved = json.loads(file.read_text())
    for key in ("rounds", "machine", "commits", "versions"):
        if saved[key] != result[key]:
            raise SystemExit(f"--resume: the saved result has different {key}")
    return saved["cases"]


def _commits(options: argparse.Namespace) -> dict[str, str]:
    """The commit of each version of jaxrnn in the race."""
    folders = {"jaxrnn": peers.ROOT}
    if options.old:
        folders[peers.OLD] = options.old
    return {name: commit(folder) for name, folder in folders.items()}


def save(result: Result, file: Path) -> None:
    """Write the numbers, with a line for each case."""
    facts = json.dumps(result | {"cases": []}).removesuffix("]}")
    rows = ",\n".join(map(json.dumps, result["cases"]))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{facts}\n{rows}\n]}}\n")


if __name__ == "__main__":
    main()
