"""The plot of a result: panels of cases, with a point for each peer in each case."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from .ratios import Spread

# The color and the marker of each peer or strategy; others are grey dots. What is
# written by hand is hollow.
STYLES = {
    "jaxrnn": ("#c1121f", "D"),
    "xla": ("#222222", "X"),
    "pallas_mosaic_tpu": ("#7b2cbf", "p"),
    "pallas_triton": ("#2a9d8f", "v"),
    "cudnn": ("#c1121f", "^"),
    "jaxrnn_xla": ("#222222", "o"),
    "jaxrnn_linen": ("#2d6a4f", "<"),
    "jaxrnn_nnx": ("#74c69d", ">"),
    "packed": ("#7b2cbf", "p"),
    "scan": ("#777777", "o"),
    "associative": ("#1b6ca8", "s"),
    "recurrentgemma": ("#2a9d8f", "v"),
    "linen": ("#1b6ca8", "s"),
    "nnx": ("#5fa8d3", "D"),
    "haiku": ("#2a9d8f", "v"),
    "keras": ("#c1121f", "^"),
    "torch": ("#e76f51", "P"),
    "tensorflow": ("#f4a100", "*"),
    "gemm_xla": ("#000000", "x"),
    "gemm_torch": ("#000000", "+"),
    "keep": ("#222222", "o"),
    "every step": ("#c1121f", "s"),
    "sqrt": ("#1b6ca8", "D"),
    "nested": ("#2a9d8f", "v"),
    "offload keep": ("#7b2cbf", "P"),
    "offload 64": ("#e08a00", "^"),
    "True": ("#5fa8d3", "X"),
    "by hand, keep": ("#222222", "o"),
    "by hand, every step": ("#c1121f", "s"),
    "by hand, chunks": ("#1b6ca8", "D"),
}
OTHER = ("#777777", ".")


@dataclasses.dataclass(frozen=True)
class Panel:
    """Cases from top to bottom, and a point for each peer in each of them.

    Attributes:
        title: What it shows.
        cases: The labels of the vertical axis.
        points: By peer, in the order of the legend; None where it did not run.
        limits: By label, a color and a vertical mark for each case, or None.
        of_ratios: Whether the values are ratios, with a line at 1.
    """

    title: str
    cases: Sequence[str]
    points: Mapping[str, Sequence[Spread | None]]
    limits: Mapping[str, tuple[str, Sequence[float | None]]] = dataclasses.field(
        default_factory=dict
    )
    of_ratios: bool = False


def draw_panels(
    file: Path, lines: Sequence[Sequence[Panel]], label: str, title: str = ""
) -> None:
    """Draws panels on logarithmic axes, those of a line side by side.

    Those of a column share their horizontal axis, whose label is `label`; `title` is
    that of the legend.
    """
    columns = max(map(len, lines))
    heights = [1 + max(len(panel.cases) for panel in line) for line in lines]
    size = (4 + 7 * columns, 2 + 0.42 * sum(heights))
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    grid = figure.subplots(
        len(lines), columns, sharex="col", squeeze=False, height_ratios=heights
    )
    for places, line in zip(grid, lines, strict=True):
        for axes, panel in zip(places, line, strict=False):
            _draw_panel(axes, panel)
        for axes in places[len(line) :]:
            axes.remove()
    figure.supxlabel(label, fontsize=10)
    add_legend(figure, title)
    figure.savefig(file)


def _draw_panel(axes: Axes, panel: Panel) -> None:
    for name, spreads in panel.points.items():
        _draw_points(axes, name, spreads)
    for name, (color, values) in panel.limits.items():
        known = [(x, y) for y, x in enumerate(values) if x is not None]
        if known:
            x, y = zip(*known, strict=True)
            low, high = [at - 0.35 for at in y], [at + 0.35 for at in y]
            axes.vlines(x, low, high, color, linewidth=1.5, label=name)
    axes.set_yticks(range(len(panel.cases)), panel.cases)
    axes.set_ylim(len(panel.cases) - 0.5, -0.5)
    axes.set_title(panel.title, loc="left", fontsize=10)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    if panel.of_ratios:
        axes.axvline(1, color="black", linewidth=1)
        axes.xaxis.set_major_locator(LogLocator(base=2))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(labelbottom=True)
    axes.grid(axis="both", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def _draw_points(axes: Axes, name: str, spreads: Sequence[Spread | None]) -> None:
    """A peer's medians and quartiles."""
    color, marker = STYLES.get(name, OTHER)
    points = [(y, spread) for y, spread in enumerate(spreads) if spread]
    if not points:
        return
    low = [spread.median - spread.low for _, spread in points]
    high = [spread.high - spread.median for _, spread in points]
    axes.errorbar(
        [spread.median for _, spread in points],
        [y for y, _ in points],
        xerr=[low, high],
        fmt=marker,
        color=color,
        markerfacecolor="white" if name.startswith("by hand") else color,
        label=name,
        markersize=7,
        alpha=0.85,
        linewidth=1,
    )


def add_legend(figure: Figure, title: str = "") -> None:
    """Each label of any panel once, above the panels."""
    found = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    order = [*STYLES]
    names = sorted(found, key=lambda n: order.index(n) if n in STYLES else len(order))
    legend = figure.legend(
        [found[name] for name in names],
        names,
        title=title,
        loc="outside upper center",
        ncols=int(figure.get_figwidth() / 1.8),
        frameon=False,
    )
    legend.get_title().set_multialignment("center")
