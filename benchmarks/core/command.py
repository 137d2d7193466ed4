"""What the commands share: arguments, results that can be resumed, the race."""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .cases import Case, select
from .machine import describe
from .process import Peer, started
from .rounds import run_case

Result = dict[str, Any]

RESULTS = Path(__file__).resolve().parents[1] / "results"
NAMES = (
    "of these, the cases whose name matches; in `lstm B16 T120 D96 H160 dense train` "
    "the numbers are those of rows (B), steps (T), inputs (D) and units (H); "
    "benchmarks/README.md explains the words"
)


def add_options(
    parser: argparse.ArgumentParser,
    presets: Mapping[str, Any],
    *,
    about: str = "which cases",
    only: str = NAMES,
    rounds: str = "that of the preset",
    name: str = "the preset",
) -> None:
    """The options of all commands; `rounds` and `name` describe the defaults."""
    add = parser.add_argument
    about += " (default: %(default)s)"
    add("--preset", choices=presets, default="quick", help=about)
    add("--only", metavar="REGEX", help=only)
    add("--list", action="store_true", help="print the names of the cases, and stop")
    times = f"how often everything is timed (default: {rounds})"
    add("--rounds", type=count, help=times)
    folder = "folder of the results (default: %(default)s)"
    add("--out", type=Path, default=RESULTS, help=folder)
    add("--name", help=f"name of the results (default: {name})")
    add("--resume", action="store_true", help="keep the cases that are saved already")


def count(text: str) -> int:
    """A number that is at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return int(text)


def add_peers(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    """The options that choose peers and their environments."""
    known = ", ".join(names)
    parser.add_argument(
        "--peers", metavar="A,B", help=f"of {known}; {names[0]} always runs"
    )
    parser.add_argument(
        "--python",
        metavar="PEER=PATH",
        action="append",
        default=[],
        help="the interpreter of a peer's environment; may be repeated",
    )


def _read_race(
    options: argparse.Namespace,
    presets: Mapping[str, Sequence[Case]],
    names: Sequence[str],
) -> None:
    """Sets `cases` and `peers` to lists and `python` to a dict; the first peer runs.

    Raises:
        ValueError: If a case, a peer or an interpreter does not exist.
    """
    options.cases = select(presets, options.preset, options.only)
    chosen = options.peers.split(",") if options.peers else names
    pairs = [pair.partition("=")[::2] for pair in options.python]
    for name in (*chosen, *(name for name, _ in pairs)):
        if name not in names:
            raise ValueError(f"unknown peer {name!r}; known: {', '.join(names)}")
    for name, path in pairs:
        if not Path(path).is_file():
            raise ValueError(f"--python {name}={path}: there is no such interpreter")
    options.peers = [name for name in names if name in (names[0], *chosen)]
    # Links are not resolved: a link is the environment.
    options.python = {name: os.path.abspath(path) for name, path in pairs}


def parse_race(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    presets: Mapping[str, Sequence[Case]],
    names: Sequence[str],
) -> argparse.Namespace:
    """The arguments of a race; wrong ones end the program with a message."""
    options = parser.parse_args(arguments)
    check_race(parser, options, presets, names)
    return options


def check_race(
    parser: argparse.ArgumentParser,
    options: argparse.Namespace,
    presets: Mapping[str, Sequence[Case]],
    names: Sequence[str],
) -> None:
    """As `_read_race`; what does not exist ends the program with a message."""
    try:
        _read_race(options, presets, names)
    except ValueError as error:
        parser.error(str(error))


def about_cases(presets: Mapping[str, Sequence[Case]], takes: Mapping[str, str]) -> str:
    """For `--help`: how many cases the presets have, and how long they take."""
    sizes = [f"{n} has {len(cs)} and takes {takes[n]}" for n, cs in presets.items()]
    return f"which cases: {'; '.join(sizes)}"


def new_result(
    options: argparse.Namespace, file: Path, peers: Mapping[str, Peer], **facts: Any
) -> Result:
    """A result without cases; with `--resume`, with those that are saved.

    `facts` are further parts of the result, which a saved one has to share.
    """
    missing = {name: peer.missing for name, peer in peers.items() if peer.missing}
    for name, reason in missing.items():
        print(f"left out: {name} ({reason})", file=sys.stderr)
    ours = options.peers[0]
    if ours in missing:
        raise SystemExit(f"{ours} cannot run: {missing[ours]}")
    present = {n: peer.versions for n, peer in peers.items() if n not in missing}
    facts = {"rounds": options.rounds, **facts, "versions": present}
    saved = saved_result(file, facts) if options.resume else {"cases": []}
    return {"name": file.stem, **facts, "missing": missing, "cases": saved["cases"]}


def saved_result(file: Path, facts: Result) -> Result:
    """The result that is saved in the file; one without cases if there is no file.

    Raises:
        SystemExit: If something in `facts` differs from what was saved.
    """
    if not file.exists():
        return {"cases": []}
    saved = json.loads(file.read_text())
    for name, value in facts.items():
        if saved[name] != value:
            raise SystemExit(f"--resume: the saved result has other {name}")
    return saved


@contextlib.contextmanager
def progress(total: int) -> Iterator[tuple[tqdm, Callable[[str], None]]]:
    """A progress bar, and a function that names each part of the work."""
    with tqdm(total=total) as bar:

        def tick(what):
            bar.set_description(what)
            bar.update()

        yield bar, tick


def race(
    cases: Sequence[Case],
    peers: Mapping[str, Peer],
    result: Result,
    save: Callable[[Result], None],
) -> None:
    """Adds each case that the result lacks, and saves the result after each."""
    done = {row["name"] for row in result["cases"]}
    cases = [case for case in cases if case.name not in done]
    peers = {name: peer for name, peer in peers.items() if not peer.missing}
    with progress(len(cases) * (len(peers) + result["rounds"])) as (_, tick):
        for case in cases:
            result["cases"].append(run_case(case, peers, result["rounds"], tick))
            save(result)
    if not cases:
        save(result)


def run_race(
    options: argparse.Namespace,
    file: Path,
    worker: str,
    report: Callable[[Result], str],
    draw: Callable[[Result, Path], None],
) -> Result:
    """Starts the peers, each in a process of the module `worker`, and races them.

    The result is written to `file` after each case.
    """
    save = lambda result: write(result, file, report, draw)
    with started(options.peers, worker, options.python) as peers:
        result = new_result(options, file, peers, machine=describe())
        race(options.cases, peers, result, save)
    return result


def write(
    result: Result,
    file: Path,
    report: Callable[[Result], str],
    draw: Callable[[Result, Path], None],
) -> None:
    """Writes the numbers, the tables and the plot of all measurements so far."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, indent=1) + "\n")
    file.with_suffix(".md").write_text(report(result))
    draw(result, file.with_suffix(".png"))
