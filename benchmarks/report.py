"""The tables of a result, in Markdown."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from .cases import Case
from .machine import BUSY

Result = dict[str, Any]
Row = dict[str, Any]
Column = tuple[str, Callable[[Row], str]]

MODE_TITLES = {
    "forward": "Forward",
    "train": "Forward and all gradients",
    "final": "Gradients of a loss of the final state, with respect to parameters",
    "step": "A training step with Adam",
}
NOTE = (
    "The first column is the first contestant's number. Each other column is that "
    "contestant's number divided by it (median and quartiles of the rounds): above 1, "
    "the first contestant is faster, or needs less. * marks other equations, † other "
    "results, - skipped cases."
)
AGREEMENT_NOTE = (
    "The variant that raced (the fastest in a short trial), and the largest relative "
    "deviation of its outputs or gradients from the reference."
)


@dataclasses.dataclass(frozen=True)
class Measure:
    """A number that is compared.

    Attributes:
        key: Its name in the results of a contestant, or in their `facts`.
        title: Of its table.
        unit: That it is shown in.
        scale: From the number to the unit.
        note: What it is.
        is_ratio: Whether the other numbers are divided by the first.
    """

    key: str
    title: str
    unit: str
    scale: float = 1
    note: str = ""
    is_ratio: bool = True


TIME = Measure("ms", "Time", "ms")
COMPILE = Measure(
    "compile_ms",
    "Time to compile",
    "ms",
    note="CPU time to trace, lower and compile a program, with empty caches.",
)
COMPILE_ONCE = Measure("compile_s", "Time to compile", "s", note="Measured once.")
EAGER = Measure("eager_ms", "Eager calls", "ms", note="A second call outside of jit.")
MEMORY = Measure(
    "temp_bytes",
    "Temporary memory",
    "MiB",
    2**-20,
    "By XLA's plan of the program, without arguments and results.",
)
MEMORIES = [
    dataclasses.replace(MEMORY, is_ratio=False),
    Measure(
        "host_temp_bytes", "Temporary memory of the host", "MiB", 2**-20, is_ratio=False
    ),
]


@dataclasses.dataclass(frozen=True)
class Spread:
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray) -> "Spread | None":
        """The quartiles of all rounds; None without rounds."""
        if not len(values):
            return None
        low, median, high = np.percentile(values, (25, 50, 75))
        return cls(float(median), float(low), float(high))

    def __str__(self) -> str:
        middle = f"{self.median:.2f}"
        if self.low == self.high:
            return middle
        return f"{middle} ({self.low:.2f}-{self.high:.2f})"


def values(row: Row, name: str, key: str) -> np.ndarray:
    """A number of a contestant in each round, or one that is known from compiling."""
    result = row["peers"].get(name, {})
    fact = result.get("facts", {}).get(key)
    found = result.get(key, [] if fact is None else [fact])
    return np.array([] if "failed" in result else found)


def ratio(row: Row, name: str, to: str, key: str = "ms") -> Spread | None:
    """The number divided by `to`'s in the same round; None if either is missing."""
    ours, theirs = values(row, to, key), values(row, name, key)
    return Spread.of(theirs / ours) if len(ours) and len(theirs) else None


def write_report(
    result: Result, by_mode: Sequence[Measure], measures: Sequence[Measure]
) -> str:
    """The whole report.

    `by_mode` have a table for each mode, `measures` one for all cases.
    """
    rows = result["cases"]
    names = list(dict.fromkeys(name for row in rows for name in row["peers"]))
    tables = mode_tables(rows, names, by_mode)
    for measure in measures:
        table = grid([NAME, *_compared(measure, names, names[0])], rows)
        tables.append(section(measure.title, measure.note, table))
    agreement = grid([NAME, *((n, _cell(_agreement, n)) for n in names)], rows)
    return (
        join(
            f"# {result['name']}",
            conditions(result),
            NOTE,
            *tables,
            section("What ran, and the same numbers", AGREEMENT_NOTE, agreement),
            section("Left out", "", left_out(result)),
        )
        + "\n"
    )


def mode_tables(
    rows: Sequence[Row], names: Sequence[str], measures: Sequence[Measure]
) -> list[str]:
    """A table for each mode: each contestant by the first, side by side."""
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


NAME: Column = ("case", lambda row: row["name"])


def _cell(cell: Callable[[Row, str], str], name: str) -> Callable[[Row], str]:
    return lambda row: cell(row, name)


def _compared(measure: Measure, names: Sequence[str], title: str) -> list[Column]:
    """The first contestant's number, under this title, and the other columns."""
    ours, *others = names

    def own(row: Row, name: str) -> str:
        spread = Spread.of(values(row, name, measure.key))
        if spread is None:
            return "failed" if "failed" in row["peers"].get(name, {}) else ""
        return f"{spread.median * measure.scale:.3g}"

    def by_ours(row: Row, name: str) -> str:
        spread, result = ratio(row, name, ours, measure.key), row["peers"].get(name, {})
        if spread is None:
            return "failed" if "failed" in result else ""
        if not measure.key.endswith("ms"):
            return str(spread)
        is_same = result["agreement"]["same"]
        return f"{spread}{'*' * bool(result['equation'])}{'†' * (not is_same)}"

    other = by_ours if measure.is_ratio else own
    columns = [(name, _cell(other, name)) for name in others]
    return [(f"{title}, {measure.unit}", _cell(own, ours)), *columns]


def conditions(result: Result) -> str:
    """When, how much and where was timed, how quiet it was, and what was installed."""
    busy = [share > BUSY for row in result["cases"] for share in row["busy"]]
    amount = listed(result["rounds"], ": ", ", ")
    return join(
        f"{result['date']}, commit {listed(result['commits'], ' ', ', ')}. "
        f"{len(result['cases'])} cases; rounds of each: {amount}. Other programs kept "
        f"the machine busy in {sum(busy)} of {len(busy)} rounds.",
        f"Machine: {listed(result['machine'], ': ', '; ')}.",
        f"Versions: {listed(result['versions'], ' ', ', ')}.",
    )


def listed(facts: dict[str, Any], colon: str, comma: str) -> str:
    """Names and values as text."""
    return comma.join(f"{name}{colon}{value}" for name, value in facts.items())


def _agreement(row: Row, peer: str) -> str:
    result = row["peers"].get(peer, {})
    if "variant" not in result:
        return ""
    parts = [result["variant"] or "default options"]
    if result["equation"]:
        parts.append(f"another equation ({result['equation']})")
    agreement = result["agreement"]
    same = "same numbers: yes" if agreement["same"] else "SAME NUMBERS: NO"
    far = f"({agreement['deviation']:.0e} from {agreement['reference']})"
    parts.append(f"{same} {far}" if agreement["reference"] else "reference")
    return "; ".join(parts)


def left_out(result: Result) -> str:
    """A list of what did not run, with the reason: a line for all cases of a reason."""
    cases: dict[tuple[str, str], list[str]] = {}
    for row in result["cases"]:
        reasons = {
            name: outcome.get("failed") or outcome.get("left_out")
            for name, outcome in row["peers"].items()
        }
        for name, reason in (result["missing"] | reasons).items():
            if reason:
                cases.setdefault((name, shortened(reason)), []).append(row["name"])
    return "\n".join(
        f"- {name}{_where(where, len(result['cases']))}: {reason}"
        for (name, reason), where in cases.items()
    )


def _where(cases: list[str], count: int) -> str:
    if len(cases) == count:
        return ""
    first, *others = cases
    more = f" and {len(others)} more" if others else ""
    return f" in {len(cases)} of {count} cases ({first}{more})"


def shortened(message: str) -> str:
    """An error's message in a line."""
    if "RESOURCE_EXHAUSTED" in message or "out of memory" in message.lower():
        return "out of memory"
    return message.splitlines()[0][:300]


def join(*parts: str) -> str:
    """The parts that are not empty, as paragraphs."""
    return "\n\n".join(filter(None, parts))


def section(title: str, note: str, table: str) -> str:
    """A table under its title and a note; empty if the table is."""
    return join(f"## {title}", note, table) if table else ""


def grid(columns: Sequence[Column], rows: Iterable[Row]) -> str:
    """A table in Markdown; empty if nothing is in it but the first column.

    Args:
        columns: A title and a function from a row to a cell each. A column whose cells
            are all empty is left out.
        rows: The arguments of these functions.
    """
    filled = [(title, [cell(row) for row in rows]) for title, cell in columns]
    filled = [(title, cells) for title, cells in filled if any(cells)]
    if len(filled) < 2:
        return ""
    titles, cells = zip(*filled, strict=True)
    rule = ["---"] + ["---:"] * (len(titles) - 1)
    body = [[cell or "-" for cell in row] for row in zip(*cells, strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [titles, rule, *body])
