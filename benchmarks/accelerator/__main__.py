"""The command: `python -m benchmarks.accelerator --preset quick`."""

import argparse
import datetime
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from jaxrnn._kernels._machines import MACHINES

from ..command import add_options, keep_saved, race_cases, read_options
from ..machine import describe
from .bounds import USUAL, bounds
from .names import NAMES, OURS
from .plot import draw
from .presets import PRESETS, ROUNDS, TAKES
from .report import write_report
from .seats import Seats

Result = dict[str, Any]

ABOUT = """\
Times the kernels of jaxrnn on this GPU or TPU against XLA's loop and other libraries,
and writes tables, a picture and every round. On a CPU only `--preset smoke` runs, to
try the command: its times mean nothing there.
"""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; wrong ones end the program with a message."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.accelerator", description=ABOUT
    )
    name = "accelerator_ and the name of the device"
    add_options(parser, PRESETS, NAMES, name=name, takes=TAKES)
    parser.add_argument(
        "--machines",
        metavar="A,B",
        help=f"whose bounds are written, of {', '.join(MACHINES)}; by default this "
        f"one's, or {' and '.join(USUAL)} if it is none of them; on a CPU, none",
    )
    options = read_options(parser, arguments, PRESETS, NAMES, ROUNDS)
    options.machines = options.machines.split(",") if options.machines else None
    for name in options.machines or ():
        if name not in MACHINES:
            parser.error(f"unknown machine {name!r}; known: {', '.join(MACHINES)}")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Races, and writes what came of it after each case."""
    options = parse(arguments)
    if options.list:
        print("\n".join(case.name for case in options.cases))
        return
    jax.config.update("jax_platforms", "cpu")  # The device belongs to the workers.
    seats = Seats(options.peers, options.python)
    try:
        file = _race(options, seats)
    finally:
        seats.close()
    print(file.with_suffix(".md").read_text())


def _race(options: argparse.Namespace, seats: Seats) -> Path:
    """Returns the file of the result."""
    device = seats.device
    _check(options.preset, device)
    present = {name: peer for name, peer in seats.peers.items() if not peer.missing}
    missing = {name: p.missing for name, p in seats.peers.items() if p.missing}
    if OURS in missing:
        raise SystemExit(f"{OURS} cannot run: {missing[OURS]}")
    for name, reason in missing.items():
        print(f"left out: {name} ({reason})", file=sys.stderr)
    kind = re.sub(r"\W+", "_", device["kind"].lower()).strip("_")
    file = options.out / f"{options.name or f'accelerator_{kind}'}.json"
    result: Result = {
        "name": file.stem,
        "rounds": options.rounds,
        "date": datetime.date.today().isoformat(),
        "machine": describe(),
        "device": device,
        "versions": {name: peer.versions for name, peer in present.items()},
        "missing": missing,
        "cases": [],
    }
    if options.resume:
        keep_saved(result, file, ("rounds", "machine", "device", "versions"))
    machines = options.machines or _machines(device)
    file.parent.mkdir(parents=True, exist_ok=True)
    race_cases(options.cases, present, result, lambda r: _write(r, machines, file))
    return file


def _check(preset: str, device: Result) -> None:
    if device["platform"] == "cpu" and preset != "smoke":
        raise SystemExit(
            "JAX sees no accelerator, only a CPU: install JAX for the device, or try "
            "`--preset smoke`, which runs anywhere."
        )


def _machines(device: Result) -> Sequence[str]:
    """Whose bounds are written by default; on a CPU they would stand beside nothing."""
    if device["platform"] == "cpu":
        return ()
    return USUAL if device["machine"] is None else [device["machine"]]


def _write(result: Result, machines: Sequence[str], file: Path) -> None:
    """The numbers, the tables and the picture of what there is so far."""
    result["bounds"] = {name: bounds(result["cases"], name) for name in machines}
    file.write_text(json.dumps(result, indent=1) + "\n")
    file.with_suffix(".md").write_text(write_report(result))
    draw(result, file.with_suffix(".png"))


if __name__ == "__main__":
    main()
