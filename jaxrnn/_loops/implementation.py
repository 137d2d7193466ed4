"""Chooses the implementation of an affine cell's loop, by name or by default."""

from typing import Any

import jax
from jax.sharding import AxisType

from .._base.arguments import check_instance, check_one_of
from .._base.sharding import meshes_of, platform_of
from .._base.typing import Params, PyTree
from .cudnn import cudnn_sequence
from .native.sequence import native_sequence
from .run import DeclinedError, Run
from .xla_loop import affine_sequence

_BY_NAME = {"xla": affine_sequence, "native": native_sequence, "cudnn": cudnn_sequence}


def check_implementation(implementation: Any) -> None:
    """Raises unless a driver's argument `implementation` is None or a known name.

    Raises:
        ValueError: If no implementation has this name.
        TypeError: If the argument is neither None nor a string.
    """
    name, what = "implementation", f"None or one of {', '.join(_BY_NAME)}"
    check_instance(name, implementation, str | None, what)
    check_one_of(name, implementation, (None, *_BY_NAME), what)


def run_affine(cell: Any, params: Params, run: Run) -> tuple[PyTree, PyTree]:
    """`(outputs, state)` of an affine cell over all steps; see `affine_sequence`.

    By default, the native loops run all supported cells on a CPU.

    Raises:
        DeclinedError: If the named implementation cannot run the cell on these
            sequences. The error gives the reason.
    """
    args = cell, params, run.inputs, run.state, run.steps
    if run.implementation is not None:
        return _BY_NAME[run.implementation](*args)
    if _is_local(args[1:]):
        try:
            return native_sequence(*args, is_default=True)
        except DeclinedError:
            pass
    return affine_sequence(*args)


def _is_local(arrays: PyTree) -> bool:
    """Whether the arrays are on a single CPU device.

    XLA cannot divide a native loop over devices, and would gather the rows on each
    device. A program that is compiled for another platform uses XLA's loop instead
    (`_base/operation.py`).
    """
    kinds = {kind for mesh in meshes_of(arrays) for kind in mesh.axis_types}
    is_one_of_many = kinds == {AxisType.Manual}
    is_alone = kinds <= {AxisType.Auto} and jax.device_count() == 1
    return platform_of(arrays) == "cpu" and (is_one_of_many or is_alone)
