"""The steps that run the cell, the zero outputs and the source of the final state."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

LENGTHS = (5, 3, 2, 0)
TIME = 5
HALF = 0.27  # Half the width of a box.
STATES = (-0.95, TIME - 0.05)  # The x coordinates of the initial and the final states.


def draw() -> Figure:
    """Four rows of an unrolled loop."""
    figure, axes = plt.subplots(figsize=(8.2, 5.6))
    for row, length in enumerate(LENGTHS):
        draw_row(axes, -1.5 * row, length)
    for t in range(TIME):
        axes.text(t, 0.85, f"step {t}", ha="center", va="bottom")
    for x, text in zip(STATES, ("initial\nstate", "final\nstate"), strict=True):
        axes.text(x, 0.85, text, ha="center", va="bottom", color="C1")
    axes.set(xlim=(-2.5, TIME + 0.4), ylim=(-5.35, 1.5), aspect="equal")
    axes.set_axis_off()
    return figure


def draw_row(axes: plt.Axes, y: float, length: int) -> None:
    """One row: a line of states, a box per cell, inputs below and outputs above."""
    ink = plt.rcParams["text.color"]
    axes.text(-2.4, y, f"length {length}", va="center")
    axes.plot(STATES, (y, y), color="C1", linewidth=2, zorder=1)
    for x in STATES:
        axes.plot(x, y, "o", color="C1", markersize=9)
    for t in range(TIME):
        alive = t < length
        color, line = ("C0", "-") if alive else (ink, ":")
        box = Rectangle((t - HALF, y - HALF), 2 * HALF, 2 * HALF, zorder=2)
        box.set(facecolor="C0" if alive else "none", edgecolor=color, linestyle=line)
        axes.add_patch(box)
        if alive:
            paper = plt.rcParams["figure.facecolor"]
            axes.text(t, y, "cell", ha="center", va="center", color=paper, zorder=3)
        output, read = (f"$y_{t}$", f"$x_{t}$") if alive else ("0", "NaN")
        style = {"ha": "center", "color": ink, "alpha": 1 if alive else 0.65}
        axes.text(t, y + HALF + 0.08, output, va="bottom", **style)
        axes.text(t, y - HALF - 0.08, read, va="top", **style)
