"""The tables, in Markdown, of a saved result."""

import re
from collections.abc import Iterable
from typing import Any

from jaxrnn._kernels.api import KERNELS

from ..ratios import median_ms, ratio, times
from ..report import agreement_table, conditions, shortened, table, that_ran
from .bounds import by_bound
from .names import NAMES, OURS

Result = dict[str, Any]

INTERPRETED = "interpreted"

NOTE = (
    f"Milliseconds of a call, median of the rounds; then the time by that of `{OURS}` "
    "in the same round, median and quartiles: below 1 it is faster. A case's sizes: B "
    "the batch, T the steps, D the depth of the inputs, H the units. `float32`: arrays "
    "and products in float32; `tf32`: the products as JAX makes them by default, TF32 "
    "on a GPU, of bfloat16 on a TPU. † does not compute the same numbers. ‡ run by an "
    "interpreter: its time and memory mean nothing. - left out."
)
MEMORY_NOTE = (
    "MiB of a call beside its arguments, results included: what XLA says of the "
    "compiled program; for PyTorch the most that was allocated."
)
BOUNDS_NOTE = (
    "What memory and arithmetic allow at best (`jaxrnn.explain`), in milliseconds: a "
    "loop of XLA that multiplies inputs and state at every step, and reads the "
    "matrices again unless they fit a cache (VMEM or L2); a kernel that reads those of "
    "the state once, as far as they fit, with the products of the inputs ahead of it. "
    "With gradients, the large products after the loop are part of both."
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
        _left_out(result),
        *(_bounds(result, machine) for machine in result["bounds"]),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _head(result: Result) -> str:
    device = result["device"]
    software = "; ".join(f"{k}: {v}" for k, v in device["software"].items())
    # A single one is no plural.
    how = re.sub(r"\b1 (case|round)s\b", r"1 \1", conditions(result))
    parts = [
        f"# {result['name']}",
        _nothing_measured(result),
        f"Device: {device['kind']}. {software}.",
        how,
        NOTE,
    ]
    return "\n\n".join(filter(None, parts))


def _nothing_measured(result: Result) -> str:
    """A warning, if no kernel ran on the device itself."""
    if any(_is_measured(row, name) for row in result["cases"] for name in KERNELS):
        return ""
    is_cpu = result["device"]["platform"] == "cpu"
    why = "this is a CPU" if is_cpu else "none ran on this device"
    return f"**No kernel was measured here: {why}.**"


def _is_measured(row: Result, peer: str) -> bool:
    return bool(len(times(row, peer))) and not is_interpreted(row["peers"][peer])


def _times(rows: list[Result]) -> str:
    peers = that_ran(rows, NAMES)
    body = [[row["name"], *(_time(row, peer) for peer in peers)] for row in rows]
    return f"## Times\n\n{table(['case', *peers], body)}"


def _time(row: Result, peer: str) -> str:
    ran = row["peers"].get(peer, {})
    if not len(times(row, peer)):
        return "failed" if "failed" in ran else "-"
    interpreted = is_interpreted(ran)
    marks = "†" * (not ran["agreement"]["same"]) + "‡" * interpreted
    cell = f"{median_ms(row, peer):.3g}{marks}"
    spread = None if peer == OURS or interpreted else ratio(row, peer, OURS)
    return cell if spread is None else f"{cell}; {spread}"


def is_interpreted(ran: Result) -> bool:
    """Whether a peer's kernel was run by Pallas's interpreter."""
    return ran["variant"].startswith(INTERPRETED)


def _memory(rows: list[Result]) -> str:
    peers = that_ran(rows, NAMES)
    body = [[row["name"], *(_mib(row, peer) for peer in peers)] for row in rows]
    return f"## Memory\n\n{MEMORY_NOTE}\n\n{table(['case', *peers], body)}"


def _mib(row: Result, peer: str) -> str:
    ran = row["peers"].get(peer, {})
    facts = ran.get("facts")
    if not facts:
        return "-"
    mib = (facts["temp_bytes"] + facts.get("output_bytes", 0)) / 2**20
    return f"{mib:.4g}{'‡' * is_interpreted(ran)}"


def _left_out(result: Result) -> str:
    """Every peer that did not run somewhere, with the reason."""
    rows = result["cases"]
    missing = result["missing"].items()
    said = [(peer, why, row["name"]) for peer, why in missing for row in rows]
    for row in rows:
        for peer, ran in row["peers"].items():
            if reason := ran.get("failed") or ran.get("left_out"):
                said.append((peer, shortened(reason), row["name"]))
    return f"## Left out\n\n{_lines(said, len(rows))}" if said else ""


def _lines(said: Iterable[tuple[str, str, str]], count: int) -> str:
    """What is said of each peer: in all cases, or in which of so many."""
    cases: dict[tuple[str, str], list[str]] = {}
    for peer, what, case in said:
        cases.setdefault((peer, what), []).append(case)
    return "\n".join(
        f"- {peer}{_where(names, count)}: {what}"
        for (peer, what), names in cases.items()
    )


def _where(names: list[str], count: int) -> str:
    if len(names) == count:
        return ""
    first, *others = names
    more = f" and {len(others)} more" if others else ""
    return f" in {len(names)} of {count} cases ({first}{more})"


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
    said = [
        (implementation, "serves" if serves else f"declines: {reason}", name)
        for name, bound in bounds.items()
        for implementation, (serves, reason) in bound["verdicts"].items()
    ]
    return _lines(said, len(bounds))
