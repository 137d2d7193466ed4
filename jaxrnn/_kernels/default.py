"""What runs the loop of an affine cell where no implementation is named."""

import dataclasses
from typing import Any, final

import jax
from jax.sharding import AxisType

from .._affine.loop_rule import run_loop
from .._affine.on_mesh import run_on_mesh
from .._affine.phases import Phases
from .._affine.sequence import run_here
from .._base.sharding import meshes_of
from .._base.typing import Array, Params, PyTree
from .._time.sequence import DeclinedError
from .._time.steps import Steps
from .native import Native, NativeLoop, work_for
from .work import Work


def default_implementation(work: Work) -> str:
    """The name of the implementation that runs that work by default on a CPU."""
    return "xla" if Native().why_not(work) else "native"


@final
@dataclasses.dataclass(frozen=True)
class Default:
    """The loop of XLA, or that of `jaxrnn-native` on a CPU on which it is faster."""

    is_required = False

    def run_sequences(
        self, cell: Any, params: Params, xs: Array, state: PyTree, steps: Steps
    ) -> tuple[PyTree, PyTree]:
        """`(outputs, state)` of all steps; see `Implementation`."""
        return run_on_mesh(_run_here, cell, params, xs, state, steps)


def _run_here(
    cell: Any, params: Params, xs: Array, state: PyTree, steps: Steps
) -> tuple[PyTree, PyTree]:
    """The sequences of the rows and units that a device has."""
    args = params, xs, state, steps
    if not _is_local(args) or not _is_native(cell, *args):
        return run_here(cell, *args)
    loop = NativeLoop(cell, is_default=True)
    return run_loop(loop, params, xs, state, Phases(steps))


def _is_local(arrays: PyTree) -> bool:
    """Whether arrays are on one device of a process that runs on a CPU.

    XLA cannot divide a call of `jaxrnn-native` over devices, and would gather its rows.
    """
    kinds = {kind for mesh in meshes_of(arrays) for kind in mesh.axis_types}
    is_one_of_many = kinds == {AxisType.Manual}
    is_alone = kinds <= {AxisType.Auto} and jax.device_count() == 1
    return jax.default_backend() == "cpu" and (is_one_of_many or is_alone)


def _is_native(
    cell: Any, params: Params, xs: Array, state: PyTree, steps: Steps
) -> bool:
    try:
        work = work_for(cell, params, xs, state, steps)
    except DeclinedError:
        return False
    return default_implementation(work) == "native"
