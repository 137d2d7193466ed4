"""A padded batch, and the same sequences packed into rows."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import jaxrnn

LENGTHS = np.array([30, 2, 11, 5, 9, 3, 17, 8])
TIME = 30


def draw() -> Figure:
    """The padded batch above the packed one, with a color for each sequence."""
    padded = np.zeros((len(LENGTHS), TIME, 1), np.float32)
    packed = jaxrnn.pack_sequences(padded, LENGTHS)
    rows = len(packed.lengths)
    starts = np.nonzero(packed.resets)
    order = np.argsort(packed.segment_ids[starts])
    row, offset = (index[order] for index in starts)
    heights = {"height_ratios": [len(LENGTHS), rows], "hspace": 0.45}
    figure, (above, below) = plt.subplots(2, figsize=(8, 5), gridspec_kw=heights)
    numbers = range(len(LENGTHS))
    draw_rows(above, numbers, [0] * len(LENGTHS), len(LENGTHS))
    draw_rows(below, row, offset, rows)
    runs, data = len(LENGTHS) * TIME, LENGTHS.sum()
    above.set_title(f"padded: {runs} cell steps, {data} of them on data")
    below.set_title(f"packed: {rows * TIME} cell steps")
    below.set_xlabel("step")
    return figure


def draw_rows(axes: Axes, row: np.ndarray, offset: np.ndarray, rows: int) -> None:
    """A bar for each sequence `i` in `row[i]`, from step `offset[i]`."""
    ink, paper = plt.rcParams["text.color"], plt.rcParams["figure.facecolor"]
    empty = {"facecolor": "none", "edgecolor": ink, "alpha": 0.5, "hatch": "////"}
    axes.barh(range(rows), TIME, height=0.8, linewidth=0, **empty)
    for i, (r, start, length) in enumerate(zip(row, offset, LENGTHS, strict=True)):
        bar = {"color": f"C{i}", "edgecolor": paper, "linewidth": 1.5}
        axes.barh(r, length, left=start, height=0.8, **bar)
        middle = start + length / 2
        axes.text(middle, r, str(i), ha="center", va="center_baseline", color=paper)
    axes.set(xlim=(0, TIME), ylim=(rows - 0.4, -0.6), yticks=range(rows))
    axes.set_ylabel("row")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
