"""Which loop runs an affine cell: a native loop, XLA's loop, or a scan."""

from typing import Any

import jax
from jax.sharding import AxisType

from ..._base.derivatives import has_reverse_rule
from ..._base.math import is_traced
from ..._base.sharding import meshes_of, platform_of
from ..._base.typing import Params
from ..._cells.affine import AffineCell, Updated
from ..._run import masking
from ..._run.loops import Loops, register
from ..._run.run import Choice, Run
from .few_steps import why_few_steps, why_few_units
from .native.sequence import NativeLoop
from .supported import why_not_native
from .xla_loop import AffineLoop


def choose(cell: AffineCell, params: Params, run: Run) -> Choice:
    """Chooses a native loop or XLA's.

    By default, the native loops run all supported cells on a single CPU device, and in
    `shard_map` over CPU devices, if there are enough steps.
    """
    steps = run.steps

    # The program of one step, whose constants are the arrays that it closes over.
    # Define a new function, so that JAX does not reuse an earlier trace. Omit the
    # shardings of whole sequences, which might not be compatible with the arrays of
    # a single step.
    def step(*args: Any) -> Updated:
        return cell.step(*args)

    stage_params = jax.eval_shape(cell.stage_params, params)
    first_inputs = jax.eval_shape(
        lambda x: masking.first_inputs(x, steps.axis), run.inputs
    )
    types = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype),
        (stage_params, first_inputs, run.state),
    )
    program = jax.make_jaxpr(step)(*types)
    # The loops use `jax.custom_jvp`, which loses the gradients of these arrays.
    if any(map(is_traced, program.consts)):
        return Choice.scan("a function of the cell closes over traced arrays")
    if not isinstance(steps.time, int):
        return Choice.scan("the number of steps is symbolic")

    # The user asked for the native loop, or it is used by default.
    asked = run.implementation
    if asked == "native":
        reason = why_not_native(cell, params, run)
        if reason:
            return Choice.scan(reason)
        return Choice("native", NativeLoop(cell).run)
    if asked not in (None, "xla"):
        return Choice.scan(f"{type(cell).__name__} is not a matrix memory")
    reason = f"`implementation` is {asked!r}" if asked else None
    reason = reason or _why_not_local(params, run)
    reason = reason or why_not_native(cell, params, run)
    if not reason:
        few = why_few_steps(cell, run.inputs, steps)
        loop = NativeLoop(cell, is_default=True)
        return Choice("xla" if few else "native", loop.run, few or "")
    few = why_few_units(cell, run.inputs, steps) if asked is None else None
    if few and platform_of(run.inputs) == "cpu":
        return Choice.scan(f"{reason}, and {few}")
    loop = AffineLoop(cell, only_reverse=has_reverse_rule(program))
    return Choice("xla", loop.run, reason)


def _why_not_local(params: Params, run: Run) -> str | None:
    """The reason why no native loop runs by default, or None.

    XLA cannot divide a native loop over devices, and would gather the rows on each
    device. In `shard_map`, each device runs a loop of its own. A program that is
    compiled for another platform uses XLA's loop instead (`native/operation.py`).
    """
    arrays = params, run.inputs, run.state
    if platform_of(arrays) != "cpu":
        return "native loops run only on CPUs"
    kinds = {kind for mesh in meshes_of(arrays) for kind in mesh.axis_types}
    is_one_of_many = kinds == {AxisType.Manual}
    is_alone = kinds <= {AxisType.Auto} and jax.device_count() == 1
    if not (is_one_of_many or is_alone):
        return "there are several devices, for which native loops need `jax.shard_map`"
    return None


register(AffineCell, Loops(choose))
