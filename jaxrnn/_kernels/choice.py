"""What runs the loop of an affine cell: by name, or by default."""

import dataclasses
from typing import Any, ClassVar, final

import jax
from jax.sharding import AxisType

from .._affine.on_mesh import run_on_mesh
from .._affine.sequence import run_here
from .._base.errors import describe
from .._base.sharding import meshes_of
from .._base.typing import Array, Params, PyTree
from .._time.sequence import DeclinedError
from .._time.steps import Steps
from . import native_calls
from .cudnn import Cudnn
from .implementation import Implementation
from .native import Native, run_native

# None is the loop that XLA compiles.
_BY_NAME = {"xla": None, Native.name: Native(), Cudnn.name: Cudnn()}


def as_implementation(where: str, implementation: Any) -> Implementation | None:
    """The `Implementation` of that name, or None for XLA's loop.

    Args:
        where: The calling function, for messages.
        implementation: A name; None for `default()`; or an `Implementation`, to test
            one.

    Raises:
        ValueError: If no implementation has that name.
        TypeError: If it is neither None, a string nor an `Implementation`.
    """
    if implementation is None:
        return default()
    if isinstance(implementation, Implementation):
        return implementation
    if isinstance(implementation, str) and implementation in _BY_NAME:
        return _BY_NAME[implementation]
    error = ValueError if isinstance(implementation, str) else TypeError
    raise error(
        f"{where}: `implementation` must be None or one of {', '.join(_BY_NAME)}, got "
        f"{describe(implementation)}."
    )


def default() -> Implementation | None:
    """What runs if none is named; None, XLA's loop, without `jaxrnn-native`."""
    return None if native_calls.why_not_installed() else Default()


@final
@dataclasses.dataclass(frozen=True)
class Default(Implementation):
    """The loops of `jaxrnn-native` on a CPU, for cells that they know; else XLA's."""

    name: ClassVar[str] = "default"
    is_required: ClassVar[bool] = False

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
    if not _is_local(args):
        return run_here(cell, *args)
    try:
        return run_native(cell, *args, is_default=True)
    except DeclinedError:
        return run_here(cell, *args)


def _is_local(arrays: PyTree) -> bool:
    """Whether arrays are on one device of a process that runs on a CPU.

    XLA cannot divide a call of `jaxrnn-native` over devices, and would gather its rows.
    """
    kinds = {kind for mesh in meshes_of(arrays) for kind in mesh.axis_types}
    is_one_of_many = kinds == {AxisType.Manual}
    is_alone = kinds <= {AxisType.Auto} and jax.device_count() == 1
    return jax.default_backend() == "cpu" and (is_one_of_many or is_alone)
