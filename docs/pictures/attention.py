"""One step of a cell with attention to a memory."""

from boxes import draw_arrow, draw_box, make_figure
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

WEIGHTS = (0.05, 0.1, 0.45, 0.3, 0.1, 0, 0)  # The last two entries are padding.


def draw() -> Figure:
    """The memory with a weight for each entry, above the cell."""
    figure, axes = make_figure(12.5, 6.6)
    axes.text(0, 5.95, "memory", weight="bold", va="center")
    axes.text(0, 4.2, "alignments", weight="bold", va="center")
    for t, weight in enumerate(WEIGHTS):
        x, is_padding = 2.2 + 1.05 * t, t > 4
        draw_box(axes, x, 5.5, 0.9, 0.9, f"$m_{t}$", "", None if is_padding else "C1")
        axes.add_patch(Rectangle((x + 0.2, 3.9), 0.5, 2.6 * weight, color="C0"))
        axes.plot((x, x + 0.9), (3.9, 3.9), color="C0", linewidth=1)
        if is_padding:
            axes.text(x + 0.45, 4.1, "0", ha="center")
    draw_box(axes, 2.2, 0.6, 2.3, 1.5, "cell", "reads inputs\nand attention", "C2")
    draw_box(axes, 5.6, 0.6, 2.6, 1.5, "mechanism", "compares output\nand memory", "C0")
    draw_box(axes, 9.9, 4.2, 2.6, 1.5, "context", "the weighted\nmean", "C1")
    draw_box(
        axes, 9.9, 0.6, 2.6, 1.5, "attention", "a layer of output\nand context", "C3"
    )
    axes.text(0, 1.35, "inputs", va="center")
    draw_arrow(axes, (1.2, 1.35), (2.2, 1.35))
    draw_arrow(axes, (4.5, 1.35), (5.6, 1.35))
    draw_arrow(axes, (6.9, 2.1), (6.0, 3.8))
    draw_arrow(axes, (9.5, 4.9), (9.9, 4.9))
    draw_arrow(axes, (11.2, 4.2), (11.2, 2.1))
    draw_arrow(axes, (10.4, 0.6), (3.3, 0.6), connectionstyle="arc3,rad=-0.08")
    axes.text(6.9, 0.02, "the next step", ha="center", va="center", fontsize=10)
    return figure
