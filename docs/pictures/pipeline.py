"""The schedule of a pipeline: the chunk of each stage at each tick, and idle ticks."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

STAGES, CHUNKS = 4, 8
TICKS = CHUNKS + STAGES - 1
HALF = 0.36  # Half the width of a box.


def draw() -> Figure:
    """A row for each stage and a column for each tick."""
    figure, axes = plt.subplots(figsize=(8.4, 3.6))
    for stage in range(STAGES):
        text = f"stage {stage}"
        axes.text(-0.65, -stage, text, ha="right", va="center")
        for tick in range(TICKS):
            draw_tick(axes, stage, tick)
    for tick in range(TICKS):
        axes.text(tick, 0.6, f"{tick}", ha="center", va="bottom")
    axes.text(-0.65, 0.6, "tick", ha="right", va="bottom")
    axes.set(xlim=(-1.9, TICKS - 0.5), ylim=(0.6 - STAGES, 1.1), aspect="equal")
    axes.set_axis_off()
    return figure


def draw_tick(axes: Axes, stage: int, tick: int) -> None:
    """A box with the number of its chunk, or an empty one, and an arrow if it sends."""
    chunk = tick - stage
    is_active = 0 <= chunk < CHUNKS
    ink, paper = plt.rcParams["text.color"], plt.rcParams["figure.facecolor"]
    box = Rectangle((tick - HALF, -stage - HALF), 2 * HALF, 2 * HALF)
    if not is_active:
        box.set(facecolor="none", edgecolor=ink, linestyle=":")
        axes.add_patch(box)
        return
    box.set(facecolor="C0", edgecolor="C0")
    axes.add_patch(box)
    style = {"ha": "center", "va": "center", "color": paper}
    axes.text(tick, -stage, f"{chunk}", **style)
    if stage < STAGES - 1:
        start, end = (tick + HALF, -stage - HALF), (tick + 1 - HALF, -stage - 1 + HALF)
        arrow = {"arrowstyle": "->", "color": "C1", "linewidth": 1.5}
        arrow |= {"shrinkA": 0, "shrinkB": 0}
        axes.annotate("", end, start, arrowprops=arrow)
