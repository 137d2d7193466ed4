"""The command: `python -m benchmarks.accelerator --preset quick`."""

import argparse
import datetime
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from ..core import command
from ..core.cases import Case
from ..core.machine import describe
from ..core.process import started
from . import NAMES, OURS
from .bounds import bounds, explain
from .cases import PRESETS, ROUNDS, TAKES, TINY
from .tables import draw, write_report

Result = dict[str, Any]

WORKER = "benchmarks.accelerator.worker"
# The machines of the bounds where the planner does not know the device.
USUAL = ("h100", "v5e")
ABOUT = """\
Times the kernels of jaxrnn on this GPU or TPU against XLA's loop and other libraries,
and writes tables, a plot and every round. On a CPU only `--preset smoke` runs, to
try the command: no kernel runs there.
"""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; wrong ones end the program with a message."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.accelerator", description=ABOUT
    )
    command.add_options(
        parser,
        PRESETS,
        about=command.about_cases(PRESETS, TAKES),
        name="accelerator_ and the name of the device",
    )
    command.add_peers(parser, NAMES)
    parser.add_argument(
        "--machines",
        metavar="A,B",
        help="the machines, by their names in `jaxrnn.explain`, whose bounds are "
        f"written; by default this one, or {' and '.join(USUAL)} if it has no name "
        "there; on a CPU, none",
    )
    options = command.parse_race(parser, arguments, PRESETS, NAMES)
    options.rounds = options.rounds or ROUNDS[options.preset]
    options.machines = options.machines.split(",") if options.machines else None
    try:
        for machine in options.machines or ():
            explain(Case("lstm", *TINY), machine)  # Refuses what it does not know.
    except ValueError as error:
        parser.error(str(error))
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Races, and writes the result after each case."""
    jax.config.update("jax_platforms", "cpu")  # The device belongs to the workers.
    options = parse(arguments)
    if options.list:
        print("\n".join(case.name for case in options.cases))
        return
    device = _device(options.python)
    if device["platform"] == "cpu" and options.preset != "smoke":
        raise SystemExit(
            "JAX sees no accelerator, only a CPU: install JAX for the device, or try "
            "`--preset smoke`, which runs anywhere."
        )
    kind = re.sub(r"\W+", "_", device["kind"].lower()).strip("_")
    file = options.out / f"{options.name or f'accelerator_{kind}'}.json"
    machines = options.machines or default_machines(device)
    # A TPU belongs to one process.
    shared = device["platform"] == "tpu"
    with started(options.peers, WORKER, options.python, shared) as peers:
        facts = {"machine": describe(), "device": device}
        result = command.new_result(options, file, peers, **facts)
        result["date"] = datetime.date.today().isoformat()
        save = lambda result: _write(result, machines, file)
        command.race(options.cases, peers, result, save)
    print(write_report(result))


def _device(pythons: dict[str, str]) -> Result:
    """The device, from a process that leaves it to the peers again."""
    with started([OURS], WORKER, pythons) as peers:
        device = peers[OURS].ask("device")
    if "failed" in device:
        raise SystemExit(f"JAX has no device: {device['failed']}")
    return device


def default_machines(device: Result) -> Sequence[str]:
    """The machines whose bounds are written; none on a CPU, which has none."""
    if device["platform"] == "cpu":
        return ()
    return USUAL if device["machine"] is None else [device["machine"]]


def _write(result: Result, machines: Sequence[str], file: Path) -> None:
    result["bounds"] = {name: bounds(result["cases"], name) for name in machines}
    command.write(result, file, write_report, draw)


if __name__ == "__main__":
    main()
