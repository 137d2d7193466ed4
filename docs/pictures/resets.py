"""A whole row, a padded row, and a row in which a second episode begins."""

from lengths import draw_rows
from matplotlib.figure import Figure


def draw() -> Figure:
    """Three rows of an unrolled loop."""
    rows = [
        ("row 0\nlength 6", 6, None),
        ("row 1\nlength 2", 2, None),
        ("row 2\nreset at 4", 6, 4),
    ]
    return draw_rows(6, rows)
