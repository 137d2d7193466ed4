"""Times of other programs, relative to jaxrnn's, for LSTMs and GRUs on two cores."""

import pathlib
import sys

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from benchmarks import claims

MARKERS = {"large": ("layers", "o"), "small": ("layers", "s"), "padded": ("rows", "^")}
TICKS = (1, 1.5, 2, 3, 4, 6)


def draw() -> Figure:
    """A panel for each mode, a row for each program, and a marker for each size."""
    cases = claims.measured()
    figure, panels = plt.subplots(
        1, 2, figsize=(7, 3), layout="constrained", sharex=True, sharey=True
    )
    for axes, (mode, title) in zip(panels, claims.MODES.items(), strict=True):
        draw_mode(axes, [case for case in cases if case.mode == mode])
        axes.set_title(title, loc="left", fontweight="bold")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=3, frameon=False)
    figure.supxlabel(
        "other program's time divided by jaxrnn's (median, logarithmic scale)",
        fontsize=11,
    )
    return figure


def draw_mode(axes: Axes, cases: list[claims.Measured]) -> None:
    """The medians of each program over the large, the small and the padded cases."""
    names = list(claims.CONTESTANTS)
    for i, (size, (noun, marker)) in enumerate(MARKERS.items()):
        group = [case for case in cases if case.size == size]
        units = [case.row["case"]["units"] for case in group]
        label = f"{size} {noun}\n{min(units)} to {max(units)} units"
        for y, name in enumerate(names):
            ratios = [ratio for case in group if (ratio := case.ratio(name))]
            if ratios:
                median = float(np.median(ratios))
                axes.plot(median, y, marker, color=f"C{i}", label=label, ms=8)
                label = None
    axes.axvline(1, color=plt.rcParams["text.color"], linewidth=1)
    axes.axvspan(0.5, 1, color="0.93")
    axes.text(0.9, 2.5, "jaxrnn slower", rotation=90, ha="center", va="center")
    axes.set_xscale("log")
    axes.set_xlim(0.82, 7)
    axes.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    axes.set_xticks([], minor=True)
    axes.set_yticks(range(len(names)), [name.partition(",")[0] for name in names])
    axes.set_ylim(len(names) - 0.5, -0.6)
    axes.grid(axis="both", color="0.88")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
