"""The steps that run the cell, the zero outputs and the source of the final state."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

HALF = 0.22  # Half the width of a box; steps are 1 apart.
DOWN = 1.12  # From row to row.


def draw() -> Figure:
    """Four rows of an unrolled loop."""
    return draw_rows(5, [(f"length {length}", length, None) for length in (5, 3, 2, 0)])


def draw_rows(time: int, rows: list[tuple[str, int, int | None]]) -> Figure:
    """Rows `(label, length, step of a reset or None)`, from the first to the last."""
    left, right, top, bottom = -1.95, time - 0.1, 1.15, -DOWN * len(rows) + 0.5
    size = 0.95 * (right - left), 0.95 * (top - bottom)
    figure, axes = plt.subplots(figsize=size)
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    axes.set_axis_off()
    states = -0.75, time - 0.25  # The x coordinates of the initial and final states.
    for x, text in zip(states, ("initial\nstate", "final\nstate"), strict=True):
        axes.text(x, 0.65, text, ha="center", va="bottom", color="C1")
    for t in range(time):
        axes.text(t, 0.65, f"step {t}", ha="center", va="bottom")
    for row, (label, length, reset) in enumerate(rows):
        axes.text(left, -DOWN * row, label, va="center")
        draw_steps(axes, -DOWN * row, time, length)
        draw_state(axes, -DOWN * row, *states, reset)
    return figure


def draw_steps(axes: plt.Axes, y: float, time: int, length: int) -> None:
    """A box per cell, inputs below and outputs above."""
    ink = plt.rcParams["text.color"]
    for t in range(time):
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
        axes.text(t, y + HALF + 0.06, output, va="bottom", **style)
        axes.text(t, y - HALF - 0.06, read, va="top", **style)


def draw_state(
    axes: plt.Axes, y: float, initial: float, final: float, reset: int | None
) -> None:
    """A line from the initial to the final state; zeros begin a new one at a reset."""
    lines = [(initial, final)]
    if reset is not None:
        fresh = reset - HALF - 0.16
        lines = [(initial, reset - 1 + HALF + 0.08), (fresh, final)]
        axes.text(fresh, y + 0.1, "0", ha="center", va="bottom", color="C1")
    for start, end in lines:
        axes.plot((start, end), (y, y), color="C1", linewidth=2, zorder=1)
        axes.plot(start, y, "o", color="C1", markersize=9)
    axes.plot(final, y, "o", color="C1", markersize=9)
