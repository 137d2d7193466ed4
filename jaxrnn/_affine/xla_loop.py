"""The run of an affine cell as loops that XLA compiles.

Every other implementation is held to this one.
"""

from typing import Any, final

from .._base.typing import PyTree
from .backward import run_backward
from .forward import ForwardLoop
from .loop_rule import LoopRule, Primals, Residuals
from .phases import Phases
from .tangent import TangentLoop


@final
class XlaLoop(LoopRule):
    """The loops of one cell; of each step `(zs, state)` are saved."""

    def __init__(self, cell: Any) -> None:
        self.cell = cell

    def forward(
        self, primals: Primals, phases: Phases, save: bool
    ) -> tuple[PyTree, PyTree, PyTree]:
        """`(outputs, state, saved)`; see `LoopRule`."""
        return ForwardLoop(self.cell, primals, phases, save).run()

    def tangent(self, residuals: Residuals, tangents: Primals) -> tuple[PyTree, PyTree]:
        """The tangents of `(outputs, state)`; see `LoopRule`."""
        return TangentLoop(self.cell, residuals, tangents).run()

    def transpose(self, residuals: Residuals, cotangents: tuple) -> Primals:
        """The cotangents of the primals; see `LoopRule`."""
        return run_backward(self.cell, residuals, cotangents)
