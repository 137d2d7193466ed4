"""The command: `python -m benchmarks.compilation --preset full`."""

import argparse
import functools
from collections.abc import Sequence

from ..core import command
from ..core.machine import describe
from ..core.process import started
from . import NAMES, __doc__ as about
from .cases import PRESETS, TAKES
from .tables import draw, write_report

ROUNDS = 3


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; wrong ones end the program with a message."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.compilation", description=about
    )
    sizes = [f"{n} has {len(cs)} and takes {TAKES[n]}" for n, cs in PRESETS.items()]
    command.add_options(
        parser,
        PRESETS,
        about=f"which cases: {'; '.join(sizes)}",
        rounds=str(ROUNDS),
        name="compilation_ and the preset",
    )
    command.add_peers(parser, NAMES)
    parser.set_defaults(rounds=ROUNDS, preset="full")
    options = parser.parse_args(arguments)
    try:
        command.read_race(options, PRESETS, NAMES)
    except ValueError as error:
        parser.error(str(error))
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Times, and writes the result after each case."""
    options = parse(arguments)
    if options.list:
        print("\n".join(case.name for case in options.cases))
        return
    file = options.out / f"{options.name or f'compilation_{options.preset}'}.json"
    save = functools.partial(command.write, file=file, report=write_report, draw=draw)
    worker = "benchmarks.compilation.worker"
    with started(options.peers, worker, options.python) as peers:
        result = command.new_result(options, file, peers, machine=describe())
        command.race(options.cases, peers, result, save)
    print(write_report(result))


if __name__ == "__main__":
    main()
