"""Loops that run whole sequences faster than a scan, each for one kind of cells.

This folder imports `_cells`, `_run` and `_base`. Each import below registers loops for
a kind of cells (`_run/loops.py`). A loop changes results by rounding at most: without
an import, or without this folder, the cells are scanned. The only exception is a time
axis that is divided over devices, which a scan cannot run.
"""

from . import convolution as convolution
from .affine import choose as _affine
from .affine.native import choose as _native
from .linear import choose as _linear
from .memories import choose as _memories, delta, dplr, linear_attention, mlstm
from .wrappers import composed, dropout, mapped_output

__all__: list[str] = []
