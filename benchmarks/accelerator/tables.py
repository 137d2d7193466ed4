"""The tables and the plot of the benchmark of accelerators."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..core.cases import Case
from ..core.plot import Panel, draw_panels
from ..core.ratios import time, times
from ..core.report import (
    MODE_TITLES,
    NAME,
    agreement_section,
    by_reason,
    conditions,
    facts_section,
    grid,
    join,
    left_out_section,
    listed,
    mode_sections,
    of_each,
    section,
    versions,
)
from . import AHEAD, KERNELS, NAMES, OURS

Result = dict[str, Any]
Row = dict[str, Any]

NOTE = (
    f"The milliseconds of a call of `{OURS}`, median of the rounds; then each peer's "
    "time by that in the same round, median and quartiles: below 1 it is faster. A "
    "case's sizes: B the batch, T the steps, D the depth of the inputs, H the units. "
    "`float32`: arrays and products in float32; `tf32`: the products as JAX makes them "
    "by default, TF32 on a GPU, bfloat16 on a TPU. † does not compute the same "
    "numbers. - left out."
)
MEMORY_NOTE = (
    f"MiB of a call of `{OURS}` besides its arguments, results included, and each "
    "peer's by that: by XLA's plan of the program; in PyTorch the most that was "
    "allocated."
)
BOUNDS_NOTE = (
    "What memory and arithmetic allow at best (`jaxrnn.explain`), in milliseconds: a "
    "loop of XLA that multiplies inputs and state at every step, and reads the "
    "matrices again unless they fit a cache (VMEM or L2); a kernel that reads those of "
    "the state once, as far as they fit, with the products of the inputs before it. "
    "With gradients, the large products after the loop are part of both."
)
MEASURED_NOTE = "`÷ best`: the measured time by that; cuDNN's by a kernel's."
LABEL = "milliseconds: further left is better (median and quartiles of the rounds)"
BOUNDS = {
    "XLA's loop at best": ("#222222", "xla"),
    "a kernel at best": ("#c1121f", "ahead"),
}


def write_report(result: Result) -> str:
    """The whole report, in Markdown."""
    rows, device = result["cases"], result["device"]
    peers = NAMES[1:]
    parts = [
        f"# {result['name']}",
        _no_kernel(result),
        f"Device: {device['kind']}. {listed(device['software'], ': ', '; ')}.",
        conditions(result),
        NOTE,
        *mode_sections(rows, OURS, peers),
        facts_section(rows, "Memory", "MiB", _mib, OURS, peers, MEMORY_NOTE),
        agreement_section(rows, NAMES),
        left_out_section(result, rows),
        *(_bounds(result, machine) for machine in result["bounds"]),
    ]
    return join(*parts) + "\n"


def _no_kernel(result: Result) -> str:
    """A warning, if no kernel ran."""
    if any(len(times(row, name)) for row in result["cases"] for name in KERNELS):
        return ""
    is_cpu = result["device"]["platform"] == "cpu"
    why = "this is a CPU" if is_cpu else "none ran on this device"
    return f"**No kernel was measured here: {why}.**"


def _mib(facts: dict[str, float]) -> float | None:
    if not facts:
        return None
    return (facts["temp_bytes"] + facts.get("output_bytes", 0)) / 2**20


def _bounds(result: Result, machine: str) -> str:
    """A machine's bounds; next to what was measured, if this is the machine."""
    bounds = result["bounds"][machine]
    is_here = machine == result["device"]["machine"]

    def by_bound(row, peer):
        spread = time(row, peer)
        bound = bounds[row["name"]]["ahead" if peer in AHEAD else "xla"]
        return f"{spread.median / bound:.2f}" if spread else ""

    columns = [
        NAME,
        ("XLA's loop", lambda row: f"{bounds[row['name']]['xla']:.3g}"),
        ("a kernel", lambda row: f"{bounds[row['name']]['ahead']:.3g}"),
        *of_each(NAMES if is_here else (), by_bound, "{} ÷ best"),
    ]
    rows = [row for row in result["cases"] if row["name"] in bounds]
    note = f"{BOUNDS_NOTE} {MEASURED_NOTE}" if is_here else BOUNDS_NOTE
    table = section(f"At best on {machine}", note, grid(columns, rows))
    return join(table, by_reason(_verdicts(bounds), len(bounds)))


def _verdicts(bounds: dict[str, Row]) -> Iterator[tuple[str, str, str]]:
    """Which implementations serve, and why the others do not."""
    for name, bound in bounds.items():
        for implementation, (serves, reason) in bound["verdicts"].items():
            yield implementation, "serves" if serves else f"declines: {reason}", name


def draw(result: Result, file: Path) -> None:
    """Writes the plot: a line of panels for each cell, one for each mode."""
    bounds = result["bounds"].get(result["device"]["machine"], {})
    lines = [[_panel(rows, bounds) for rows in line] for line in lines_of(result)]
    title = f"{result['device']['kind']}, {result['date']}\n{versions(result)}"
    draw_panels(file, lines, LABEL, title)


def lines_of(result: Result) -> list[list[list[Row]]]:
    """The cases by cell, then by mode."""
    found: dict[str, dict[str, list[Row]]] = {}
    for row in result["cases"]:
        modes = found.setdefault(row["case"]["cell"], {})
        modes.setdefault(row["case"]["mode"], []).append(row)
    return [list(modes.values()) for modes in found.values()]


def _panel(rows: list[Row], bounds: dict[str, Row]) -> Panel:
    """The times of all peers in these cases, which share a cell and a mode."""
    case = rows[0]["case"]
    return Panel(
        f"{case['cell']}: {MODE_TITLES[case['mode']]}",
        [Case(**row["case"]).label for row in rows],
        {name: [time(row, name) for row in rows] for name in NAMES},
        {
            label: (color, [bounds.get(row["name"], {}).get(kind) for row in rows])
            for label, (color, kind) in BOUNDS.items()
        },
    )
