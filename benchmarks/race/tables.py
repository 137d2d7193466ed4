"""The tables and the plot of a race."""

from pathlib import Path
from typing import Any

from ..core.cases import Case
from ..core.plot import Panel, draw_panels
from ..core.ratios import ran, ratio, time
from ..core.report import (
    MODE_TITLES,
    agreement_section,
    conditions,
    facts_section,
    grid,
    join,
    left_out_section,
    mode_sections,
    of_each,
    section,
)
from ..peers import LIMITS, NAMES, OURS

Result = dict[str, Any]
Row = dict[str, Any]

PEERS = [name for name in NAMES if name not in (OURS, *LIMITS)]

NOTE = (
    "A peer's time by ours: above 1 we are faster. Median of the rounds' ratios, and "
    "their quartiles. `÷ gemm_…`: our time by that of the matrix products alone. "
    "* computes another equation. † does not compute the same numbers. - left out."
)
# Title, unit, name, and the factor to the unit.
FACTS = (
    ("Peak temporary memory", "MiB", "temp_bytes", 2**-20),
    ("Trace and lower", "s", "lower_s", 1),
    ("Compile", "s", "compile_s", 1),
)


def write_report(result: Result) -> str:
    """The whole report, in Markdown."""
    races = _group(result, "race")
    trained = [row for row in races if row["case"]["mode"] in ("train", "step")]
    parts = [
        f"# {result['name']}",
        conditions(result),
        NOTE,
        *mode_sections(races, OURS, PEERS, LIMITS),
        *(_facts(trained, *fact) for fact in FACTS),
        _scaling(_group(result, "scaling")),
        agreement_section(races, NAMES),
        left_out_section(result, races),
    ]
    return join(*parts) + "\n"


def draw(result: Result, file: Path) -> None:
    """Writes the plot: a panel for each mode."""
    races = _group(result, "race")
    by_mode = {m: [r for r in races if r["case"]["mode"] == m] for m in MODE_TITLES}
    panels = [_panel(MODE_TITLES[mode], rows) for mode, rows in by_mode.items() if rows]
    if panels:
        label = f"time ÷ {OURS}'s time (quartiles of the rounds)"
        draw_panels(file, [[panel] for panel in panels], label)


def _panel(title: str, rows: list[Row]) -> Panel:
    cases = [Case(**row["case"]).label for row in rows]
    peers = [name for name in NAMES if name != OURS]
    points = {name: [ratio(row, name, OURS) for row in rows] for name in peers}
    return Panel(title, cases, points, of_ratios=True)


def _group(result: Result, group: str) -> list[Row]:
    return [row for row in result["cases"] if row["case"]["group"] == group]


def _facts(rows: list[Row], title: str, unit: str, name: str, scale: float) -> str:
    fact = lambda facts: facts[name] * scale if name in facts else None
    return facts_section(rows, title, unit, fact, OURS, PEERS)


def _scaling(rows: list[Row]) -> str:
    """Time, time of a step, and compile time against T."""

    def ms(row, peer):
        spread = time(row, peer)
        return f"{spread.median:.3g}" if spread else ""

    def of_a_step(row, peer):
        spread = time(row, peer)
        return f"{1e3 * spread.median / ran(row, OURS)['steps']:.3g}" if spread else ""

    def compile_s(row, peer):
        facts = ran(row, peer).get("facts")
        return f"{facts['compile_s']:.2f}" if facts else ""

    columns = [
        ("case", lambda row: row["name"].removeprefix("scaling ")),
        ("steps of all rows", lambda row: str(ran(row, OURS)["steps"])),
    ]
    for peer in NAMES:
        columns += of_each([peer], ms, "{}, ms")
        columns += of_each([peer], of_a_step, "µs a step")
        columns += of_each([peer], compile_s, "compile, s")
    return section("Scaling", "", grid(columns, rows))
