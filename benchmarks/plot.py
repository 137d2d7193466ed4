"""A picture of the ratios: a panel for each mode, a line for each case."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from .cases import MODES, Case
from .peers import NAMES, OURS
from .ratios import ratio
from .report import MODE_TITLES

# Colour and mark; a peer that is not named here is a grey dot.
STYLES = {
    "jaxrnn_linen": ("#2d6a4f", "<"),
    "jaxrnn_nnx": ("#74c69d", ">"),
    "packed": ("#7b2cbf", "p"),
    "scan": ("#777777", "o"),
    "linen": ("#1b6ca8", "s"),
    "nnx": ("#5fa8d3", "D"),
    "haiku": ("#2a9d8f", "v"),
    "keras": ("#c1121f", "^"),
    "torch": ("#e76f51", "P"),
    "tensorflow": ("#f4a100", "*"),
    "gemm_xla": ("#000000", "x"),
    "gemm_torch": ("#000000", "+"),
}
PEERS = [name for name in NAMES if name != OURS]


def draw(result: dict[str, Any], file: Path) -> None:
    """Writes the picture."""
    races = [r for r in result["cases"] if r["case"]["group"] == "race"]
    panels = [
        rows for m in MODES if (rows := [r for r in races if r["case"]["mode"] == m])
    ]
    if not panels:
        return
    heights = [len(rows) + 1 for rows in panels]
    figure = Figure(
        figsize=(11, 1.4 + 0.42 * sum(heights)), dpi=110, layout="constrained"
    )
    grid = figure.subplots(
        len(panels), sharex=True, squeeze=False, height_ratios=heights
    )
    for axes, rows in zip(grid[:, 0], panels, strict=True):
        _panel(axes, rows)
    grid[-1, 0].set_xlabel(f"time ÷ {OURS}'s time (quartiles of the rounds)")
    found = {
        label: handle
        for axes in grid[:, 0]
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    names = [name for name in PEERS if name in found]
    figure.legend(
        [found[name] for name in names], names, loc="outside upper center", ncols=6
    )
    figure.savefig(file)


def _panel(axes: Axes, rows: list[dict[str, Any]]) -> None:
    for peer in PEERS:
        points = [
            (y, spread) for y, row in enumerate(rows) if (spread := ratio(row, peer))
        ]
        if not points:
            continue
        colour, mark = STYLES.get(peer, ("#777777", "."))
        x = [spread.median for _, spread in points]
        error = [
            [spread.median - spread.low for _, spread in points],
            [spread.high - spread.median for _, spread in points],
        ]
        axes.errorbar(
            x,
            [y for y, _ in points],
            xerr=error,
            fmt=mark,
            color=colour,
            label=peer,
            markersize=6,
            alpha=0.85,
            linewidth=1,
        )
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks([0.25, 0.5, 1, 2, 4, 8])
    cases = [Case(**row["case"]) for row in rows]
    axes.set_yticks(
        range(len(rows)), [f"{c.cell} {c.shape} {c.lengths}" for c in cases]
    )
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="both", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_title(MODE_TITLES[cases[0].mode], loc="left", fontsize=10)
