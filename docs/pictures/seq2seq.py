"""An encoder and a decoder, and the decoder's inputs in training and inference."""

from boxes import draw_arrow, draw_box, make_figure
from matplotlib.axes import Axes
from matplotlib.figure import Figure

SOURCE, TARGET = ("a", "b", "c", "end"), ("c", "b", "a", "end")
STEP = 1.25  # The distance between two cells.


def draw() -> Figure:
    """Two networks, which differ in the decoder's inputs."""
    figure, axes = make_figure(12.3, 7.6)
    draw_network(axes, 4.4, "training: the decoder reads the targets", fed=True)
    draw_network(axes, 0.3, "inference: the decoder reads its own outputs", fed=False)
    return figure


def draw_network(axes: Axes, y: float, text: str, fed: bool) -> None:
    """A row of cells; the decoder reads the targets if `fed`, otherwise its outputs."""
    axes.text(6.4, y + 2.75, text, weight="bold")
    axes.text(0, y + 2.75, "encoder", weight="bold")
    for t, symbol in enumerate((*SOURCE, "start", *TARGET[:-1])):
        is_decoder = t >= len(SOURCE)
        x = STEP * t + (1.4 if is_decoder else 0)
        draw_box(axes, x, y + 0.9, 0.9, 0.9, "cell", "", "C0" if is_decoder else "C1")
        if t < 2 * len(SOURCE) - 1:
            end = STEP * (t + 1) + (1.4 if t >= len(SOURCE) - 1 else 0)
            draw_arrow(axes, (x + 0.9, y + 1.35), (end, y + 1.35))
        if t <= len(SOURCE) or fed:
            axes.text(x + 0.45, y, symbol, ha="center", va="bottom")
            draw_arrow(axes, (x + 0.45, y + 0.4), (x + 0.45, y + 0.9))
        if is_decoder:
            output = TARGET[t - len(SOURCE)]
            draw_arrow(axes, (x + 0.45, y + 1.8), (x + 0.45, y + 2.2))
            axes.text(x + 0.45, y + 2.25, output, ha="center", va="bottom")
            if not fed and output != "end":
                start, end = (x + 0.62, y + 2.4), (x + STEP + 0.15, y + 1.8)
                draw_arrow(
                    axes, start, end, color="C3", connectionstyle="arc3,rad=-0.1"
                )
    axes.text(5.45, y + 1.5, "state", ha="center", va="bottom", fontsize=10)
