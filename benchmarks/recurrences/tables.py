"""The tables of the benchmark of recurrences."""

from typing import Any

from ..core.ratios import ran, time
from ..core.report import (
    NAME,
    agreement_section,
    conditions,
    grid,
    join,
    left_out_section,
    mode_sections,
    of_each,
    section,
)
from . import DEVIATING, DTYPES, FORMS, NAMES, OURS, PEERS
from .cases import GROWING

Result = dict[str, Any]
Row = dict[str, Any]

NOTE = (
    "`jaxrnn`: `dynamic_rnn`. `scan`: a plain `lax.scan` of the cell's step. "
    "`associative`: the coefficients of all steps, then `lax.associative_scan`. "
    "`recurrentgemma`: the layer of that package, by the faster of its scans. `torch`: "
    "the products of all steps, then a loop in Python. The gradients are those by "
    "parameters and inputs. A peer's time by ours: above 1 we are faster. Median of "
    "the rounds' ratios, and their quartiles. - left out."
)
MEMORY_NOTE = "MiB, according to XLA's plan of the compiled program, without results."
DEVIATION_NOTE = (
    "From a scan in float64: the largest difference in an array, relative to its "
    "largest entry; the worst of outputs and final state, or of all gradients. "
    "Parameters, inputs and state have that dtype."
)
GROWTH_NOTE = "B = 1. Microseconds a step, and temporary memory in MiB."


def write_report(result: Result) -> str:
    """The whole report, in Markdown."""
    rows = result["cases"]
    races = [row for row in rows if row["case"]["group"] == "race"]
    parts = [
        f"# {result['name']}",
        conditions(result),
        NOTE,
        *mode_sections(races, OURS, PEERS),
        section("Temporary memory", MEMORY_NOTE, _memory(races)),
        section("Deviation", DEVIATION_NOTE, _deviations(races)),
        section("Growth", GROWTH_NOTE, _growth(rows)),
        agreement_section(races, NAMES),
        left_out_section(result, rows),
    ]
    return join(*parts) + "\n"


def growing(rows: list[Row], cell: str, mode: str) -> list[Row]:
    """The rows of the growth of a cell, by the number of steps."""
    found = [
        row
        for row in rows
        if (row["case"]["cell"], row["case"]["mode"]) == (cell, mode)
        and row["case"]["batch"] == 1
    ]
    return sorted(found, key=lambda row: row["case"]["time"])


def step_us(row: Row, name: str) -> float | None:
    """Microseconds a step."""
    spread = time(row, name)
    return 1e3 * spread.median / row["case"]["time"] if spread else None


def temp_mib(row: Row, name: str) -> float | None:
    """Temporary memory."""
    size = ran(row, name).get("facts", {}).get("temp_bytes")
    return None if size is None else size / 2**20


def _memory(rows: list[Row]) -> str:
    return grid([NAME, *of_each(NAMES, lambda row, n: _text(temp_mib(row, n)))], rows)


def _deviations(rows: list[Row]) -> str:
    def cell(row: Row, name: str) -> str:
        value = ran(row, OURS).get("facts", {}).get(name)
        return "" if value is None else f"{value:.1e}"

    columns = of_each([f"{n}, {dtype}" for dtype in DTYPES for n in DEVIATING], cell)
    measured = [row for row in rows if any(value(row) for _, value in columns)]
    return grid([NAME, *columns], measured)


def _growth(rows: list[Row]) -> str:
    found = [
        row
        for cell in GROWING
        for mode in ("forward", "train")
        for row in growing(rows, cell, mode)
    ]
    of = lambda name: lambda row: str(row["case"][name])
    columns = [(title, of(title)) for title in ("cell", "mode", "time")]
    us = of_each(FORMS, lambda row, n: _text(step_us(row, n)), "{}, µs")
    mib = of_each(FORMS, lambda row, n: _text(temp_mib(row, n)), "{}, MiB")
    return grid([*columns, *us, *mib], found)


def _text(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
