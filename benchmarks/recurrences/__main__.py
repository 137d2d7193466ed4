"""The command: `python -m benchmarks.recurrences`."""

import argparse
from collections.abc import Sequence

from ..core import command
from . import NAMES, __doc__ as about
from .cases import PRESETS, TAKES, cases
from .tables import draw, write_report

ROUNDS = 5


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; wrong ones end the program with a message."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.recurrences", description=about
    )
    sizes = {name: cases(*preset) for name, preset in PRESETS.items()}
    sizes = command.about_cases(sizes, TAKES)
    command.add_options(
        parser, PRESETS, about=sizes, rounds=str(ROUNDS), name="recurrences"
    )
    steps = "of the race; the growth is from an eighth of them to 8 times as many"
    parser.add_argument("--steps", type=command.count, metavar="T", help=steps)
    command.add_peers(parser, NAMES)
    parser.set_defaults(rounds=ROUNDS, preset="full", name="recurrences")
    options = parser.parse_args(arguments)
    steps, units = PRESETS[options.preset]
    chosen = {options.preset: cases(options.steps or steps, units)}
    command.check_race(parser, options, chosen, NAMES)
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Races, and writes the result after each case."""
    options = parse(arguments)
    if options.list:
        print("\n".join(case.name for case in options.cases))
        return
    file = options.out / f"{options.name}.json"
    worker = "benchmarks.recurrences.worker"
    result = command.run_race(options, file, worker, write_report, draw)
    print(write_report(result))


if __name__ == "__main__":
    main()
