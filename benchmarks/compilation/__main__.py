"""The command: `python -m benchmarks.compilation --preset full`."""

import argparse
from collections.abc import Sequence

from ..core import command
from . import NAMES, __doc__ as about
from .cases import PRESETS, TAKES
from .tables import draw, write_report

ROUNDS = 3


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; wrong ones end the program with a message."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.compilation", description=about
    )
    command.add_options(
        parser,
        PRESETS,
        about=command.about_cases(PRESETS, TAKES),
        rounds=str(ROUNDS),
        name="compilation_ and the preset",
    )
    command.add_peers(parser, NAMES)
    parser.set_defaults(rounds=ROUNDS, preset="full")
    return command.parse_race(parser, arguments, PRESETS, NAMES)


def main(arguments: Sequence[str] | None = None) -> None:
    """Times, and writes the result after each case."""
    options = parse(arguments)
    if options.list:
        print("\n".join(case.name for case in options.cases))
        return
    file = options.out / f"{options.name or f'compilation_{options.preset}'}.json"
    worker = "benchmarks.compilation.worker"
    result = command.run_race(options, file, worker, write_report, draw)
    print(write_report(result))


if __name__ == "__main__":
    main()
