"""One step of an LSTM: the product, the four gates and the state `(c, h)`."""

from boxes import draw_arrow, draw_box, make_figure
from matplotlib.figure import Figure

GATES = (
    ("i", "how much is written", "C0"),
    ("j", "what is written", "C2"),
    ("f", "how much of c is kept", "C0"),
    ("o", "how much of c is read", "C0"),
)


def draw() -> Figure:
    """Inputs and state, product, gates and new state, from left to right."""
    figure, axes = make_figure(13, 6.4)
    draw_box(axes, 0, 4.2, 1.6, 1.1, "x", "inputs")
    draw_box(axes, 0, 1.6, 1.6, 1.1, "h", "state")
    draw_box(axes, 2.5, 2.6, 2.2, 1.6, "product", "[x, h] kernel\n+ bias", "C1")
    draw_arrow(axes, (1.6, 4.6), (2.5, 3.8))
    draw_arrow(axes, (1.6, 2.2), (2.5, 3.0))
    for row, (name, text, color) in enumerate(GATES):
        y = 5.1 - 1.3 * row
        draw_box(axes, 5.6, y, 3.5, 1.1, name, text, color)
        draw_arrow(axes, (4.7, 3.4), (5.6, y + 0.55))
    draw_box(axes, 10.2, 5.4, 2.8, 0.8, "c")
    draw_arrow(axes, (11.6, 5.4), (11.6, 5.0))
    draw_box(axes, 10.2, 3.4, 2.8, 1.6, "c'", "f * c +\ni * activation(j)", "C3")
    draw_box(axes, 10.2, 0.9, 2.8, 1.4, "h' = output", "o * activation(c')", "C3")
    for y in (5.65, 4.35, 3.05):
        draw_arrow(axes, (9.1, y), (10.2, 4.2))
    draw_arrow(axes, (9.1, 1.75), (10.2, 1.6))
    draw_arrow(axes, (11.6, 3.4), (11.6, 2.3))
    return figure
