"""Chooses the loop of an affine cell: a backend's loop, XLA's loop, or a scan.

A *backend* is a library with its own loops, such as the native loops in C++. Each
backend registers itself, so this file does not import backends.
"""

from typing import Any, NamedTuple

import jax

from ..._base.derivatives import has_reverse_rule
from ..._base.math import is_traced
from ..._base.mesh import platform_of
from ..._base.typing import Params
from ..._cells.affine import AffineCell, StageResult
from ..._run import masking
from ..._run.loops import Choose, Loops, register
from ..._run.run import Choice, Run
from .few_steps import why_few_units
from .xla_loop import AffineLoop


class Backend(NamedTuple):
    """Two functions that choose a loop of the backend, or a scan with a reason.

    Attributes:
        by_name: Chooses if the user asks for the backend by name.
        by_default: Chooses if the user does not pass `implementation`.
    """

    by_name: Choose
    by_default: Choose


_BACKENDS: dict[str, Backend] = {}


def register_backend(name: str, backend: Backend) -> None:
    """Registers a backend, whose loops run the affine cells that they support."""
    _BACKENDS[name] = backend


def choose(cell: AffineCell, params: Params, run: Run) -> Choice:
    """Chooses the loop of a backend, XLA's loop, or a scan."""
    program = _program_of_step(cell, params, run)
    # The loops use `jax.custom_jvp`, which would lose the gradients of these arrays.
    if any(map(is_traced, program.consts)):
        return Choice.scan("a function of the cell closes over traced arrays")
    if not isinstance(run.steps.time, int):
        return Choice.scan("the number of steps is symbolic")

    asked = run.implementation
    if asked in _BACKENDS:
        return _BACKENDS[asked].by_name(cell, params, run)
    if asked not in (None, "xla"):
        return Choice.scan(f"{type(cell).__name__} is not a matrix memory")
    reasons = [f"`implementation` is {asked!r}"] if asked else []
    for backend in () if asked else _BACKENDS.values():
        choice = backend.by_default(cell, params, run)
        if choice.loop:
            return choice
        reasons.append(choice.reason)
    few = why_few_units(cell, run.inputs, run.steps) if asked is None else None
    if few and platform_of(run.inputs) == "cpu":
        return Choice.scan(", and ".join([*reasons, few]))
    loop = AffineLoop(cell, only_reverse=has_reverse_rule(program))
    return Choice("xla", loop.run, ", and ".join(reasons), scales_state=True)


def _program_of_step(cell: AffineCell, params: Params, run: Run) -> Any:
    """Traces one step; returns the jaxpr.

    The jaxpr shows whether the step closes over traced arrays, and whether the step has
    a derivative only in reverse mode.
    """

    # JAX would reuse an earlier trace of `cell.step`, so define a new function.
    def step(*args: Any) -> StageResult:
        return cell.step(*args)

    stage_params = jax.eval_shape(cell.stage_params, params)
    first_inputs = jax.eval_shape(
        lambda x: masking.first_inputs(x, run.steps.axis), run.inputs
    )
    # Omit the shardings of whole sequences, which might not be compatible with the
    # arrays of a single step.
    types = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype),
        (stage_params, first_inputs, run.state),
    )
    return jax.make_jaxpr(step)(*types)


register(AffineCell, Loops(choose))
