"""The plot of the growth: time of a step and memory against the number of steps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ..core.plot import OTHER, STYLES, add_legend
from . import FORMS
from .cases import GROWING
from .tables import growing, step_us, temp_mib

Row = dict[str, Any]

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
    grid = figure.subplots(len(LINES), len(cells), sharex=True, sharey="row")
    for line, (label, mode, value) in zip(grid.reshape(3, -1), LINES, strict=True):
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
