"""The figure of the attention example."""

import numpy as np
from attention_data import Dates, to_text
from matplotlib.axes import Axes
from matplotlib.figure import Figure

PADDING = "#d8d4cc"
NOTE = (
    "Read from left to right, written downwards. Each row: where the net looks as it "
    "writes that character. Grey: padding, weight 0."
)


def draw(file: str, dates: Dates, written: np.ndarray, weights: np.ndarray) -> None:
    """A panel for each date: what is read from left to right, what is written down."""
    figure = Figure(figsize=(11, 5), dpi=130, layout="constrained")
    figure.suptitle(NOTE, fontsize=10.5)
    panels = zip(
        figure.subplots(2, 2).flat, dates.written, written, weights, strict=True
    )
    for axes, row, ids, shares in panels:
        show(axes, to_text(row), to_text(ids), shares)
    image = figure.axes[0].images[0]  # All panels share a scale.
    figure.colorbar(image, ax=figure.axes, aspect=40, fraction=0.02, pad=0.01)
    figure.savefig(file)


def show(axes: Axes, text: str, answer: str, weights: np.ndarray) -> None:
    """The weights `[written, read]` between the characters of the two."""
    axes.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    ends = np.array([len(text), weights.shape[1]]) - 0.5
    axes.axvspan(*ends, color=PADDING, zorder=2)
    for axis, characters in ((axes.xaxis, text), (axes.yaxis, answer)):
        places = np.arange(len(characters))
        axis.set_ticks(places, list(characters), family="monospace", fontsize=11)
        axis.set_ticks(places - 0.5, minor=True)
    axes.grid(which="minor", color="0.9", linewidth=0.6)
    axes.tick_params(which="both", length=0, labeltop=True, labelbottom=False)
