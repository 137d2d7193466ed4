"""The tables, in Markdown, of a saved result."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..machine import BUSY
from ..ratios import Spread
from ..report import shortened, table
from .ratios import memory_ratio, resolve, temp_mib, time_ratio, times
from .strategies import KEEP, NAMES, describe

Result = dict[str, Any]
Cell = Callable[[Result, str], Any]

NOTE = (
    "A training step of an LSTM: the gradients by its parameters. Loss `final`: the "
    "mean of squares of the final state; `outputs`: that of all outputs. Temporary "
    "memory is what XLA says of the compiled program; inputs and parameters are not "
    f"part of it. Time ÷ {KEEP}: by that of `{KEEP}` in the same round, median of the "
    "rounds and quartiles. Difference: of the gradients from those of the first that "
    f"ran (`{KEEP}` if it did), the largest, by the largest of them."
)


def write_report(result: Result) -> str:
    """All of a result."""
    parts = [_head(result)]
    parts += [_case(row) for row in result["cases"]]
    if "peak" in result:
        parts.append(_peak(result["peak"]))
    return "\n\n".join(parts) + "\n"


def _head(result: Result) -> str:
    machine = "; ".join(f"{name}: {value}" for name, value in result["machine"].items())
    versions = ", ".join(f"{name} {v}" for name, v in result["versions"].items())
    shares = [share for row in result["cases"] for share in row["busy"]]
    busy = sum(share > BUSY for share in shares)
    names = [n for n in NAMES if any(n in row["strategies"] for row in result["cases"])]
    legend = "\n".join(f"- `{name}`: {describe(name)}" for name in names)
    return (
        f"# {result['name']}\n\nDevice: {result['device']}. Machine: {machine}.\n\n"
        f"Versions: {versions}. Something else kept the machine busy before {busy} of "
        f"{len(shares)} rounds.\n\n{NOTE}\n\n{legend}"
    )


def _case(row: Result) -> str:
    """The table of a case, and what has no numbers in it."""
    columns = {
        title: cells
        for title, column in COLUMNS.items()
        if any(cells := [_text(column(row, name)) for name in row["strategies"]])
    }
    body = [
        [name, *(cells[i] or "-" for cells in columns.values())]
        for i, name in enumerate(row["strategies"])
    ]
    rounds = max((len(times(row, name)) for name in row["strategies"]), default=0)
    parts = [
        f"## {row['name']}",
        f"Rounds: {rounds}.",
        table(["strategy", *columns], body),
        _notes(row),
    ]
    return "\n\n".join(filter(None, parts))


def _notes(row: Result) -> str:
    """Why a strategy has no times."""
    lines = []
    for name, result in row["strategies"].items():
        if "same_as" in result:
            lines.append(f"- `{name}`: the same program as `{result['same_as']}`.")
        elif "left_out" in result:
            lines.append(f"- `{name}`: compiled, not run: {result['left_out']}.")
        elif "failed" in result:
            lines.append(f"- `{name}`: failed: {shortened(result['failed'])}.")
    return "\n".join(lines)


def _text(value: Any) -> str:
    """A cell; numbers to three digits, and no fewer before the point."""
    if value is None:
        return ""
    if isinstance(value, Spread):
        return str(value) if value.low < value.high else f"{value.median:.2f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _host_mib(row: Result, name: str) -> float | None:
    return temp_mib(row, name, "host_temp_bytes") or None


def _peak_mib(row: Result, name: str) -> float | None:
    peak = resolve(row, name).get("peak_bytes")
    return peak and peak / 2**20


def _ms(row: Result, name: str) -> float | None:
    found = times(row, name)
    return float(np.median(found)) if len(found) else None


def _compile_s(row: Result, name: str) -> float | None:
    own = row["strategies"][name]
    return own["lower_s"] + own["compile_s"] if "compile_s" in own else None


def _difference(row: Result, name: str) -> float | None:
    return resolve(row, name).get("difference")


# A column that is empty in a case is left out of its table.
def _planned_mib(row: Result, name: str) -> float | None:
    planned = row["strategies"][name].get("planned_bytes")
    return None if planned is None else planned / 2**20


COLUMNS: dict[str, Cell] = {
    "temp, MiB": temp_mib,
    "on host, MiB": _host_mib,
    "planned, MiB": _planned_mib,
    "peak of device, MiB": _peak_mib,
    f"memory ÷ {KEEP}": memory_ratio,
    f"time ÷ {KEEP}": time_ratio,
    "ms": _ms,
    "trace and compile, s": _compile_s,
    "difference": _difference,
}


def _peak(peak: Result) -> str:
    """What a whole process took."""
    mib = {name: f"{peak[name] / 2**20:.0f} MiB" for name in ("peak_rss", "start_rss")}
    return (
        f"## A process that trains over {peak['steps']} steps\n\n"
        f"{peak['name']}: {peak['training_steps']} training steps with "
        f"`{peak['strategy']}`, {peak['seconds']:.0f} s each. The process's peak "
        f"resident memory is {mib['peak_rss']}, of which {mib['start_rss']} were there "
        "before the first step (Python, JAX, the inputs)."
    )
