"""The figure of the Japanese Vowels example."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator


def draw_confusion(axes: Axes, labels: np.ndarray, guesses: np.ndarray) -> None:
    """How often each speaker, a row, was taken for each, a column."""
    speakers = labels.max() + 1
    counts = np.zeros((speakers, speakers), int)
    np.add.at(counts, (np.broadcast_to(labels, guesses.shape), guesses), 1)
    shares = counts / counts.sum(axis=1, keepdims=True)
    # The square root lets single mistakes show beside hundreds of hits.
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.4 else "black"
        if count:
            axes.text(column, row, count, ha="center", va="center", color=colour)
    ticks = range(speakers)
    axes.set_xticks(ticks, [f"{i + 1}" for i in ticks])
    axes.set_yticks(ticks, [f"{i + 1}" for i in ticks])
    axes.set(xlabel="recognised speaker", ylabel="true speaker")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def draw_history(axes: Axes, series: np.ndarray, name: str, colour: str) -> None:
    """The mean over nets `[epochs, members]`, in a band from the least to the most."""
    epochs = np.arange(1, len(series) + 1)
    short = len(series) <= 10
    band = series.min(axis=1), series.max(axis=1)
    axes.fill_between(epochs, *band, color=colour, alpha=0.25, linewidth=0)
    axes.plot(epochs, series.mean(axis=1), color=colour, marker="o" if short else None)
    if short:
        axes.set_xlim(0.5, len(series) + 0.5)
        axes.set_xticks(epochs)
    else:  # Most happens in the first epochs.
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylabel(name)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def draw(
    path: Path,
    labels: np.ndarray,
    guesses: np.ndarray,
    history: tuple[np.ndarray, np.ndarray],
) -> None:
    """Saves the confusion matrix beside the learning curves."""
    losses, accuracies = history
    figure = Figure(figsize=(11, 5), dpi=150, layout="constrained")
    parts = figure.subplot_mosaic(
        [["confusion", "loss"], ["confusion", "accuracy"]], width_ratios=[1.1, 1]
    )
    members, utterances = guesses.shape
    one = members == 1
    nets = "1 net" if one else f"{members} nets"
    shown = "counts" if one else f"counts summed over {nets}"
    mean = 100 * np.mean(guesses == labels)
    draw_confusion(parts["confusion"], labels, guesses)
    parts["confusion"].set_title(
        f"{utterances} test utterances by {nets}: {mean:.2f} % right\n"
        f"{shown}, colours normalised by row"
    )
    draw_history(parts["loss"], losses, "loss, smoothed labels", "tab:blue")
    draw_history(parts["accuracy"], 100 * accuracies, "accuracy, %", "tab:green")
    parts["loss"].set_title(
        "Training" if one else f"Training, mean and range of {nets}"
    )
    parts["accuracy"].set_xlabel("epoch")
    figure.savefig(path)
