"""The time to trace, lower and compile a training step on two cores."""

import json
import pathlib

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

RESULTS = pathlib.Path(__file__).parents[2] / "benchmarks/results/compilation_full.json"
PEERS = {"jaxrnn": "jaxrnn", "linen": "Flax linen", "nnx": "Flax nnx"}
CASES = {
    "lstm B16 T50 D32 H64 dense": "LSTM, 64 units",
    "lstm B16 T50 D32 H64 uniform": "LSTM, 64 units,\nwith lengths",
    "gru_after B16 T50 D32 H64 dense": "GRU, 64 units",
    "lstm2 B16 T50 D32 H64 dense": "two LSTM layers",
    "lstm B64 T200 D128 H256 dense": "LSTM, 256 units,\n64 rows",
}
PARTS = ("trace_s", "lower_s", "compile_s")
MEDIAN = 2  # Its place between the least value, the quartiles and the largest.
WIDTH = 0.27  # The width of a bar.


def draw() -> Figure:
    """A group of bars for each case; a bar changes color where compilation starts."""
    rows = {row["name"]: row for row in json.loads(RESULTS.read_text())["cases"]}
    figure, axes = plt.subplots(figsize=(8, 4.8))
    for y, case in enumerate(CASES):
        draw_case(axes, y, rows[f"{case} train"]["peers"])
    axes.set_yticks(range(len(CASES)), list(CASES.values()))
    axes.set_ylim(len(CASES) - 0.4, -0.6)
    axes.set_xlabel("seconds: trace and lower (pale), then compile")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.legend(loc="lower right", frameon=False)
    return figure


def draw_case(axes: Axes, y: int, peers: dict) -> None:
    """A bar for each peer."""
    for i, (peer, label) in enumerate(PEERS.items()):
        trace, lower, compile_ = (
            peers[peer]["numbers"][part][MEDIAN] for part in PARTS
        )
        place, height = y + (i - 1) * WIDTH, WIDTH * 0.9
        axes.barh(place, trace + lower, height, color=f"C{i}", alpha=0.5)
        axes.barh(
            place,
            compile_,
            height,
            left=trace + lower,
            color=f"C{i}",
            label=label if y == 0 else None,
        )
