"""The command: `python -m benchmarks --preset quick`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .cases import PRESETS
from .command import add_options, keep_saved, race_cases, read_options
from .history import compare
from .machine import describe
from .peers import NAMES, OURS
from .plot import draw
from .process import PeerProcess
from .report import write_report

Result = dict[str, Any]

ROUNDS = dict.fromkeys(PRESETS, 9)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; wrong ones end the program with a message."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    add_options(parser, PRESETS, NAMES)
    parser.add_argument(
        "--compare", type=Path, metavar="OLD.json", help="how ratios moved since"
    )
    options = read_options(parser, arguments, PRESETS, NAMES, ROUNDS)
    if options.compare and not options.compare.is_file():
        parser.error(f"--compare: there is no {options.compare}")
    return options


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
    present = {name: peer for name, peer in peers.items() if not peer.missing}
    missing = {name: peer.missing for name, peer in peers.items() if peer.missing}
    if OURS in missing:
        raise SystemExit(f"{OURS} cannot run: {missing[OURS]}")
    for name, reason in missing.items():
        print(f"left out: {name} ({reason})", file=sys.stderr)
    result: Result = {
        "name": file.stem,
        "rounds": options.rounds,
        "machine": describe(),
        "versions": {name: peer.versions for name, peer in present.items()},
        "missing": missing,
        "cases": [],
    }
    if options.resume:
        keep_saved(result, file, ("rounds", "machine", "versions"))
    file.parent.mkdir(parents=True, exist_ok=True)
    save = lambda result: file.write_text(json.dumps(result, indent=1))
    race_cases(options.cases, present, result, save)
    return result


if __name__ == "__main__":
    main()
