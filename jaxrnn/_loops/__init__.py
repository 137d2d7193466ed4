"""Loops that run whole sequences of a kind of cells faster than a scan.

Each folder or file registers its loops for a kind of cells; see `_run/loops.py`.
Without this folder, and without the lines that import it, all results stay the same.
"""

from . import convolution as convolution
from .affine import choose as _affine
from .linear import choose as _linear
from .memories import choose as _memories, delta, dplr, linear_attention, mlstm

__all__: list[str] = []
