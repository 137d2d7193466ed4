"""The figure of the long-memory example: memory over length, and the loss."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from long_memory_data import CONSTANT_GUESS
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

COLOURS = {"keep": "tab:red", "recompute": "tab:blue", "nested": "tab:green"}
Memory = tuple[Sequence[int], Mapping[str, Sequence[int]]]
"""Numbers of steps, and the bytes for each of them by the name of a strategy."""


def size(count: float) -> str:
    """Bytes to three digits, in the unit that fits: "1.44 GB", "25 MB"."""
    rounded = float(f"{count:.3g}")
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if rounded >= one:
            return f"{rounded / one:g} {unit}"
    return f"{rounded:g} B"


def draw(
    path: Path, steps: int, memory: Memory, losses: np.ndarray, averaged: int
) -> None:
    """Saves the memory beside the losses."""
    figure = Figure(figsize=(11, 4.4), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_memory(left, *memory)
    draw_losses(right, steps, losses, averaged)
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def draw_memory(axes: Axes, lengths: Sequence[int], needed: Mapping) -> None:
    """A line for each strategy, named at its end."""
    axes.set(xscale="log", yscale="log", xlabel="steps of a sequence")
    axes.set_title("Temporary memory of a training step,\nas compiled, by strategy")
    for name, line in needed.items():
        colour = COLOURS[name]
        axes.plot(lengths, line, color=colour, marker="o", markersize=3.5)
        axes.annotate(
            f"{name}: {size(line[-1])}",
            (lengths[-1], line[-1]),
            xytext=(5, 0),
            textcoords="offset points",
            color=colour,
            va="center",
        )
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: size(y)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_locator(NullLocator())


def draw_losses(axes: Axes, steps: int, losses: np.ndarray, averaged: int) -> None:
    """The loss of each update, their running mean, and the line of a constant guess."""
    updates = np.arange(1, len(losses) + 1)
    axes.plot(updates, losses, color="tab:blue", alpha=0.3, linewidth=0.8)
    window = min(averaged, len(losses))
    mean = np.convolve(losses, np.full(window, 1 / window), mode="valid")
    axes.plot(updates[window // 2 :][: len(mean)], mean, color="tab:blue")
    axes.axhline(CONSTANT_GUESS, color="0.3", linestyle="--", linewidth=1)
    axes.annotate(
        "always saying 1: 1/6",
        (len(losses), CONSTANT_GUESS),
        xytext=(0, 4),
        textcoords="offset points",
        ha="right",
        color="0.3",
    )
    axes.set(yscale="log", xlabel="update")
    axes.set_title(
        f"Adding two numbers out of {steps:,}:\nmean squared error of each update"
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
