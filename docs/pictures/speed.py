"""LSTM training times of other libraries, relative to jaxrnn's, on two cores."""

import pathlib
import sys

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from benchmarks import claims

# The labels of the cases.
CASES = {
    "lstm B48 T80 D192 H320 dense": "48 rows, 80 steps,\n320 units",
    "lstm B16 T120 D96 H160 dense": "16 rows, 120 steps,\n160 units",
    "lstm B96 T50 D100 H150 dense": "96 rows, 50 steps,\n150 units",
    "lstm2 B32 T100 D128 H128 dense": "two layers, 32 rows,\n100 steps, 128 units",
    "lstm B50 T120 D100 H200 uniform": "50 rows of 1 to 120\nsteps, 200 units",
}
LIBRARIES = ("Flax", "Keras (JAX)", "TensorFlow", "PyTorch")
TICKS = (0.8, 1, 1.5, 2, 3, 5, 8)
WIDTH = 0.2  # The width of a bar.


def draw() -> Figure:
    """A group of bars for each case; a bar extends from 1 to the ratio."""
    rows = {one.row["name"]: one for one in claims.measured() if one.preset == "page"}
    figure, axes = plt.subplots(figsize=(8, 4.6))
    for y, case in enumerate(CASES):
        draw_case(axes, y, rows[f"{case} train"])
    axes.axvline(1, color=plt.rcParams["text.color"], linewidth=1)
    axes.set_xscale("log")
    axes.set_xlim(0.75, 8.5)
    axes.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    axes.set_xticks([], minor=True)
    axes.set_yticks(range(len(CASES)), list(CASES.values()))
    axes.set_ylim(len(CASES) - 0.45, -0.85)
    axes.set_xlabel(
        "training time divided by jaxrnn's training time, logarithmic scale\n"
        "bar: median of the rounds; line: quartiles"
    )
    axes.text(0.97, -0.6, "faster than jaxrnn", ha="right")
    axes.text(1.03, -0.6, "slower than jaxrnn")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.legend(loc="upper right", frameon=False)
    return figure


def draw_case(axes: Axes, y: int, case: claims.Measured) -> None:
    """A bar for each library, with the quartiles of the rounds."""
    for i, label in enumerate(LIBRARIES):
        place = y + (i - (len(LIBRARIES) - 1) / 2) * WIDTH
        _, low, ratio, high, _ = case.spread(label)
        axes.barh(
            place,
            ratio - 1,
            WIDTH * 0.9,
            left=1,
            color=f"C{i}",
            label=label if y == 0 else None,
            xerr=[[ratio - low], [high - ratio]],
            error_kw={"ecolor": plt.rcParams["text.color"], "elinewidth": 1},
        )
