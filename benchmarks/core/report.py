"""Tables in Markdown, and the sections that reports share."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .cases import Case
from .machine import BUSY
from .ratios import ran, ratio, time

Result = dict[str, Any]
Row = dict[str, Any]
Column = tuple[str, Callable[[Any], str]]

MODE_TITLES = {
    "forward": "Forward",
    "train": "Forward and all gradients",
    "step": "A training step with Adam",
    "stream": "Forward of one row (B = 1)",
}

AGREEMENT_NOTE = (
    "The variant that raced (the fastest in a short trial), and the largest "
    "relative deviation of its outputs or gradients from the reference's."
)
FACTS_NOTE = "Ours, and the peer's by ours, both of the variant that raced."

NAME: Column = ("case", lambda row: row["name"])
LABEL: Column = ("case", lambda row: Case(**row["case"]).label)


def join(*parts: str) -> str:
    """The parts that are not empty, as paragraphs."""
    return "\n\n".join(filter(None, parts))


def section(title: str, note: str, table: str) -> str:
    """A table under its title and a note; empty if the table is."""
    return join(f"## {title}", note, table) if table else ""


def grid(columns: Sequence[Column], rows: Iterable[Any]) -> str:
    """A table in Markdown; empty if there are no rows.

    Args:
        columns: A title and a function from a row to a cell each. A column whose cells
            are all empty is left out.
        rows: The arguments of these functions.
    """
    filled = [(title, [cell(row) for row in rows]) for title, cell in columns]
    filled = [(title, cells) for title, cells in filled if any(cells)]
    if not filled:
        return ""
    titles, cells = zip(*filled, strict=True)
    rule = ["---"] + ["---:"] * (len(titles) - 1)
    body = [[cell or "-" for cell in row] for row in zip(*cells, strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [titles, rule, *body])


def of_each(
    names: Iterable[str], cell: Callable[[Any, str], str], title: str = "{}"
) -> list[Column]:
    """A column for each name, whose cells are `cell(row, name)`."""
    return [(title.format(n), lambda row, n=n: cell(row, n)) for n in names]


def conditions(result: Result) -> str:
    """How much was timed, how quiet it was, the machine, and what was installed."""
    busy = [share > BUSY for row in result["cases"] for share in row["busy"]]
    amount = counted(len(result["cases"]), "case")
    if "rounds" in result:  # The same for all cases.
        amount += f", {counted(result['rounds'], 'round')} each"
    return join(
        f"{amount}. Something else kept the machine busy in {sum(busy)} of the "
        f"{len(busy)} rounds.",
        f"Machine: {listed(result['machine'], ': ', '; ')}.",
        f"Versions: {versions(result)}.",
    )


def versions(result: Result) -> str:
    """The packages of all peers."""
    found: dict[str, str] = {}
    for name, used in result["versions"].items():
        found |= used if isinstance(used, dict) else {name: used}
    return listed(found, " ", ", ")


def listed(facts: dict[str, Any], colon: str, comma: str) -> str:
    """Names and values as text."""
    return comma.join(f"{name}{colon}{value}" for name, value in facts.items())


def counted(number: int, noun: str) -> str:
    """`1 case`, `2 cases`."""
    return f"{number} {noun}{'s' * (number != 1)}"


def mode_sections(
    rows: list[Row], ours: str, peers: Iterable[str], limits: Iterable[str] = ()
) -> list[str]:
    """For each mode, our time, each peer's by ours, and ours by each limit's."""

    def by_ours(row, peer):
        spread, result = ratio(row, peer, ours), ran(row, peer)
        if spread is None:
            return "failed" if "failed" in result else ""
        other = "*" * bool(result["equation"])
        return f"{spread}{other}{'†' * (not result['agreement']['same'])}"

    def by_limit(row, limit):
        spread = ratio(row, limit, ours)
        return str(spread.inverse) if spread else ""

    def ms(row):
        spread = time(row, ours)
        return f"{spread.median:.3g}" if spread else ""

    columns = [
        LABEL,
        (f"{ours}, ms", ms),
        *of_each(peers, by_ours),
        *of_each(limits, by_limit, "÷ {}"),
    ]
    return [
        section(
            title, "", grid(columns, [r for r in rows if r["case"]["mode"] == mode])
        )
        for mode, title in MODE_TITLES.items()
    ]


def facts_section(
    rows: list[Row],
    title: str,
    unit: str,
    fact: Callable[[dict[str, float]], float | None],
    ours: str,
    peers: Iterable[str],
    note: str = FACTS_NOTE,
) -> str:
    """Our number of a fact known from compiling, and each peer's by ours."""

    def value(row, peer):
        return fact(ran(row, peer).get("facts", {}))

    def by_ours(row, peer):
        mine, theirs = value(row, ours), value(row, peer)
        return f"{theirs / mine:.2f}" if mine and theirs is not None else ""

    def own(row):
        mine = value(row, ours)
        return "" if mine is None else f"{mine:.3g}"

    name = ("case", lambda row: f"{Case(**row['case']).label} {row['case']['mode']}")
    columns = [name, (f"{ours}, {unit}", own), *of_each(peers, by_ours)]
    return section(title, note, grid(columns, rows))


def agreement_section(rows: list[Row], names: Iterable[str]) -> str:
    """What each of these peers ran, and how far its numbers are from ours."""
    title = "What ran, and the same numbers"
    table = grid([NAME, *of_each(names, _agreement)], rows)
    return section(title, AGREEMENT_NOTE, table)


def _agreement(row: Row, peer: str) -> str:
    result = ran(row, peer)
    if "variant" not in result:
        return ""
    parts = [result["variant"] or "default options"]
    if result["equation"]:
        parts.append(f"another equation ({result['equation']})")
    if agreement := result.get("agreement"):
        same = "same numbers: yes" if agreement["same"] else "SAME NUMBERS: NO"
        far = f"({agreement['deviation']:.0e} from {agreement['reference']})"
        parts.append(f"{same} {far}" if agreement["reference"] else "reference")
    return "; ".join(parts)


def left_out_section(result: Result, rows: list[Row]) -> str:
    """Every peer that did not run in some of these cases, with the reason."""
    found = [
        (peer, reason, row["name"])
        for peer, reason in result["missing"].items()
        for row in rows
    ]
    for row in rows:
        for peer, outcome in row["peers"].items():
            if reason := outcome.get("failed") or outcome.get("left_out"):
                found.append((peer, shortened(reason), row["name"]))
    return section("Left out", "", by_reason(found, len(rows)))


def by_reason(found: Iterable[tuple[str, str, str]], count: int) -> str:
    """A list of `(name, reason, case)`: a line for all cases with the same reason.

    `count` is the number of all cases.
    """
    cases: dict[tuple[str, str], list[str]] = {}
    for name, reason, case in found:
        cases.setdefault((name, reason), []).append(case)
    return "\n".join(
        f"- {name}{_where(where, count)}: {reason}"
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
