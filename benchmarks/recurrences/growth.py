"""The growth: time of a step and memory against the number of steps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ..core.plot import OTHER, STYLES, add_legend
from ..core.ratios import ran, time
from ..core.report import grid, of_each
from . import FORMS
from .cases import GROWING

Row = dict[str, Any]


def growing(rows: list[Row], cell: str, mode: str) -> list[Row]:
    """The rows of the growth of a cell, by the number of steps."""
    found = [
        row
        for row in rows
        if (row["case"]["cell"], row["case"]["mode"]) == (cell, mode)
        and row["case"]["batch"] == 1
    ]
    return sorted(found, key=lambda row: row["case"]["time"])


def step_us(row: Row, name: str) -> float | None:
    """Microseconds a step."""
    spread = time(row, name)
    return 1e3 * spread.median / row["case"]["time"] if spread else None


def temp_mib(row: Row, name: str) -> float | None:
    """Temporary memory."""
    size = ran(row, name).get("facts", {}).get("temp_bytes")
    return None if size is None else size / 2**20


def table(rows: list[Row]) -> str:
    """Time of a step and memory, in Markdown."""
    found = [
        row
        for cell in GROWING
        for mode in ("forward", "train")
        for row in growing(rows, cell, mode)
    ]
    of_case = ("cell", "mode", "time")
    columns = of_each(of_case, lambda row, name: str(row["case"][name]))
    us = of_each(FORMS, lambda row, n: text(step_us(row, n)), "{}, µs")
    mib = of_each(FORMS, lambda row, n: text(temp_mib(row, n)), "{}, MiB")
    return grid([*columns, *us, *mib], found)


def text(value: float | None) -> str:
    """Three digits, or all before the point."""
    if value is None:
        return ""
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


LINES: tuple[tuple[str, str, Callable[[Row, str], float | None]], ...] = (
    ("forward, µs a step", "forward", step_us),
    ("training, µs a step", "train", step_us),
    ("training, temporary MiB", "train", temp_mib),
)


def draw(result: dict[str, Any], file: Path) -> None:
    """Writes the plot, a column for each cell that has several numbers of steps."""
    found = {cell: growing(result["cases"], cell, "train") for cell in GROWING}
    cells = [cell for cell, rows in found.items() if len(rows) > 1]
    if not cells:
        return
    size = (1.5 + 3.6 * len(cells), 9)
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    panels = figure.subplots(len(LINES), len(cells), sharex=True, sharey="row")
    for line, (label, mode, value) in zip(panels.reshape(3, -1), LINES, strict=True):
        line[0].set_ylabel(label)
        for axes, cell in zip(line, cells, strict=True):
            _draw(axes, growing(result["cases"], cell, mode), value)
            axes.set_title(cell, loc="left", fontsize=10)
    figure.supxlabel("steps, T (one row, both axes logarithmic)", fontsize=10)
    add_legend(figure)
    figure.savefig(file)


def _draw(axes: Axes, rows: list[Row], value: Callable) -> None:
    for name in FORMS:
        color, marker = STYLES.get(name, OTHER)
        points = [(row["case"]["time"], value(row, name)) for row in rows]
        points = [(x, y) for x, y in points if y is not None]
        if points:
            x, y = zip(*points, strict=True)
            axes.plot(x, y, marker=marker, color=color, label=name, markersize=6)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(_steps))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="both", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def _steps(x: float, _: int) -> str:
    return f"{x / 1024:g}k" if x >= 1024 else f"{x:g}"
