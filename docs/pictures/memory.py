"""The values that each memory strategy saves and recomputes over 16 steps."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from jaxrnn.memory import Keep, Offload, Recompute, Strategy

TIME = 16
STRATEGIES = (
    Keep(),
    Recompute(1),
    Recompute(),
    Offload(Keep(), part=4),
    Offload(),
)
DEVICE, HOST = "C0", "C1"


def draw() -> Figure:
    """A line of steps for each strategy, at the start of the backward pass."""
    figure, axes = plt.subplots(figsize=(8, 4.8))
    for y, strategy in enumerate(STRATEGIES):
        axes.text(-0.7, y, repr(strategy), ha="right", va="center", family="monospace")
        draw_strategy(axes, y, strategy)
    axes.set(xlim=(-7.8, TIME + 0.3), ylim=(len(STRATEGIES) + 1.4, -1))
    axes.set_axis_off()
    for t in range(0, TIME, 5):
        axes.text(t + 0.5, -0.75, f"step {t}", ha="center")
    axes.legend(handles=legend(), loc="lower center", ncols=2, frameon=False)
    return figure


def draw_strategy(axes: Axes, y: float, strategy: Strategy) -> None:
    """Circles for the states before the steps, and squares for the residuals."""
    plan = strategy.plan(TIME)
    color = HOST if plan.on_host else DEVICE
    saves_all = plan.save_residuals or plan.part is None
    saved = {"facecolor": color if saves_all else "none", "edgecolor": "none"}
    start, size = TIME, plan.part
    if size is not None:
        start = TIME - size
        frame = (start - 0.22, y - 0.4), size + 0.3, 0.8
        axes.add_patch(Rectangle(*frame, fill=False, edgecolor="C2", linewidth=2))
        axes.plot(range(0, TIME, size), [y] * (TIME // size), "o", **dot(color))
    for t in range(TIME):
        box = (t + 0.25, y - 0.2), 0.5, 0.4
        style = saved if saves_all or t < start else outlined()
        axes.add_patch(Rectangle(*box, **style))
    ink = plt.rcParams["text.color"]
    axes.plot((0, TIME), (y, y), color=ink, alpha=0.3, zorder=0)


def dot(color: str) -> dict:
    """The style of a state."""
    return {"color": color, "markersize": 6.5, "markeredgewidth": 1.5}


def outlined() -> dict:
    """The style of residuals that are recomputed."""
    return {"facecolor": "none", "edgecolor": DEVICE, "linewidth": 1.5}


def legend() -> list[Line2D]:
    """The legend's entries."""
    marks = {
        "state, saved": ("o", DEVICE, True),
        "residuals of a step, saved": ("s", DEVICE, True),
        "saved in host memory": ("s", HOST, True),
        "residuals of a step, recomputed": ("s", DEVICE, False),
    }
    lines = [
        Line2D([], [], marker=marker, color=color, linestyle="", label=label)
        for label, (marker, color, _) in marks.items()
    ]
    for line, (_, _, filled) in zip(lines, marks.values(), strict=True):
        line.set_markerfacecolor(line.get_color() if filled else "none")
    frame = {"color": "C2", "linewidth": 2, "label": "current part in backward pass"}
    return [*lines, Line2D([], [], **frame)]
