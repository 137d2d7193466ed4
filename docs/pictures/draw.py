"""Draws pictures as SVG files next to their scripts: `draw.py [NAME ...]`.

A script has a function `draw() -> matplotlib.figure.Figure`. Pages show the files, so
they look the same on the site and on the repository's web page.
"""

import importlib
import pathlib
import sys

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt

HERE = pathlib.Path(__file__).parent
SHARED = {"boxes", "draw"}  # Modules that are not pictures.
STYLE = {
    "svg.hashsalt": "jaxrnn",  # Make the files reproducible.
    "savefig.bbox": "tight",
    "savefig.facecolor": "white",
    "font.size": 11,
}


def names() -> list[str]:
    """The names of all pictures."""
    return sorted({script.stem for script in HERE.glob("*.py")} - SHARED)


def draw(name: str) -> None:
    """Draws one picture as `<name>.svg`."""
    with plt.rc_context(STYLE):
        figure = importlib.import_module(name).draw()
        figure.savefig(HERE / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    for name in sys.argv[1:] or names():
        draw(name)
