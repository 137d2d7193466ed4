"""The tables, in Markdown, of a saved result."""

from collections.abc import Iterable, Sequence
from typing import Any

from .cases import MODES, Case
from .machine import BUSY
from .peers import LIMITS, NAMES, OURS
from .ratios import inverse, median_ms, ratio

Result = dict[str, Any]

MODE_TITLES = {
    "forward": "Forward",
    "train": "Forward and all gradients",
    "step": "A training step with Adam",
    "stream": "Forward of one row (B = 1)",
}

RACE_NOTE = (
    "A peer's time by ours: above 1 we are faster. Median of the rounds' ratios, and "
    "their quartiles. `÷ gemm_…`: our time by that of the matrix products alone. "
    "* computes another equation. † does not compute the same numbers. - left out."
)


def write_report(result: Result) -> str:
    """All tables of a result."""
    races = [r for r in result["cases"] if r["case"]["group"] == "race"]
    parts = [_head(result)]
    parts += [_race_table(result, races, mode) for mode in MODES]
    parts += [
        _facts_table(races, "Peak temporary memory", "temp_bytes", 2**-20, "MiB"),
        _facts_table(races, "Trace and lower", "lower_s", 1, "s"),
        _facts_table(races, "Compile", "compile_s", 1, "s"),
        _scaling_table([r for r in result["cases"] if r["case"]["group"] == "scaling"]),
        agreement_table(races, NAMES),
        left_out(result),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def that_ran(results: Iterable[Result], names: Iterable[str]) -> list[str]:
    """The peers of these that ran in any of the results."""
    return [
        n for n in names if any("variant" in r["peers"].get(n, {}) for r in results)
    ]


def _title(case: Result) -> str:
    case = Case(**case)
    return f"{case.cell} {case.shape} {case.lengths}"


def _head(result: Result) -> str:
    return f"# {result['name']}\n\n{conditions(result)}\n\n{RACE_NOTE}"


def conditions(result: Result) -> str:
    """How much was timed, how quiet it was, the machine, and what was installed."""
    versions: dict[str, str] = {}
    for used in result["versions"].values():
        versions |= used
    machine = "; ".join(f"{name}: {value}" for name, value in result["machine"].items())
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    shares = [share for row in result["cases"] for share in row["busy"]]
    busy = sum(share > BUSY for share in shares)
    return (
        f"{len(result['cases'])} cases, {result['rounds']} rounds each. Something else "
        f"kept the machine busy in {busy} of the {len(shares)} rounds."
        f"\n\nMachine: {machine}.\n\nVersions: {packages}."
    )


def _race_table(result: Result, races: list[Result], mode: str) -> str:
    rows = [r for r in races if r["case"]["mode"] == mode]
    if not rows:
        return ""
    peers = that_ran(rows, (n for n in NAMES if n != OURS and n not in LIMITS))
    limits = that_ran(rows, LIMITS)
    header = ["case", f"{OURS}, ms", *peers, *(f"÷ {name}" for name in limits)]
    body = [
        [
            _title(row["case"]),
            f"{median_ms(row, OURS):.3g}",
            *(_ratio_cell(row, peer) for peer in peers),
            *(_limit_cell(row, limit) for limit in limits),
        ]
        for row in rows
    ]
    return f"## {MODE_TITLES[mode]}\n\n{table(header, body)}"


def _ratio_cell(row: Result, peer: str) -> str:
    spread = ratio(row, peer)
    if spread is None:
        return "failed" if "failed" in row["peers"].get(peer, {}) else "-"
    ran = row["peers"][peer]
    marks = "*" * bool(ran["equation"]) + "†" * (not ran["agreement"]["same"])
    return f"{spread}{marks}"


def _limit_cell(row: Result, limit: str) -> str:
    spread = ratio(row, limit)
    return "-" if spread is None else str(inverse(spread))


def _facts_table(
    races: list[Result], title: str, fact: str, scale: float, unit: str
) -> str:
    """Our number of a fact known from compiling, and each peer's by ours."""
    rows = [r for r in races if r["case"]["mode"] in ("train", "step")]

    def value(row: Result, peer: str) -> float | None:
        return row["peers"].get(peer, {}).get("facts", {}).get(fact)

    peers = [
        n
        for n in NAMES
        if n not in (OURS, *LIMITS) and any(value(r, n) is not None for r in rows)
    ]
    if not peers:
        return ""

    def cell(row: Result, peer: str) -> str:
        ours, theirs = value(row, OURS), value(row, peer)
        return f"{theirs / ours:.2f}" if ours and theirs is not None else "-"

    body = [
        [
            f"{_title(row['case'])} {row['case']['mode']}",
            f"{value(row, OURS) * scale:.3g}",
            *(cell(row, peer) for peer in peers),
        ]
        for row in rows
    ]
    note = "Ours, and the peer's by ours, both of the variant that raced."
    header = ["case", f"{OURS}, {unit}", *peers]
    return f"## {title}\n\n{note}\n\n{table(header, body)}"


def _scaling_table(rows: list[Result]) -> str:
    """Time, time a step, and compile time against T."""
    if not rows:
        return ""
    peers = that_ran(rows, NAMES)
    header = ["case", "steps of all rows"]
    for peer in peers:
        header += [f"{peer}, ms", "µs a step", "compile, s"]
    body = []
    for row in rows:
        steps = row["peers"][OURS]["steps"]
        line = [f"{_title(row['case'])} {row['case']['mode']}", str(steps)]
        for peer in peers:
            ms, facts = median_ms(row, peer), row["peers"][peer]["facts"]
            line += [
                f"{ms:.3g}",
                f"{1e3 * ms / steps:.3g}",
                f"{facts['compile_s']:.2f}",
            ]
        body.append(line)
    return f"## Scaling\n\n{table(header, body)}"


def agreement_table(races: list[Result], names: Iterable[str]) -> str:
    """What each of these peers ran, and how far its numbers are from ours."""
    peers = that_ran(races, names)
    body = [
        [r["name"], *(_agreement_cell(r["peers"].get(n, {})) for n in peers)]
        for r in races
    ]
    note = (
        "The variant that raced (the fastest in a short trial), and the largest "
        "relative deviation of its outputs or gradients from the reference's."
    )
    return f"## What ran, and the same numbers\n\n{note}\n\n" + table(
        ["case", *peers], body
    )


def _agreement_cell(ran: Result) -> str:
    if "variant" not in ran:
        return "-"
    parts = [ran["variant"] or "default options"]
    if ran["equation"]:
        parts.append(f"another equation ({ran['equation']})")
    if "agreement" in ran:
        parts.append(_numbers(ran["agreement"]))
    return "; ".join(parts)


def _numbers(agreement: Result) -> str:
    if agreement["reference"] is None:
        return "reference"
    same = "same numbers: yes" if agreement["same"] else "SAME NUMBERS: NO"
    return f"{same} ({agreement['deviation']:.0e} from {agreement['reference']})"


def left_out(result: Result) -> str:
    """Every peer that did not run somewhere, with the reason."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for peer, reason in result["missing"].items():
        reasons[peer, reason] = ["all cases"]
    for row in result["cases"]:
        for peer, ran in row["peers"].items():
            reason = ran.get("failed") or ran.get("left_out")
            if reason and row["case"]["group"] == "race":
                reasons.setdefault((peer, shortened(reason)), []).append(row["name"])
    if not reasons:
        return ""
    lines = [
        f"- {peer}: {reason} ({len(where)} of the cases, {where[0]} the first)"
        if where[0] != "all cases"
        else f"- {peer}: {reason}"
        for (peer, reason), where in reasons.items()
    ]
    return "## Left out\n\n" + "\n".join(lines)


def shortened(message: str) -> str:
    """What failed, in a line."""
    if "RESOURCE_EXHAUSTED" in message or "out of memory" in message.lower():
        return "out of memory"
    return message.splitlines()[0][:300]
