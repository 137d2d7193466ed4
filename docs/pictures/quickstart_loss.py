"""The loss of each update of "Getting started", computed by the blocks of that page."""

import contextlib
import functools
import io
import pathlib
import re

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

PAGE = pathlib.Path(__file__).parents[1] / "getting_started.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def draw() -> Figure:
    """The losses as a line, with that of a guess."""
    ink = plt.rcParams["text.color"]
    figure, axes = plt.subplots(figsize=(7, 3.2))
    axes.plot(compute_losses(), color="C0")
    axes.axhline(np.log(2), color=ink, linestyle=":", linewidth=1)
    axes.text(300, np.log(2) + 0.01, "a guess, log 2", ha="right", va="bottom")
    axes.set(xlabel="update", ylabel="cross-entropy", ylim=(0, 0.8))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


@functools.cache
def compute_losses() -> list[float]:
    """Runs the blocks of the page until one has trained."""
    names = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for block in BLOCK.finditer(PAGE.read_text()):
            exec(block[1], names)
            if "losses" in names:
                return names["losses"]
    raise LookupError(f"no block of {PAGE} defines `losses`")
