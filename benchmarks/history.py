"""How ratios moved against a saved result."""

import statistics
from typing import Any

from .peers import KIN, OURS
from .ratios import Spread, ratio

Result = dict[str, Any]


def compare(old: Result, new: Result) -> str:
    """A line for each case that both have, and the cases where ours became slower.

    Ours is slower in a case if for most peers the quartiles of the ratio lie below what
    they were, without touching: one peer that became faster does not make us slower.
    """
    before = {row["name"]: row for row in old["cases"]}
    lines, slower = [], []
    for row in new["cases"]:
        if row["name"] not in before:
            continue
        moves = _moves(before[row["name"]], row)
        lines.append(_line(row["name"], moves))
        below = [now.high < then.low for then, now in moves.values()]
        if sum(below) * 2 > len(below):
            slower.append(row["name"])
    if not lines:
        return "The two results have no case in common."
    verdict = "\n".join(f"  {name}" for name in slower) or "  none"
    return "\n".join([*lines, f"Slower by more than the spread:\n{verdict}"])


def _moves(old: Result, new: Result) -> dict[str, tuple[Spread, Spread]]:
    moves = {}
    for peer in new["peers"]:
        then, now = ratio(old, peer), ratio(new, peer)
        if peer not in (OURS, *KIN) and then and now:
            moves[peer] = then, now
    return moves


def _line(name: str, moves: dict[str, tuple[Spread, Spread]]) -> str:
    parts = [
        f"{peer} {then.median:.2f} → {now.median:.2f}"
        for peer, (then, now) in moves.items()
    ]
    factors = [now.median / then.median for then, now in moves.values()]
    typical = f"x{statistics.median(factors):.2f}" if factors else "no peer in common"
    return f"{name}: {typical} ({', '.join(parts)})"
