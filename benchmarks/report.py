"""Formats a result as Markdown tables."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .cases import Case

MEDIAN = 2  # Its place in a spread.
NO_RESULT = "failed", "left_out", "missing"  # Their values are reasons.

Result = dict[str, Any]
Row = dict[str, Any]
Column = tuple[str, Callable[[Row], str]]

MODE_TITLES = {
    "forward": "Forward",
    "train": "Forward and all gradients",
}
NOTE = (
    "The first column is the first contestant's number. Each other column is that "
    "contestant's number divided by it (median and quartiles of the rounds): above 1, "
    "the first contestant is faster, or needs less. † marks other results, - skipped "
    "cases."
)
AGREEMENT_NOTE = (
    "The variant that raced (the fastest in a short trial), and the largest relative "
    "deviation of its outputs or gradients from the reference."
)


@dataclasses.dataclass(frozen=True)
class Measure:
    """A number to compare.

    Attributes:
        key: Its name in a contestant's `numbers` and `ratios`.
        title: The title of its table.
        unit: The unit in the table.
        scale: The factor that converts the number to that unit.
        note: A text below the title.
    """

    key: str
    title: str
    unit: str
    scale: float = 1
    note: str = ""


TIME = Measure("ms", "Time", "ms")
COMPILE = Measure(
    "compile_ms",
    "Time to compile",
    "ms",
    note="CPU time to trace, lower and compile a program, with empty caches.",
)
MEMORY = Measure(
    "temp_bytes",
    "Temporary memory",
    "MiB",
    2**-20,
    "By XLA's plan of the program, without arguments and results.",
)


def text_of(spread: list[float]) -> str:
    """The median and the quartiles of a ratio."""
    _, low, median, high, _ = spread
    return f"{median:.2f}" + (f" ({low:.2f}-{high:.2f})" if low < high else "")


def write_report(
    result: Result, by_mode: Sequence[Measure], measures: Sequence[Measure]
) -> str:
    """The whole report.

    Each mode has a table of the measures `by_mode`. Each of `measures` has a table of
    all cases.
    """
    rows = result["cases"]
    names = list(dict.fromkeys(name for row in rows for name in row["peers"]))
    return (
        join(
            f"# {result['name']}",
            conditions(result),
            NOTE,
            *mode_tables(rows, names, by_mode),
            *measure_tables(rows, names, measures),
            agreement_table(rows, names),
            section("Left out", "", left_out(result)),
        )
        + "\n"
    )


def mode_tables(
    rows: Sequence[Row], names: Sequence[str], measures: Sequence[Measure]
) -> list[str]:
    """A table for each mode, with a column for each contestant."""
    tables = []
    for mode, title in MODE_TITLES.items():
        of_mode = [row for row in rows if row["case"]["mode"] == mode]
        label = ("case", lambda row: Case(**row["case"]).label)
        columns = [label]
        for measure in measures:
            own = names[0] if len(measures) == 1 else measure.title.lower()
            columns += _compared(measure, names, own)
        tables.append(section(title, "", grid(columns, of_mode)))
    return tables


def measure_tables(
    rows: Sequence[Row], names: Sequence[str], measures: Sequence[Measure]
) -> list[str]:
    """A table of all cases for each measure."""
    return [
        section(
            measure.title,
            measure.note,
            grid([NAME, *_compared(measure, names, names[0])], rows),
        )
        for measure in measures
    ]


def agreement_table(rows: Sequence[Row], names: Sequence[str]) -> str:
    """What ran, and how far its results are from the reference's."""
    table = grid([NAME, *((name, _cell(_agreement, name)) for name in names)], rows)
    return section("What ran, and the same numbers", AGREEMENT_NOTE, table)


NAME: Column = ("case", lambda row: row["name"])


def _cell(cell: Callable[..., str], *arguments: str) -> Callable[[Row], str]:
    return lambda row: cell(row, *arguments)


def _compared(measure: Measure, names: Sequence[str], title: str) -> list[Column]:
    """The first contestant's column, under this title, and the other columns."""
    ours, *others = names

    def own(row: Row, name: str) -> str:
        result = row["peers"].get(name, {})
        if measure.key not in result.get("numbers", {}):
            return _why_empty(result)
        return f"{result['numbers'][measure.key][MEDIAN] * measure.scale:.3g}"

    def by_ours(row: Row, name: str) -> str:
        result = row["peers"].get(name, {})
        if measure.key not in result.get("ratios", {}):
            return _why_empty(result)
        text = text_of(result["ratios"][measure.key])
        if not measure.key.endswith("ms"):
            return text
        is_same = result["agreement"]["same"]
        return f"{text}{'†' * (not is_same)}"

    columns = [(name, _cell(by_ours, name)) for name in others]
    return [(f"{title}, {measure.unit}", _cell(own, ours)), *columns]


def _why_empty(outcome: dict[str, Any]) -> str:
    """What a cell without a number shows."""
    return next((word for word in ("failed", "missing") if word in outcome), "")


def conditions(result: Result) -> str:
    """The date, the amount of work, the machine, its load and the versions."""
    amount = listed(result["rounds"], ": ", ", ")
    return join(
        f"{result['date']}, commit {listed(result['commits'], ' ', ', ')}. "
        f"{len(result['cases'])} cases; rounds of each: {amount}. "
        f"{load(result['cases'])}",
        f"Machine: {listed(result['machine'], ': ', '; ')}.",
        f"Versions: {listed(result['versions'], ' ', ', ')}.",
    )


def load(rows: Sequence[Row]) -> str:
    """In how many rounds the machine had other work."""
    busy, rounds = (sum(row[key] for row in rows) for key in ("busy", "rounds"))
    return f"Other programs kept the machine busy in {busy} of {rounds} rounds."


def listed(facts: dict[str, Any], colon: str, comma: str) -> str:
    """The names and values as text."""
    return comma.join(f"{name}{colon}{value}" for name, value in facts.items())


def _agreement(row: Row, peer: str) -> str:
    result = row["peers"].get(peer, {})
    if "variant" not in result:
        return ""
    parts = [result["variant"] or "default options"]
    agreement = result["agreement"]
    same = "same numbers: yes" if agreement["same"] else "SAME NUMBERS: NO"
    far = f"({agreement['deviation']:.0e} from {agreement['reference']})"
    parts.append(f"{same} {far}" if agreement["reference"] else "reference")
    return "; ".join(parts)


def left_out(result: Result) -> str:
    """A list of the contestants that did not run: a line for each reason."""
    reasons: dict[tuple[str, str], int] = {}
    for row in result["cases"]:
        for name in row["peers"] | result["missing"]:
            outcome = row["peers"].get(name, {"missing": result["missing"].get(name)})
            for reason in (outcome[key] for key in NO_RESULT if key in outcome):
                why = name, shortened(reason)
                reasons[why] = reasons.get(why, 0) + 1
    return "\n".join(
        f"- {name}, {count} of {len(result['cases'])} cases: {reason}"
        for (name, reason), count in reasons.items()
    )


def shortened(message: str) -> str:
    """An error's message on one line."""
    if "RESOURCE_EXHAUSTED" in message or "out of memory" in message.lower():
        return "out of memory"
    return message.splitlines()[0][:300]


def join(*parts: str) -> str:
    """The nonempty parts, as paragraphs."""
    return "\n\n".join(filter(None, parts))


def section(title: str, note: str, table: str) -> str:
    """A title, a note and a table; empty if the table is empty."""
    return join(f"## {title}", note, table) if table else ""


def grid(columns: Sequence[Column], rows: Iterable[Row]) -> str:
    """A table in Markdown; empty if only the first column has text.

    Args:
        columns: For each column, its title and a function from a row to the text of a
            cell. Columns whose cells are all empty are left out.
        rows: The rows, which are passed to these functions.
    """
    filled = [(title, [cell(row) for row in rows]) for title, cell in columns]
    filled = [(title, cells) for title, cells in filled if any(cells)]
    if len(filled) < 2:
        return ""
    titles, cells = zip(*filled, strict=True)
    rule = ["---"] + ["---:"] * (len(titles) - 1)
    body = [[cell or "-" for cell in row] for row in zip(*cells, strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [titles, rule, *body])
