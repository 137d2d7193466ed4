"""Three questions that lead to a recurrent cell."""

from boxes import draw_arrow, draw_box, make_figure
from matplotlib.figure import Figure

NONLINEAR, VECTOR, MATRIX = "C1", "C0", "C2"
# x, y, width, height, title, text, color
QUESTIONS = (
    (0.0, 8.4, 6.6, 1.1, "Must a step see the nonlinear result\nof the step before?"),
    (0.0, 5.8, 6.6, 1.1, "Must the state recall values\nby their keys?"),
    (0.0, 3.3, 5.9, 1.1, "Do the inputs decide\nwhat is kept?"),
    (6.7, 3.3, 6.3, 1.1, "Does a new value replace\nthe old value of its key?"),
)
CELLS = (
    (
        8.4,
        8.1,
        4.6,
        1.7,
        "LSTM, GRU, sLSTM",
        "step by step;\ntrack parity, count",
        NONLINEAR,
    ),
    (0.0, 0.3, 2.7, 1.8, "LRU", "sound and other\nsampled signals", VECTOR),
    (3.2, 0.3, 2.7, 1.8, "MinGRU,\nRG-LRU, QRNN", "\ntokens", VECTOR),
    (6.7, 0.3, 2.9, 1.8, "mLSTM,\nMamba-2, GLA", "\nadd values", MATRIX),
    (10.1, 0.3, 2.9, 1.8, "DeltaNet,\nGated DeltaNet", "\nreplace values", MATRIX),
)
ARROWS = (  # From a question to a question or a cell.
    ((6.6, 8.95), (8.4, 8.95), "yes"),
    ((3.3, 8.4), (3.3, 6.9), "no"),
    ((2.95, 5.8), (2.95, 4.4), "no"),
    ((6.6, 6.35), (9.85, 4.4), "yes"),
    ((1.35, 3.3), (1.35, 2.1), "no"),
    ((4.55, 3.3), (4.55, 2.1), "yes"),
    ((8.15, 3.3), (8.15, 2.1), "no"),
    ((11.55, 3.3), (11.55, 2.1), "yes"),
)
KINDS = (
    (2.95, "linear recurrences: the state is a vector", VECTOR),
    (9.85, "matrix memories: the state is a matrix per head", MATRIX),
)


def draw() -> Figure:
    """Questions without color, and below them the cells of each kind."""
    figure, axes = make_figure(13.0, 9.9, scale=0.68)
    for question in QUESTIONS:
        draw_box(axes, *question)
    for cell in CELLS:
        draw_box(axes, *cell)
    for start, end, answer in ARROWS:
        draw_arrow(axes, start, end)
        x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
        axes.text(x + 0.15, y + 0.12, answer, va="bottom", fontsize=11)
    for x, text, color in KINDS:
        axes.text(x, 0.1, text, ha="center", va="top", fontsize=10, color=color)
    return figure
