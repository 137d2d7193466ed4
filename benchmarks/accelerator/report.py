"""The tables, in Markdown, of a saved result."""

from typing import Any

from ..ratios import median_ms, ratio, times
from ..report import agreement_table, conditions, left_out, table, that_ran
from .bounds import by_bound
from .names import NAMES, OURS

Result = dict[str, Any]

INTERPRETED = "interpreted"

NOTE = (
    f"Milliseconds of a call, median of the rounds; then the time by that of `{OURS}` "
    "in the same round, median and quartiles: below 1 it is faster. `float32`: arrays "
    "and products in float32; `tf32`: the products as JAX makes them by default, TF32 "
    "on a GPU, of bfloat16 on a TPU. † does not compute the same numbers. ‡ run by an "
    "interpreter: its time means nothing. - left out."
)
MEMORY_NOTE = (
    "MiB of a call beside its arguments, results included: what XLA says of the "
    "compiled program; for PyTorch the most that was allocated."
)
BOUNDS_NOTE = (
    "What memory and arithmetic allow at best (`jaxrnn.explain`), in milliseconds: a "
    "loop of XLA that reads all matrices at every step; a kernel that reads those of "
    "the state once, with the products of the inputs ahead of it. The large products "
    "after the loop, for gradients, are part of both."
)
MEASURED_NOTE = "`÷ best`: the measured time by that; cuDNN's by a kernel's."


def write_report(result: Result) -> str:
    """All of a result."""
    rows = result["cases"]
    parts = [
        _head(result),
        _times(rows),
        _memory(rows),
        agreement_table(rows, NAMES),
        left_out(result),
        *(_bounds(result, machine) for machine in result["bounds"]),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _head(result: Result) -> str:
    device = result["device"]
    software = "; ".join(f"{k}: {v}" for k, v in device["software"].items())
    return (
        f"# {result['name']}\n\nDevice: {device['kind']}. {software}.\n\n"
        f"{conditions(result)}\n\n{NOTE}"
    )


def _times(rows: list[Result]) -> str:
    peers = that_ran(rows, NAMES)
    body = [[row["name"], *(_time(row, peer) for peer in peers)] for row in rows]
    return f"## Times\n\n{table(['case', *peers], body)}"


def _time(row: Result, peer: str) -> str:
    ran = row["peers"].get(peer, {})
    if not len(times(row, peer)):
        return "failed" if "failed" in ran else "-"
    marks = "†" * (not ran["agreement"]["same"]) + "‡" * is_interpreted(ran)
    cell = f"{median_ms(row, peer):.3g}{marks}"
    spread = ratio(row, peer, OURS)
    return cell if peer == OURS or spread is None else f"{cell}; {spread}"


def is_interpreted(ran: Result) -> bool:
    """Whether a peer's kernel was run by Pallas's interpreter."""
    return ran["variant"].startswith(INTERPRETED)


def _memory(rows: list[Result]) -> str:
    peers = that_ran(rows, NAMES)
    body = [[row["name"], *(_mib(row, peer) for peer in peers)] for row in rows]
    return f"## Memory\n\n{MEMORY_NOTE}\n\n{table(['case', *peers], body)}"


def _mib(row: Result, peer: str) -> str:
    facts = row["peers"].get(peer, {}).get("facts")
    if not facts:
        return "-"
    return f"{(facts['temp_bytes'] + facts.get('output_bytes', 0)) / 2**20:.4g}"


def _bounds(result: Result, machine: str) -> str:
    """A machine's bounds; beside what was measured, if this is the machine."""
    bounds = result["bounds"][machine]
    rows = [row for row in result["cases"] if row["name"] in bounds]
    if not rows:
        return ""
    is_here = machine == result["device"]["machine"]
    peers = that_ran(rows, NAMES) if is_here else []
    header = ["case", "XLA's loop", "a kernel", *(f"{p} ÷ best" for p in peers)]
    body = [_bound_row(row, bounds[row["name"]], peers) for row in rows]
    note = f"{BOUNDS_NOTE} {MEASURED_NOTE}" if is_here else BOUNDS_NOTE
    parts = [f"## At best on {machine}", note, table(header, body)]
    return "\n\n".join([*parts, _verdicts(bounds)])


def _bound_row(row: Result, bound: Result, peers: list[str]) -> list[str]:
    measured = (by_bound(row, peer, bound) for peer in peers)
    return [
        row["name"],
        f"{bound['xla']:.3g}",
        f"{bound['ahead']:.3g}",
        *("-" if factor is None else f"{factor:.2f}" for factor in measured),
    ]


def _verdicts(bounds: dict[str, Result]) -> str:
    """Which implementations serve, and why the others do not."""
    cases: dict[str, list[str]] = {}
    for name, bound in bounds.items():
        for implementation, (serves, reason) in bound["verdicts"].items():
            line = f"{implementation}: {'serves' if serves else f'declines: {reason}'}"
            cases.setdefault(line, []).append(name)
    return "\n".join(
        f"- {line} ({len(names)} of the cases, {names[0]} the first)"
        for line, names in cases.items()
    )
