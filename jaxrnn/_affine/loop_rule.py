"""`LoopRule`: how the loop of an affine cell is run and differentiated.

There is one rule for XLA, one for `jaxrnn-native` and one for cuDNN.
"""

import abc
import dataclasses
from typing import Any, NamedTuple

from .._autodiff.differentiable import differentiable
from .._autodiff.transposable import dense, transposable
from .._base.typing import Array, Params, PyTree
from .phases import Phases


class Primals(NamedTuple):
    """The arguments with respect to which a run is differentiated.

    Also their tangents and cotangents.

    Attributes:
        params: The cell's parameters.
        xs: Inputs, `[batch, time, depth]` or `[time, batch, depth]`; those of one step,
            `[batch, depth]`, where these are the arguments of a step.
        state: The initial state, each leaf `[batch, size]`.
        restart_states: The states from which sequences within the rows start, each leaf
            `[sequences, size]`; None without restarts.
    """

    params: Params
    xs: Any
    state: PyTree
    restart_states: PyTree


class Residuals(NamedTuple):
    """What the tangent and the transpose of a run read.

    Attributes:
        primals: The arguments of the run.
        phases: Its steps.
        saved: The rule's residuals of the steps, as its `forward` returns them.
    """

    primals: Primals
    phases: Phases
    saved: PyTree


class LoopRule(abc.ABC):
    """How whole sequences of an affine cell are run, with derivatives of every order.

    The methods close over no traced arrays.
    """

    @abc.abstractmethod
    def forward(
        self, primals: Primals, phases: Phases, save: bool
    ) -> tuple[PyTree, PyTree, PyTree]:
        """`(outputs, state, saved)` of all steps.

        Args:
            primals: The arguments of the run.
            phases: Its steps, without the restart states.
            save: Whether residuals are saved; otherwise `saved` is not read.
        """

    @abc.abstractmethod
    def tangent(self, residuals: Residuals, tangents: Primals) -> tuple[PyTree, PyTree]:
        """The tangents of `(outputs, state)`, linear in those of the primals."""

    @abc.abstractmethod
    def transpose(self, residuals: Residuals, cotangents: tuple) -> Primals:
        """The cotangents of the primals, from those of `(outputs, state)`.

        Some of the cotangents may be `SymbolicZero`s.
        """


def run_loop(
    rule: LoopRule, params: Params, xs: Array, state: PyTree, phases: Phases
) -> tuple[PyTree, PyTree]:
    """`(outputs, state)` of all steps by a rule, with the rule's derivatives.

    Args:
        rule: How they are run.
        params: The cell's parameters.
        xs: Inputs, `[batch, time, depth]` or `[time, batch, depth]`.
        state: The initial state, each leaf `[batch, size]`.
        phases: The steps.
    """

    def run(primals: Primals, phases: Phases) -> tuple[PyTree, PyTree]:
        outputs, state, _ = rule.forward(primals, phases, save=False)
        return outputs, state

    def push_forward(args: Any, tangents: Any) -> tuple[Any, Any]:
        primals, phases = args
        outputs, state, saved = rule.forward(primals, phases, save=True)
        residuals, d_primals = Residuals(primals, phases, saved), dense(tangents[0])
        d_results = transposable(rule.tangent, rule.transpose, residuals, d_primals)
        return (outputs, state), d_results

    steps = phases.steps
    primals = Primals(params, xs, state, steps.restart_states)
    phases = dataclasses.replace(phases, steps=steps.with_restart_states(None))
    return differentiable(run, push_forward, primals, phases)
