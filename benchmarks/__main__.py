"""Times jaxrnn and its peers on this machine.

    python -m benchmarks race                      # against Flax, PyTorch and others
    python -m benchmarks versions --old CHECKOUT   # against another jaxrnn checkout
    python -m benchmarks compilation               # time to compile
    python -m benchmarks recurrences               # recurrences that run in parallel
    python -m benchmarks gpu --out gpu.md          # checks and times of a GPU

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

from . import cases, peers, report
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
    measures: Sequence[report.Measure] = ()


COMMANDS = {
    "race": Command(
        cases.RACE, peers.RACE, {"time": 9}, [report.TIME], [report.MEMORY]
    ),
    "versions": Command(
        cases.VERSIONS,
        [peers.OURS],
        {"time": 9, "compile": 3},
        [report.TIME, report.COMPILE, report.MEMORY],
    ),
    "compilation": Command(
        cases.COMPILATION, peers.COMPILATION, {"compile": 3}, [report.COMPILE]
    ),
    "recurrences": Command(
        cases.RECURRENCES,
        peers.RECURRENCES,
        {"time": 9},
        [report.TIME],
        [report.MEMORY],
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
    of_gpu = commands.add_parser("gpu")
    small = "a few checks and small cases, which also run on a CPU"
    of_gpu.add_argument("--small", action="store_true", help=small)
    of_gpu.add_argument("--out", type=Path, metavar="FILE", help="file for the page")
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
    add("--rounds", type=int, help=f"rounds of each measurement (default: {rounds})")
    known = ", ".join(one.name for one in command.contestants)
    add("--peers", metavar="A,B", help=f"some of {known}; the first always runs")
    python = "the Python interpreter for a peer; may be repeated"
    add("--python", metavar="PEER=PATH", action="append", default=[], help=python)
    old = f"also race the jaxrnn in this folder, as {peers.OLD}"
    add("--old", type=Path, metavar="CHECKOUT", required=needs_old, help=old)
    add("--out", type=Path, default=RESULTS, help="folder for the results")
    add("--name", help="name of the results (default: command and preset)")


def _contestants(
    options: argparse.Namespace, known: list[Contestant]
) -> list[Contestant]:
    """The requested contestants, with their interpreters and checkouts.

    Raises:
        ValueError: If a peer or a checkout does not exist.
    """
    names = [one.name for one in known]
    chosen = options.peers.split(",") if options.peers else names
    pythons = dict(pair.partition("=")[::2] for pair in options.python)
    for name in (*chosen, *pythons):
        if name not in names:
            raise ValueError(f"unknown peer {name!r}; known: {', '.join(names)}")
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
        from . import gpu  # The other commands run jaxrnn in other processes.

        sys.exit(gpu.run(options))
    from tqdm import tqdm  # `gpu` needs only JAX.

    command = COMMANDS[options.command]
    name = options.name or f"{options.command}_{options.preset}"
    if options.command == "race" and not options.name:
        name = f"{name}_{file_name()}"  # The ratios depend on the processor.
    file = options.out / f"{name}.json"
    rounds = {do: options.rounds or number for do, number in command.rounds.items()}
    choose = options.command == "race"
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
        for case in (bar := tqdm(options.cases)):
            bar.set_description(case.name)
            result["cases"].append(run_case(case, processes, rounds, choose))
            save(result, file)
            page = report.write_report(result, command.by_mode, command.measures)
            file.with_suffix(".md").write_text(page)
    print(report.write_report(result, command.by_mode, command.measures))


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
