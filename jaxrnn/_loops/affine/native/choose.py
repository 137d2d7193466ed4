"""Chooses the native loop of an affine cell, by default or if the user asks."""

import jax
from jax.sharding import AxisType

from ...._base.mesh import meshes_of, platform_of
from ...._base.typing import Params
from ...._cells.affine import AffineCell
from ...._run.run import Choice, Run
from ..choose import Backend, register_backend
from ..few_steps import why_few_steps
from .sequence import NativeLoop
from .supported import why_not_native


def by_name(cell: AffineCell, params: Params, run: Run) -> Choice:
    """Chooses the native loop if it supports the cell, also on several devices."""
    reason = why_not_native(cell, params, run)
    if reason:
        return Choice.scan(reason)
    return Choice("native", NativeLoop(cell).run, scales_state=True)


def by_default(cell: AffineCell, params: Params, run: Run) -> Choice:
    """Chooses the native loop on one CPU device, and in `shard_map` over CPU devices.

    `NativeLoop` runs XLA's loop if there are few steps. The loop itself decides,
    because the number of rows under `vmap` is not known here.
    """
    reason = _why_not_local(params, run) or why_not_native(cell, params, run)
    if reason:
        return Choice.scan(reason)
    few = why_few_steps(cell, run.inputs, run.steps)
    loop = NativeLoop(cell, is_default=True)
    name = "xla" if few else "native"
    return Choice(name, loop.run, few or "", scales_state=True)


def _why_not_local(params: Params, run: Run) -> str | None:
    """The reason why no native loop runs by default, or None.

    XLA cannot divide a native loop over devices, and would copy all rows to each
    device. In `shard_map`, each device runs its own loop. A program that is compiled
    for another platform uses XLA's loop instead (`operation.py`).
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


register_backend("native", Backend(by_name, by_default))
