"""A picture: memory and time against the number of steps, a row for each loss."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from .ratios import temp_mib, time_ratio
from .strategies import KEEP, NAMES

Result = dict[str, Any]
Value = Callable[[Result, str], float | None]
Point = tuple[int, float]

# Colour, mark and line: what is kept has a colour, by hand is dashed.
STYLES = {
    "keep": ("#222222", "o", "-"),
    "every step": ("#c1121f", "s", "-"),
    "sqrt": ("#1b6ca8", "D", "-"),
    "nested": ("#2a9d8f", "v", "-"),
    "offload keep": ("#7b2cbf", "P", "-"),
    "offload 64": ("#e08a00", "^", "-"),
    "True": ("#5fa8d3", "X", "-"),
    "by hand, keep": ("#222222", "o", "--"),
    "by hand, every step": ("#c1121f", "s", "--"),
    "by hand, chunks": ("#1b6ca8", "D", "--"),
}
ROOM = 0.048  # Between labels, in parts of an axis.


def draw(result: Result, file: Path) -> None:
    """Writes the picture."""
    losses = sorted({row["case"]["loss"] for row in result["cases"]})
    figure = Figure(figsize=(13, 5.4 * len(losses)), dpi=110, layout="constrained")
    grid = figure.subplots(len(losses), 2, squeeze=False)
    for (memory, time), loss in zip(grid, losses, strict=True):
        rows = [row for row in result["cases"] if row["case"]["loss"] == loss]
        _memory_panel(memory, rows)
        _time_panel(time, rows)
    figure.suptitle(_title(result), x=0.01, ha="left", fontsize=11)
    figure.savefig(file)


def _title(result: Result) -> str:
    case = result["cases"][0]["case"]
    return (
        f"A training step of an LSTM of {case['units']} units, {case['batch']} rows, "
        f"{case['dtype']}; {result['device']}, {result['machine']['cores']} cores"
    )


def _memory_panel(axes: Axes, rows: list[Result]) -> None:
    _panel(axes, rows, temp_mib)
    _label(axes, rows, temp_mib)
    axes.set_title(f"Temporary memory, MiB{_loss(rows)}", loc="left", fontsize=10)


def _time_panel(axes: Axes, rows: list[Result]) -> None:
    rows = [row for row in rows if time_ratio(row, KEEP)]
    if not rows:
        axes.set_axis_off()
        return
    _panel(axes, rows, lambda row, name: None if name == KEEP else _time(row, name))
    axes.yaxis.set_major_locator(FixedLocator([0.5, 1, 1.5, 2, 3, 4, 6, 8]))
    for row in rows:
        for name in _names(rows):
            if spread := time_ratio(row, name):
                x, colour = row["case"]["steps"], STYLES[name][0]
                axes.vlines(x, spread.low, spread.high, colour, linewidth=1, alpha=0.6)
    axes.axhline(1, color="black", linewidth=1)
    _label(axes, rows, _time)
    title = f"Time ÷ that of {KEEP} in the same round (quartiles){_loss(rows)}"
    axes.set_title(title, loc="left", fontsize=10)


def _loss(rows: list[Result]) -> str:
    return f", loss: {rows[0]['case']['loss']}"


def _time(row: Result, name: str) -> float | None:
    spread = time_ratio(row, name)
    return spread and spread.median


def _panel(axes: Axes, rows: list[Result], value: Value) -> None:
    """Lines against the number of steps."""
    for name in _names(rows):
        colour, mark, line = STYLES[name]
        for part in _parts(rows):
            points = list(_points(part, name, value))
            axes.plot(
                [x for x, _ in points],
                [y for _, y in points],
                color=colour,
                marker=mark,
                linestyle=line,
                markersize=5,
                linewidth=1.4,
                markerfacecolor="white" if line == "--" else colour,
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    sizes = [row["case"]["steps"] for row in rows]
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("time steps")
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    _mark_depths(axes, rows)


def _names(rows: list[Result]) -> list[str]:
    """Those that have a program of their own in some case."""
    found = [
        name
        for row in rows
        for name, r in row["strategies"].items()
        if "same_as" not in r
    ]
    return [name for name in NAMES if name in found]


def _parts(rows: list[Result]) -> list[list[Result]]:
    """The cases with inputs of one depth: no line connects two of them."""
    depths = sorted({row["case"]["depth"] for row in rows}, reverse=True)
    return [[row for row in rows if row["case"]["depth"] == depth] for depth in depths]


def _mark_depths(axes: Axes, rows: list[Result]) -> None:
    """Says where inputs become narrow, if they do."""
    for before, after in zip(_parts(rows), _parts(rows)[1:], strict=False):
        (low, _), (high, depth) = (
            (row["case"]["steps"], row["case"]["depth"])
            for row in (before[-1], after[0])
        )
        x = math.sqrt(low * high)
        axes.axvline(x, color="#888888", linewidth=0.8, linestyle=":")
        axes.annotate(
            f"inputs of depth {depth} →",
            (x, 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, -2),
            textcoords="offset points",
            va="top",
            fontsize=8,
            color="#666666",
        )


def _points(rows: list[Result], name: str, value: Value) -> Iterator[Point]:
    for row in rows:
        if (y := value(row, name)) is not None:
            yield row["case"]["steps"], y


def _label(axes: Axes, rows: list[Result], value: Value) -> None:
    """Names the lines at their right ends, moved apart where they would touch."""
    ends = {
        name: points[-1]
        for name in _names(rows)
        if (points := list(_points(rows, name, value)))
    }
    to_axes = axes.transAxes.inverted()
    heights = {
        name: to_axes.transform(axes.transData.transform(end))[1]
        for name, end in ends.items()
    }
    for name, height in _apart(heights).items():
        colour = STYLES[name][0]
        axes.annotate(
            name,
            ends[name],
            xytext=(1.03, height),
            textcoords="axes fraction",
            va="center",
            fontsize=9,
            color=colour,
            arrowprops={"arrowstyle": "-", "color": colour, "alpha": 0.35, "lw": 0.7},
        )


def _apart(heights: dict[str, float]) -> dict[str, float]:
    """The same, from the lowest, each at least `ROOM` above the one before."""
    moved: dict[str, float] = {}
    names = sorted(heights, key=heights.__getitem__)
    groups: list[list[str]] = []
    centres: list[float] = []
    for name in names:
        groups.append([name])
        centres.append(heights[name])
        while len(groups) > 1 and _touch(groups, centres):
            group = groups.pop(-2) + groups.pop()
            groups.append(group)
            centres[-2:] = [sum(heights[n] for n in group) / len(group)]
    for group, centre in zip(groups, centres, strict=True):
        for i, name in enumerate(group):
            moved[name] = centre + ROOM * (i - (len(group) - 1) / 2)
    return moved


def _touch(groups: list[list[str]], centres: list[float]) -> bool:
    """Whether the last two groups of labels do."""
    room = ROOM * (len(groups[-2]) + len(groups[-1])) / 2
    return centres[-1] - centres[-2] < room
