"""A loop that runs by other means than XLA, with the derivatives of XLA's loop."""

import abc
from typing import Any

import jax

from .._affine.loop_rule import LoopRule, Primals, Residuals
from .._affine.phases import Phases
from .._affine.sequence import XlaLoop
from .._autodiff.differentiable import differentiable
from .._autodiff.transposable import dense
from .._base.typing import PyTree


class LoopBesideXla(LoopRule):
    """The loop of one cell, run forward and backward by other means than XLA.

    It saves `(zs, state)` of each step, as XLA's loop does, which computes the other
    derivatives (forward mode, second derivatives).
    """

    def __init__(self, cell: Any) -> None:
        self.cell, self.xla = cell, XlaLoop(cell)

    @abc.abstractmethod
    def run_forward(
        self, primals: Primals, phases: Phases, save: bool
    ) -> tuple[PyTree, PyTree, PyTree]:
        """`(outputs, state, saved)`; see `LoopRule`. It has no derivative."""

    @abc.abstractmethod
    def run_backward(self, residuals: Residuals, cotangents: tuple) -> Primals:
        """The cotangents of the primals; see `LoopRule`. It has no derivative.

        All cotangents are arrays.
        """

    def run_xla_forward(
        self, primals: Primals, phases: Phases, save: bool
    ) -> tuple[PyTree, PyTree, PyTree]:
        """`run_forward` by XLA's loop, with its derivatives."""
        return self.xla.forward(primals, phases, save)

    def forward(
        self, primals: Primals, phases: Phases, save: bool
    ) -> tuple[PyTree, PyTree, PyTree]:
        """`(outputs, state, saved)`; see `LoopRule`."""

        def run(primals: Primals, phases: Phases) -> Any:
            return self.run_forward(primals, phases, save)

        def push_forward(args: Any, tangents: Any) -> Any:
            primals, phases = args
            loop = lambda primals: self.run_xla_forward(primals, phases, save)
            return jax.jvp(loop, (primals,), (dense(tangents[0]),))

        return differentiable(run, push_forward, primals, phases)

    def tangent(self, residuals: Residuals, tangents: Primals) -> tuple[PyTree, PyTree]:
        """The tangents of `(outputs, state)`; see `LoopRule`."""
        return self.xla.tangent(residuals, tangents)

    def transpose(self, residuals: Residuals, cotangents: tuple) -> Primals:
        """The cotangents of the primals; see `LoopRule`."""

        def run(phases: Phases, primals: Primals, saved: Any, cotangents: tuple) -> Any:
            return self.run_backward(Residuals(primals, phases, saved), cotangents)

        def push_forward(args: Any, tangents: Any) -> Any:
            phases, *floats = args

            def loop(primals: Primals, saved: Any, cotangents: tuple) -> Primals:
                residuals = Residuals(primals, phases, saved)
                return self.xla.transpose(residuals, cotangents)

            return jax.jvp(loop, tuple(floats), tuple(map(dense, tangents[1:])))

        primals, phases, saved = residuals
        return differentiable(
            run, push_forward, phases, primals, saved, dense(cotangents)
        )
