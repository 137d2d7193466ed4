"""A picture of the times: a row for each cell, forward beside gradients."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ..plot import STYLES as OTHERS
from ..ratios import times
from ..report import MODE_TITLES
from .cases import Case
from .names import NAMES, OURS
from .report import is_interpreted

Result = dict[str, Any]

# Colour and mark; a kernel that is not named here is a green dot.
STYLES = OTHERS | {
    OURS: ("#222222", "X"),
    "pallas_mosaic_tpu": ("#7b2cbf", "p"),
    "cudnn": ("#c1121f", "^"),
}
UNKNOWN = ("#2a9d8f", ".")
BOUNDS = {
    "xla": ("#222222", "XLA's loop at best"),
    "ahead": ("#c1121f", "a kernel at best"),
}

NOTE = (
    "milliseconds: further left is better\n"
    "(median and quartiles of the rounds; hollow: interpreted, which means nothing)"
)


def draw(result: Result, file: Path) -> None:
    """Writes the picture."""
    lines = _panels(result["cases"])
    columns = max(len(panels) for panels in lines)
    heights = [1 + max(len(rows) for rows in panels) for panels in lines]
    figure = Figure(
        figsize=(2 + 7 * columns, 2 + 0.4 * sum(heights)),
        dpi=110,
        layout="constrained",
    )
    grid = figure.subplots(len(lines), columns, squeeze=False, height_ratios=heights)
    bounds = result["bounds"].get(result["device"]["machine"], {})
    for places, panels in zip(grid, lines, strict=True):
        for axes, rows in itertools.zip_longest(places, panels):
            if rows:
                _panel(axes, rows, bounds)
            else:
                axes.remove()
    figure.supxlabel(NOTE, fontsize=10)
    _legend(figure, _title(result))
    figure.savefig(file)


def _panels(rows: list[Result]) -> list[list[list[Result]]]:
    """The cases of each panel: a line for each cell, of the modes that it has."""
    found: dict[str, dict[str, list[Result]]] = {}
    for row in rows:
        modes = found.setdefault(row["case"]["cell"], {})
        modes.setdefault(row["case"]["mode"], []).append(row)
    return [list(modes.values()) for modes in found.values()]


def _title(result: Result) -> str:
    """The device, the date, and the versions of packages."""
    versions: dict[str, str] = {}
    for used in result["versions"].values():
        versions |= used
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{result['device']['kind']}, {result['date']}\n{packages}"


def _panel(axes: Axes, rows: list[Result], bounds: dict[str, Result]) -> None:
    for peer in NAMES:
        _points(axes, rows, peer)
    for kind, (colour, label) in BOUNDS.items():
        known = [(y, b) for y, r in enumerate(rows) if (b := bounds.get(r["name"]))]
        x, low = [b[kind] for _, b in known], [y - 0.35 for y, _ in known]
        if known:
            high = [y + 0.35 for y, _ in known]
            axes.vlines(x, low, high, colour, linewidth=1.5, label=label)
    cases = [Case(**row["case"]) for row in rows]
    axes.set_yticks(range(len(rows)), [f"{c.shape} {c.arithmetic}" for c in cases])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_title(f"{cases[0].cell}: {MODE_TITLES[cases[0].mode]}", loc="left")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="both", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def _points(axes: Axes, rows: list[Result], peer: str) -> None:
    """A peer's time in each case that it ran."""
    colour, mark = STYLES.get(peer, UNKNOWN)
    for y, row in enumerate(rows):
        found = times(row, peer)
        if not len(found):
            continue
        low, middle, high = np.percentile(found, (25, 50, 75))
        axes.errorbar(
            middle,
            y,
            xerr=[[middle - low], [high - middle]],
            fmt=mark,
            color=colour,
            markerfacecolor="white" if is_interpreted(row["peers"][peer]) else colour,
            label=peer,
            markersize=7,
            alpha=0.85,
            linewidth=1,
        )


def _legend(figure: Figure, title: str) -> None:
    """Every label once, under the title."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    order: Callable[[str], int] = [*NAMES, *(b for _, b in BOUNDS.values())].index
    labels = sorted(found, key=order)
    handles = [found[label] for label in labels]
    legend = figure.legend(
        handles,
        labels,
        title=title,
        loc="outside upper center",
        ncols=int(figure.get_figwidth() / 1.5),
        frameon=False,
    )
    legend.get_title().set_multialignment("center")
