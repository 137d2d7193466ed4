"""The tables of the benchmark of recurrences."""

from typing import Any

from ..core.ratios import ran
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
from . import DEVIATING, DTYPES, NAMES, OURS, PEERS
from .growth import draw as draw, table, temp_mib, text

Result = dict[str, Any]
Row = dict[str, Any]

NOTE = (
    "`jaxrnn`: `dynamic_rnn`. `scan`: a plain `lax.scan` of the cell's step. "
    "`associative`: the coefficients of all steps, then `lax.associative_scan`. "
    "`recurrentgemma`: the layer of that package, by the faster of its scans. `torch`: "
    "the products of all steps, then a loop in Python. The gradients are those by "
    "parameters and inputs. A peer's time by ours: above 1 we are faster. Median of "
    "the rounds' ratios, and their quartiles. † does not compute the same numbers. - "
    "left out."
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
        section("Growth", GROWTH_NOTE, table(rows)),
        agreement_section(races, NAMES),
        left_out_section(result, rows),
    ]
    return join(*parts) + "\n"


def _memory(rows: list[Row]) -> str:
    return grid([NAME, *of_each(NAMES, lambda row, n: text(temp_mib(row, n)))], rows)


def _deviations(rows: list[Row]) -> str:
    def cell(row: Row, name: str) -> str:
        value = ran(row, OURS).get("facts", {}).get(name)
        return "" if value is None else f"{value:.1e}"

    columns = of_each([f"{n}, {dtype}" for dtype in DTYPES for n in DEVIATING], cell)
    measured = [row for row in rows if any(value(row) for _, value in columns)]
    return grid([NAME, *columns], measured)
