"""The parts that a run goes through, and what is beneath the loop."""

import itertools

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

ABOVE = (
    # x, width, title, text, color
    (0.0, 1.9, "inputs", "lengths\ninitial state", None),
    (2.5, 2.2, "driver", "dynamic_rnn,\nraw_rnn, …:\nchecks, loop", "C0"),
    (5.3, 2.3, "mask", "which rows are\nalive at step t", "C1"),
    (8.2, 2.2, "cell", "one step of\nall rows", "C2"),
    (11.0, 1.9, "outputs", "final state", None),
)
BELOW = (
    (0.0, 4.0, "fast path", "all steps of an\naffine cell at once;\nelse a scan", "C2"),
    (4.45, 4.0, "memory strategy", "what is saved for\nthe backward pass", "C3"),
    (8.9, 4.0, "kernels", "the loop of one\nkind of machine;\nonly if named", "C4"),
)
LOOP = "the loop over time"


def draw() -> Figure:
    """The parts in a line, with arrows; beneath them what runs the loop."""
    figure, axes = plt.subplots(figsize=(9, 4.6))
    for left, right in itertools.pairwise(ABOVE):
        draw_arrow(axes, (left[0] + left[1], 4.1), (right[0], 4.1))
    draw_feedback(axes)
    for x, *part in ABOVE:
        draw_box(axes, x, 3.3, 1.6, *part)
    for x, *part in BELOW:
        draw_box(axes, x, 0, 1.6, *part)
        draw_arrow(axes, (x + part[0] / 2, 2.15), (x + part[0] / 2, 1.65))
    axes.plot((0, 12.9), (2.2, 2.2), color=plt.rcParams["text.color"], linewidth=1)
    axes.text(0, 2.3, f"{LOOP} is run by", va="bottom")
    axes.set(xlim=(-0.1, 13), ylim=(-0.1, 6.3))
    axes.set_axis_off()
    return figure


def draw_box(
    axes: Axes,
    x: float,
    y: float,
    height: float,
    width: float,
    title: str,
    text: str,
    color: str | None,
) -> None:
    """A box with a title; without a color only its outline."""
    ink = plt.rcParams["text.color"]
    box = FancyBboxPatch(
        (x, y), width, height, boxstyle="round,pad=0,rounding_size=0.15"
    )
    box.set(facecolor="none", edgecolor=color or ink, linewidth=2 if color else 1)
    axes.add_patch(box)
    middle, top = x + width / 2, y + height - 0.14
    axes.text(middle, top, title, ha="center", va="top", weight="bold", fontsize=11)
    axes.text(middle, top - 0.42, text, ha="center", va="top", fontsize=10)


def draw_arrow(axes: Axes, start: tuple, end: tuple, **style: str) -> None:
    """An arrow from one point to another."""
    arrow = {"arrowstyle": "->", "color": plt.rcParams["text.color"], **style}
    axes.annotate("", end, start, arrowprops=arrow)


def draw_feedback(axes: Axes) -> None:
    """The state, which the next step reads."""
    style = {"connectionstyle": "arc3,rad=0.25"}
    draw_arrow(axes, (9.3, 4.95), (3.6, 4.95), **style)
    axes.text(6.45, 6.1, "state of the next step", ha="center", va="center")
