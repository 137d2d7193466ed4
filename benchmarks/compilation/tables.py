"""The tables and the plot of the compilation benchmark."""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..core.plot import Panel, draw_panels
from ..core.ratios import ran, ratio
from ..core.report import (
    MODE_TITLES,
    NAME,
    conditions,
    grid,
    join,
    left_out_section,
    mode_sections,
    of_each,
    section,
)
from . import NAMES, OURS

Result = dict[str, Any]
Row = dict[str, Any]

PEERS = NAMES[1:]
NOTE = (
    "CPU time of tracing, lowering and compiling a program anew: a peer's by ours in "
    "the same round, above 1 we are faster; median of the rounds, and quartiles."
)
PARTS = {"trace": "trace_s", "lower": "lower_s", "compile": "compile_s"}
PARTS_NOTE = "Seconds by the clock, medians of the rounds: trace + lower + compile."
EAGER_NOTE = "Milliseconds of a second call of the same network outside of jit."


def write_report(result: Result) -> str:
    """The whole report, in Markdown."""
    rows = result["cases"]
    parts = grid([NAME, *of_each(NAMES, _parts)], rows)
    eager = grid([NAME, *of_each(NAMES, _eager)], rows)
    return (
        join(
            f"# {result['name']}",
            conditions(result),
            NOTE,
            *mode_sections(rows, OURS, PEERS),
            section("Trace, lower, compile", PARTS_NOTE, parts),
            section("Eager calls", EAGER_NOTE, eager),
            left_out_section(result, rows),
        )
        + "\n"
    )


def _parts(row: Row, peer: str) -> str:
    seconds = [_median(row, peer, field) for field in PARTS.values()]
    return " + ".join(f"{s:.2f}" for s in seconds if s is not None)


def _eager(row: Row, peer: str) -> str:
    milliseconds = _median(row, peer, "eager_ms")
    return "" if milliseconds is None else f"{milliseconds:.3g}"


def _median(row: Row, peer: str, field: str) -> float | None:
    values = ran(row, peer).get(field)
    return statistics.median(values) if values else None


def draw(result: Result, file: Path) -> None:
    """Writes the plot: a panel for each mode."""
    by_mode: dict[str, list[Row]] = {}
    for row in result["cases"]:
        by_mode.setdefault(row["case"]["mode"], []).append(row)
    panels = [[_panel(MODE_TITLES[mode], rows)] for mode, rows in by_mode.items()]
    if panels:
        draw_panels(file, panels, f"CPU time to compile ÷ {OURS}'s")


def _panel(title: str, rows: list[Row]) -> Panel:
    points: Callable[[str], list] = lambda peer: [ratio(r, peer, OURS) for r in rows]
    names = [row["name"] for row in rows]
    return Panel(title, names, {p: points(p) for p in PEERS}, of_ratios=True)
