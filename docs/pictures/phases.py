"""Rows sorted by length; those that are finished drop out phase by phase."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

LENGTHS = np.array([9, 3, 14, 6, 40, 11, 22, 7, 18, 5, 31, 12, 4, 26, 8, 16])
ROWS = len(LENGTHS)
SIZES = [ROWS * eighths // 8 for eighths in (8, 6, 4, 2, 1)]


def draw() -> Figure:
    """Left the batch as it is given, right the phases of the sorted batch."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 4.2), sharey=True)
    draw_lengths(left, LENGTHS, "C0")
    longest = LENGTHS.max()
    box(left, 0, longest, ROWS)
    left.set_title(f"one loop: {ROWS * longest} runs of the cell")

    by_length = np.sort(LENGTHS)[::-1]
    draw_lengths(right, by_length, "C0")
    # A phase ends when the longest row that the next one leaves out is finished.
    ends = [*by_length[SIZES[1:]], longest]
    starts = [0, *ends[:-1]]
    for k, (start, end, rows) in enumerate(zip(starts, ends, SIZES, strict=True)):
        box(right, start, end, rows)
        where = ((start + end) / 2, rows + 0.15)
        right.annotate(f"{k + 1}", where, ha="center", va="top", color="C1")
    runs = np.dot(np.subtract(ends, starts), SIZES)
    right.set_title(f"5 phases: {runs} runs of the cell")
    left.set_ylabel("row")
    return figure


def draw_lengths(axes: Axes, lengths: np.ndarray, color: str) -> None:
    """A bar for the steps of each row."""
    axes.barh(np.arange(ROWS) + 0.5, lengths, height=0.7, color=color)
    axes.set(xlim=(0, 41), ylim=(ROWS + 1.2, -0.4), yticks=[], xlabel="step")
    axes.spines[:].set_visible(False)


def box(axes: Axes, start: int, end: int, rows: int) -> None:
    """What a loop over these steps and the first rows runs."""
    edge = Rectangle((start, 0), end - start, rows, facecolor="none", edgecolor="C1")
    edge.set(linewidth=2, clip_on=False)
    axes.add_patch(edge)
