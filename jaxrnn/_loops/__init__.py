"""Loops that run whole sequences of a kind of cells faster than a scan.

Imports `_cells`, `_run` and `_base`. Never here: what a result is. Each import below
registers loops for a kind of cells (`_run/loops.py`). Without one of these lines, or
without this folder and the lines that import it, all results stay the same, only
slower. Only sequences whose time axis is divided over devices need this folder.
"""

from . import convolution as convolution
from .affine import choose as _affine
from .affine.native import choose as _native
from .linear import choose as _linear
from .memories import choose as _memories, delta, dplr, linear_attention, mlstm
from .wrappers import composed, dropout, mapped_output

__all__: list[str] = []
