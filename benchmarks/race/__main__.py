"""Times jaxrnn and its peers on this machine: `python -m benchmarks --preset quick`."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from ..core import command
from ..peers import NAMES
from .cases import PRESETS, TAKES
from .history import compare
from .tables import draw, write_report

ROUNDS = 9


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; wrong ones end the program with a message."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    about = command.about_cases(PRESETS, TAKES)
    command.add_options(parser, PRESETS, about=about, rounds=str(ROUNDS))
    command.add_peers(parser, NAMES)
    parser.add_argument(
        "--compare",
        type=Path,
        metavar="OLD.json",
        help="print how ratios changed since that saved result",
    )
    parser.set_defaults(rounds=ROUNDS)
    options = command.parse_race(parser, arguments, PRESETS, NAMES)
    if options.compare and not options.compare.is_file():
        parser.error(f"--compare: there is no {options.compare}")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Races, and writes the result after each case."""
    options = parse(arguments)
    if options.list:
        print("\n".join(case.name for case in options.cases))
        return
    file = options.out / f"{options.name or options.preset}.json"
    old = json.loads(options.compare.read_text()) if options.compare else None
    worker = "benchmarks.core.worker"
    result = command.run_race(options, file, worker, write_report, draw)
    print(compare(old, result) if old else write_report(result))


if __name__ == "__main__":
    main()
