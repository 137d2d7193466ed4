"""How ratios changed against a saved result."""

import statistics
from typing import Any

from ..core.ratios import Spread, ratio
from ..peers import OTHER_FORMS, OURS

Result = dict[str, Any]


def compare(old: Result, new: Result) -> str:
    """A line for each case in both results, and the cases where jaxrnn became slower.

    It is slower in a case if, for more than half of the peers, the quartiles of the
    ratio are below the old ones without overlap: one peer that became faster does not
    make jaxrnn slower.
    """
    before = {row["name"]: row for row in old["cases"]}
    lines, slower = [], []
    for row in new["cases"]:
        if row["name"] not in before:
            continue
        changes = _changes(before[row["name"]], row)
        lines.append(_line(row["name"], changes))
        below = [now.high < then.low for then, now in changes.values()]
        if sum(below) * 2 > len(below):
            slower.append(row["name"])
    if not lines:
        return "The two results have no case in common."
    verdict = "\n".join(f"  {name}" for name in slower) or "  none"
    return "\n".join([*lines, f"Slower by more than the spread:\n{verdict}"])


def _changes(old: Result, new: Result) -> dict[str, tuple[Spread, Spread]]:
    changes = {}
    for peer in new["peers"]:
        then, now = ratio(old, peer, OURS), ratio(new, peer, OURS)
        if peer not in (OURS, *OTHER_FORMS) and then and now:
            changes[peer] = then, now
    return changes


def _line(name: str, changes: dict[str, tuple[Spread, Spread]]) -> str:
    parts = [
        f"{peer} {then.median:.2f} → {now.median:.2f}"
        for peer, (then, now) in changes.items()
    ]
    factors = [now.median / then.median for then, now in changes.values()]
    typical = f"x{statistics.median(factors):.2f}" if factors else "no peer in common"
    return f"{name}: {typical} ({', '.join(parts)})"
