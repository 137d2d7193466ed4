"""What the commands that race peers share: arguments, and a race that is saved."""

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .cases import Case, select
from .process import PeerProcess
from .race import run_case

Result = dict[str, Any]
Presets = dict[str, list[Any]]

RESULTS = Path(__file__).resolve().parent / "results"


def add_options(
    parser: argparse.ArgumentParser,
    presets: Presets,
    names: Sequence[str],
    *,
    name: str = "the preset",
    takes: Mapping[str, str] | None = None,
) -> None:
    """What every race can be told; the first of the peers always runs.

    `name` is what results are called by default, `takes` how long each preset takes.
    """
    add = parser.add_argument
    sizes = "; ".join(_size(p, cases, takes) for p, cases in presets.items())
    about = f"which cases: {sizes} (default: %(default)s)"
    add("--preset", choices=presets, default="quick", help=about)
    add("--only", metavar="REGEX", help="of those the cases whose name matches")
    add("--list", action="store_true", help="names the cases, and stops")
    known = ", ".join(names)
    add("--peers", metavar="A,B", help=f"of {known}; {names[0]} always runs")
    add("--rounds", type=int, help="how often all peers are timed")
    add(
        "--python",
        metavar="PEER=PATH",
        action="append",
        default=[],
        help="the interpreter of a peer's environment; may be given several times",
    )
    add("--out", type=Path, default=RESULTS, help="folder of the results (%(default)s)")
    add("--name", help=f"what the results are called (default: {name})")
    add("--resume", action="store_true", help="keep the cases that are saved already")


def _size(preset: str, cases: Sequence[Any], takes: Mapping[str, str] | None) -> str:
    """How many cases a preset has and, if that is known, how long they take."""
    size = f"{preset} has {len(cases)}"
    return f"{size} and takes {takes[preset]}" if takes else size


def read_options(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    presets: Presets,
    names: Sequence[str],
    rounds: dict[str, int],
) -> argparse.Namespace:
    """The arguments; wrong ones end the program with a message.

    `rounds` is how often each preset is timed unless told otherwise.
    """
    options = parser.parse_args(arguments)
    try:
        options.cases = select(options.preset, options.only, presets)
        options.peers = _peers(options.peers, names)
        options.python = _pythons(options.python, names)
    except ValueError as error:
        parser.error(str(error))
    if options.rounds is None:
        options.rounds = rounds[options.preset]
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    return options


def _peers(chosen: str | None, names: Sequence[str]) -> list[str]:
    wanted = chosen.split(",") if chosen else names
    for name in wanted:
        _check_peer(name, names)
    return [name for name in names if name in wanted or name == names[0]]


def _pythons(pairs: list[str], names: Sequence[str]) -> dict[str, str]:
    pythons = {}
    for pair in pairs:
        name, _, path = pair.partition("=")
        _check_peer(name, names)
        if not Path(path).is_file():
            raise ValueError(f"--python {pair}: there is no such interpreter")
        pythons[name] = os.path.abspath(path)  # As it is: a link is the environment.
    return pythons


def _check_peer(name: str, names: Sequence[str]) -> None:
    if name not in names:
        raise ValueError(f"unknown peer {name!r}; known: {', '.join(names)}")


def keep_saved(result: Result, file: Path, same: Sequence[str]) -> None:
    """Takes the cases that are saved, if they were measured with the same things."""
    if not file.exists():
        return
    saved = json.loads(file.read_text())
    for key in same:
        if saved[key] != result[key]:
            raise SystemExit(f"--resume: the saved result is of other {key}")
    result["cases"] = saved["cases"]


def race_cases(
    cases: Sequence[Case],
    peers: Mapping[str, PeerProcess],
    result: Result,
    save: Callable[[Result], None],
) -> None:
    """Adds to the result what came of each case that it does not have, and saves it."""
    done = {row["name"] for row in result["cases"]}
    cases = [case for case in cases if case.name not in done]
    rounds = result["rounds"]
    with tqdm(total=len(cases) * (len(peers) + rounds)) as bar:

        def tick(what: str) -> None:
            bar.set_description(what)
            bar.update()

        for case in cases:
            result["cases"].append(run_case(case, peers, rounds, tick))
            save(result)
