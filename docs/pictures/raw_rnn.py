"""The arguments and results of a `loop_fn` of `raw_rnn`."""

from boxes import draw_arrow, draw_box, make_figure
from matplotlib.figure import Figure

RETURNED = "finished, next_input,\nnext_cell_state,\nemit_output,\nnext_loop_state"


def draw() -> Figure:
    """The cell and the function, with arrows in both directions."""
    figure, axes = make_figure(12.5, 5.2)
    draw_box(axes, 0, 1.7, 2.4, 1.8, "cell", "one step of\nall rows", "C2")
    draw_box(axes, 5.8, 1.2, 3.2, 2.9, "loop_fn", RETURNED, "C0")
    draw_box(axes, 10.3, 2.5, 2.2, 1.3, "TensorArray", "of emit_output")
    draw_box(axes, 10.3, 0.7, 2.2, 1.3, "end", "when all rows\nare finished")
    draw_arrow(axes, (2.4, 2.3), (5.8, 2.3))
    text = {"ha": "center", "va": "center", "fontsize": 10}
    axes.text(4.1, 1.3, "time, cell_output,\ncell_state,\nloop_state", **text)
    draw_arrow(axes, (7.4, 4.1), (1.2, 3.5), connectionstyle="arc3,rad=0.25")
    axes.text(4.3, 5.0, "next_input, next_cell_state", **text)
    draw_arrow(axes, (9.0, 3.1), (10.3, 3.15))
    draw_arrow(axes, (9.0, 1.6), (10.3, 1.35))
    return figure
