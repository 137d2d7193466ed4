"""Boxes and arrows for the pictures in this folder."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch


def draw_box(
    axes: Axes,
    x: float,
    y: float,
    width: float,
    height: float,
    title: str,
    text: str = "",
    color: str | None = None,
) -> None:
    """A box with a title, centered if there is no text; thin if it has no color."""
    ink = plt.rcParams["text.color"]
    box = FancyBboxPatch(
        (x, y), width, height, boxstyle="round,pad=0,rounding_size=0.15"
    )
    box.set(facecolor="none", edgecolor=color or ink, linewidth=2 if color else 1)
    axes.add_patch(box)
    middle, top = x + width / 2, y + height - 0.14
    style = {"ha": "center", "weight": "bold", "fontsize": 11}
    if not text:
        axes.text(middle, y + height / 2, title, va="center", **style)
        return
    axes.text(middle, top, title, va="top", **style)
    axes.text(middle, top - 0.5, text, ha="center", va="top", fontsize=10)


def draw_arrow(axes: Axes, start: tuple, end: tuple, **style: str) -> None:
    """An arrow from one point to another."""
    arrow = {"arrowstyle": "->", "color": plt.rcParams["text.color"], **style}
    axes.annotate("", end, start, arrowprops=arrow)


def make_figure(
    width: float, height: float, scale: float = 0.72
) -> tuple[Figure, Axes]:
    """A figure of `width` by `height` units without axes."""
    figure, axes = plt.subplots(figsize=(scale * width, scale * height))
    axes.set(xlim=(-0.1, width + 0.1), ylim=(-0.1, height + 0.1), aspect="equal")
    axes.set_axis_off()
    return figure, axes
