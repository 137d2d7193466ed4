"""The parts of a Flax module that wraps a jaxrnn cell."""

from boxes import draw_arrow, draw_box, make_figure
from matplotlib.figure import Figure


def draw() -> Figure:
    """A module that contains a driver that contains a cell, with inputs and outputs."""
    figure, axes = make_figure(12.6, 5.0)
    draw_box(axes, 2.3, 0, 7.6, 5.0, "RNN, a Flax module", " ", "C0")
    draw_box(axes, 5.9, 0.4, 3.6, 3.7, "driver", "dynamic_rnn", "C1")
    draw_box(axes, 6.3, 0.7, 2.8, 2.0, "cell", "hyperparameters,\nno arrays", "C2")
    draw_box(axes, 2.7, 2.3, 2.4, 1.6, "params", "with TensorFlow's\nnames")
    draw_box(axes, 2.7, 0.4, 2.4, 1.4, "key", 'from the stream\n"dropout"')
    draw_arrow(axes, (5.1, 3.0), (6.3, 2.1))
    draw_arrow(axes, (5.1, 1.1), (6.3, 1.4))
    axes.text(5.6, 2.85, "bind", va="center", fontsize=10)
    draw_box(axes, 0, 1.7, 1.6, 1.6, "inputs", "lengths")
    draw_box(axes, 10.8, 1.7, 1.8, 1.6, "outputs", "final state")
    draw_arrow(axes, (1.6, 2.5), (2.3, 2.5))
    draw_arrow(axes, (9.9, 2.5), (10.8, 2.5))
    return figure
