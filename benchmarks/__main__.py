"""The command: `python -m benchmarks --preset quick`."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .cases import PRESETS, Case, select
from .history import compare
from .machine import describe
from .peers import NAMES, OURS
from .plot import draw
from .process import PeerProcess
from .race import run_case
from .report import write_report

Result = dict[str, Any]

HERE = Path(__file__).resolve().parent


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; wrong ones end the program with a message."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--preset", choices=PRESETS, default="quick", help="which cases")
    add("--only", metavar="REGEX", help="of those the cases whose name matches")
    add("--list", action="store_true", help="names the cases, and stops")
    add("--peers", metavar="A,B", help=f"of {', '.join(NAMES)}; {OURS} always runs")
    add("--rounds", type=int, default=9, help="how often all peers are timed")
    add(
        "--python",
        metavar="PEER=PATH",
        action="append",
        default=[],
        help="the interpreter of a peer's environment; may be given several times",
    )
    add("--out", type=Path, default=HERE / "results", help="folder of the results")
    add("--name", help="what the results are called; the preset by default")
    add("--resume", action="store_true", help="keep the cases that are saved already")
    add("--compare", type=Path, metavar="OLD.json", help="how ratios moved since")
    options = parser.parse_args(arguments)
    try:
        options.cases = select(options.preset, options.only)
        options.peers = _peers(options.peers)
        options.python = _pythons(options.python)
    except ValueError as error:
        parser.error(str(error))
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    if options.compare and not options.compare.is_file():
        parser.error(f"--compare: there is no {options.compare}")
    return options


def _peers(names: str | None) -> list[str]:
    chosen = names.split(",") if names else NAMES
    for name in chosen:
        _check_peer(name)
    return [name for name in NAMES if name in chosen or name == OURS]


def _pythons(pairs: list[str]) -> dict[str, str]:
    pythons = {}
    for pair in pairs:
        name, _, path = pair.partition("=")
        _check_peer(name)
        if not Path(path).is_file():
            raise ValueError(f"--python {pair}: there is no such interpreter")
        pythons[name] = os.path.abspath(path)  # As it is: a link is the environment.
    return pythons


def _check_peer(name: str) -> None:
    if name not in NAMES:
        raise ValueError(f"unknown peer {name!r}; known: {', '.join(NAMES)}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Races, and writes what came of it after each case."""
    options = parse(arguments)
    if options.list:
        print("\n".join(case.name for case in options.cases))
        return
    file = options.out / f"{options.name or options.preset}.json"
    old = json.loads(options.compare.read_text()) if options.compare else None
    peers = {
        name: PeerProcess(name, options.python.get(name, sys.executable))
        for name in options.peers
    }
    try:
        for peer in tqdm(peers.values(), "starting peers", leave=False):
            peer.meet()
        result = _race(options, peers, file)
    finally:
        for peer in peers.values():
            peer.close()
    file.with_suffix(".md").write_text(write_report(result))
    draw(result, file.with_suffix(".png"))
    print(write_report(result) if old is None else compare(old, result))


def _race(
    options: argparse.Namespace, peers: dict[str, PeerProcess], file: Path
) -> Result:
    result = _new_result(options, peers, file)
    present = {name: peer for name, peer in peers.items() if not peer.missing}
    if OURS not in present:
        raise SystemExit(f"{OURS} cannot be imported: {peers[OURS].missing}")
    for name, reason in result["missing"].items():
        print(f"left out: {name} ({reason})", file=sys.stderr)
    done = {row["name"] for row in result["cases"]}
    cases: list[Case] = [case for case in options.cases if case.name not in done]
    file.parent.mkdir(parents=True, exist_ok=True)
    with tqdm(total=len(cases) * (len(present) + options.rounds)) as bar:

        def tick(what: str) -> None:
            bar.set_description(what)
            bar.update()

        for case in cases:
            result["cases"].append(run_case(case, present, options.rounds, tick))
            file.write_text(json.dumps(result, indent=1))
    return result


def _new_result(
    options: argparse.Namespace, peers: dict[str, PeerProcess], file: Path
) -> Result:
    """A result without cases; with `--resume` those that are saved."""
    result: Result = {
        "name": file.stem,
        "rounds": options.rounds,
        "machine": describe(),
        "versions": {n: peer.versions for n, peer in peers.items() if not peer.missing},
        "missing": {n: peer.missing for n, peer in peers.items() if peer.missing},
        "cases": [],
    }
    if options.resume and file.exists():
        saved = json.loads(file.read_text())
        for key in ("rounds", "machine", "versions"):
            if saved[key] != result[key]:
                raise SystemExit(f"--resume: the saved result is of other {key}")
        result["cases"] = saved["cases"]
    return result


if __name__ == "__main__":
    main()
