"""The tables and the plot of the memory benchmark."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..core.plot import Panel, draw_panels
from ..core.ratios import Spread, ran, ratio, time, times
from ..core.report import conditions, grid, join, section, shortened
from .strategies import KEEP, NAMES, describe

Result = dict[str, Any]
Row = dict[str, Any]
Value = Callable[[Row, str], Any]

NOTE = (
    "A training step of an LSTM: the gradients by its parameters. Loss `final`: the "
    "mean of squares of the final state; `outputs`: that of all outputs. Temporary "
    "memory is that of XLA's plan of the program, without inputs and parameters. "
    f"Time ÷ {KEEP}: by that of `{KEEP}` in the same round, median of the "
    "rounds and quartiles. Difference: of the gradients from those of the first that "
    f"ran (`{KEEP}` if it did), the largest, relative to the largest of them."
)


def write_report(result: Result) -> str:
    """The whole report, in Markdown."""
    names = [n for n in NAMES if any(n in row["strategies"] for row in result["cases"])]
    parts = [
        f"# {result['name']}",
        f"Device: {result['device']}.",
        conditions(result),
        NOTE,
        "\n".join(f"- `{name}`: {describe(name)}" for name in names),
        *(_case(row) for row in result["cases"]),
        _peak(result["peak"]) if "peak" in result else "",
    ]
    return join(*parts) + "\n"


def _case(row: Row) -> str:
    """The table of a case, and why some strategies have no numbers in it."""
    names = row["strategies"]
    rounds = max((len(times(row, name)) for name in names), default=0)
    columns = [
        ("strategy", lambda name: name),
        *(
            (title, lambda name, value=value: _text(value(row, name)))
            for title, value in COLUMNS.items()
        ),
    ]
    table = section(row["name"], f"Rounds: {rounds}.", grid(columns, names))
    notes = [_note(name, result) for name, result in names.items()]
    return join(table, "\n".join(filter(None, notes)))


def _note(name: str, result: Row) -> str:
    """Why a strategy has no times."""
    if "same_as" in result:
        return f"- `{name}`: the same program as `{result['same_as']}`."
    if "left_out" in result:
        return f"- `{name}`: compiled, not run: {result['left_out']}."
    if "failed" in result:
        return f"- `{name}`: failed: {shortened(result['failed'])}."
    return ""


def _text(value: Spread | float | None) -> str:
    """A cell; a number has three digits, or all before the point."""
    if value is None:
        return ""
    if isinstance(value, Spread):
        return str(value) if value.low < value.high else f"{value.median:.2f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _mib(result: Row, field: str) -> float | None:
    """A number of bytes in MiB; None if it is unknown."""
    size = result.get(field)
    return None if size is None else size / 2**20


def temp_mib(row: Row, name: str) -> float | None:
    """Temporary memory of the program on the device."""
    return _mib(ran(row, name), "temp_bytes")


def memory_ratio(row: Row, name: str) -> float | None:
    """The temporary memory on the device by that of `KEEP`."""
    ours, keep = temp_mib(row, name), temp_mib(row, KEEP)
    return ours / keep if ours is not None and keep else None


def time_ratio(row: Row, name: str) -> Spread | None:
    """The time by that of `KEEP` in the same round."""
    return ratio(row, name, KEEP)


def _ms(row: Row, name: str) -> float | None:
    spread = time(row, name)
    return spread and spread.median


def _compile_s(row: Row, name: str) -> float | None:
    own = row["strategies"][name]
    return own["lower_s"] + own["compile_s"] if "compile_s" in own else None


# Of each strategy in a case. A column without a value in a case is left out.
COLUMNS: dict[str, Value] = {
    "temp, MiB": temp_mib,
    "on host, MiB": lambda row, name: _mib(ran(row, name), "host_temp_bytes") or None,
    "planned, MiB": lambda row, name: _mib(row["strategies"][name], "planned_bytes"),
    "peak of device, MiB": lambda row, name: _mib(ran(row, name), "peak_bytes"),
    f"memory ÷ {KEEP}": memory_ratio,
    f"time ÷ {KEEP}": time_ratio,
    "ms": _ms,
    "trace and compile, s": _compile_s,
    "difference": lambda row, name: ran(row, name).get("difference"),
}


def _peak(peak: Result) -> str:
    """The memory of a whole process."""
    mib = {name: f"{peak[name] / 2**20:.0f} MiB" for name in ("peak_rss", "start_rss")}
    return (
        f"## A process that trains over {peak['steps']} steps\n\n"
        f"{peak['name']}: {peak['training_steps']} training steps with "
        f"`{peak['strategy']}`, {peak['seconds']:.0f} s each. The process's peak "
        f"resident memory is {mib['peak_rss']}; before the first step it was "
        f"{mib['start_rss']} (Python, JAX, the inputs)."
    )


def draw(result: Result, file: Path) -> None:
    """Writes the plot: memory beside time, a line of panels for each loss."""
    losses = sorted({row["case"]["loss"] for row in result["cases"]})
    by_loss = {
        n: [r for r in result["cases"] if r["case"]["loss"] == n] for n in losses
    }
    lines = [_panels(loss, rows) for loss, rows in by_loss.items()]
    if lines:
        title = f"{result['device']}, {result['machine']['cores']} cores"
        draw_panels(file, lines, "logarithmic; further left is better", title)


def _panels(loss: str, rows: list[Row]) -> list[Panel]:
    cases = [row["name"].removesuffix(f" {loss}") for row in rows]
    # Without strategies that are another's program in all cases.
    own = [
        n
        for n in NAMES
        if any("same_as" not in row["strategies"].get(n, {}) for row in rows)
    ]
    memory = {name: [_exact(temp_mib(row, name)) for row in rows] for name in own}
    time = {
        name: [time_ratio(row, name) for row in rows] for name in own if name != KEEP
    }
    title = f"Time ÷ that of {KEEP} in the same round (quartiles), loss: {loss}"
    return [
        Panel(f"Temporary memory, MiB, loss: {loss}", cases, memory),
        Panel(title, cases, time, of_ratios=True),
    ]


def _exact(value: float | None) -> Spread | None:
    return None if value is None else Spread(value, value, value)
