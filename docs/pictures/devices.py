"""Three ways to divide a run among devices: by rows, by time and by layers."""

from boxes import draw_arrow, make_figure
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

COUNT = 4  # Devices.
SIZE = 3.6  # The side of a panel.
LEFT = (0.6, 5.3, 10.0)  # Of the panels.
BOTTOM = 1.5
PART = SIZE / COUNT


def draw() -> Figure:
    """A panel for each way; each color is a device."""
    figure, axes = make_figure(13.9, 6.3, scale=0.68)
    draw_panel(axes, 0, "rows", "rows", "gradients,\nonce per training step")
    draw_panel(axes, 1, "time", "rows", "maps of states,\nonce per training step")
    draw_panel(
        axes, 2, "layers", "layers", "outputs of a chunk of steps,\nonce per chunk"
    )
    return figure


def draw_panel(axes: Axes, panel: int, divided: str, vertical: str, sent: str) -> None:
    """A square that is divided among the devices, and what they exchange."""
    left, top = LEFT[panel], BOTTOM + SIZE
    middle = left + SIZE / 2
    axes.text(middle, top + 0.55, f"divided: {divided}", ha="center", weight="bold")
    axes.text(
        left - 0.2, top - SIZE / 2, vertical, rotation=90, ha="right", va="center"
    )
    axes.text(middle, BOTTOM - 0.2, "time", ha="center", va="top")
    axes.text(
        middle, BOTTOM - 0.7, sent, ha="center", va="top", fontsize=10, color="C3"
    )
    for device in range(COUNT):
        x, y = left, top - (device + 1) * PART
        width, height = SIZE, PART
        if divided == "time":
            x, y, width, height = left + device * PART, BOTTOM, PART, SIZE
        part = Rectangle((x, y), width, height, facecolor=f"C{device}", alpha=0.25)
        axes.add_patch(part)
        axes.add_patch(Rectangle((x, y), width, height, fill=False))
        turned = 90 if divided == "time" else 0
        style = {"ha": "center", "va": "center", "rotation": turned, "fontsize": 11}
        axes.text(x + width / 2, y + height / 2, f"device {device}", **style)
        if device == COUNT - 1:
            continue
        if divided == "time":
            draw_arrow(
                axes,
                (x + PART - 0.3, top + 0.25),
                (x + PART + 0.3, top + 0.25),
                color="C3",
            )
        else:
            style = {"color": "C3", "arrowstyle": "<->" if divided == "rows" else "->"}
            at = left + SIZE + 0.25
            draw_arrow(axes, (at, y + 0.3), (at, y - 0.3), **style)
