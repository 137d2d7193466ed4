"""The parts of a run, and the ways to run the loop."""

import matplotlib.pyplot as plt
from boxes import draw_arrow, draw_box
from matplotlib.axes import Axes
from matplotlib.figure import Figure

SAVED = "what is saved for the backward pass, part by part"
# x, y, width, height, title, text, color
PARTS = (
    (0.0, 4.2, 2.0, 1.9, "inputs", "lengths\ninitial state", None),
    (2.6, 4.2, 2.2, 1.9, "driver", "dynamic_rnn,\nraw_rnn, …:\nchecks, loop", "C0"),
    (5.4, 3.8, 5.3, 2.7, "mask", "at masked steps", "C1"),
    (6.95, 4.0, 2.2, 1.4, "cell", "one step of\nall rows", "C2"),
    (11.3, 4.2, 1.8, 1.9, "outputs", "final state", None),
    (0.0, 0.0, 13.1, 2.6, "memory strategy", SAVED, "C3"),
    (0.3, 0.25, 4.0, 1.2, "faster loops", "affine, linear and matrix", "C4"),
    (4.55, 0.25, 4.0, 1.2, "scan", "all other cells", "C4"),
    (8.8, 0.25, 4.0, 1.2, "library", "native loops in C++", "C4"),
)
LEVEL = 4.75  # The y coordinate of the arrows.
ARROWS = ((2.0, 2.6), (4.8, 5.4), (10.7, 11.3))
BESIDE_CELL = (
    (6.17, "dummy\ninputs"),
    (9.93, "results\ndiscarded"),
)


def draw() -> Figure:
    """The parts from left to right, with the ways to run the loop below them."""
    figure, axes = plt.subplots(figsize=(9, 5.3))
    for part in PARTS:
        draw_box(axes, *part)
    for start, end in ARROWS:
        draw_arrow(axes, (start, LEVEL), (end, LEVEL))
    for x, text in BESIDE_CELL:
        axes.text(x, LEVEL, text, ha="center", va="center", fontsize=9)
    draw_feedback(axes)
    axes.text(0, 2.75, "How the loop is run", va="bottom", weight="bold")
    axes.set(xlim=(-0.1, 13.2), ylim=(-0.1, 7.8))
    axes.set_axis_off()
    return figure


def draw_feedback(axes: Axes) -> None:
    """The arrow of the state, from the cell back to the driver."""
    style = {"connectionstyle": "arc3,rad=0.22"}
    draw_arrow(axes, (9.6, 6.6), (3.7, 6.15), **style)
    axes.text(6.6, 7.5, "state of the next step", ha="center", va="center")
