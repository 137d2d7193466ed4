"""Chooses the loop that runs a cell over whole sequences.

A cell's `apply_sequence` runs all steps in one call. If `apply_sequence` raises
`DeclinedError`, a scan runs the cell step by step. For an affine cell (a subclass of
`AffineCell`), `apply_sequence` chooses between XLA's loop, the native loop in C++ and
cuDNN.
"""

import logging
from collections.abc import Callable

import jax
from jax.sharding import AxisType

from .._base.arguments import check_instance
from .._base.expect import expect
from .._base.sharding import meshes_of, platform_of
from .._base.trees import with_structure
from .._base.typing import Params, PyTree
from .cudnn import cudnn_sequence
from .native.sequence import native_sequence
from .scans import Apply, scan_steps
from .steps import DeclinedError, Run
from .xla_loop import AffineCellLike, affine_sequence

_log = logging.getLogger("jaxrnn")

_BY_NAME = {"xla": affine_sequence, "native": native_sequence, "cudnn": cudnn_sequence}


def as_implementation(implementation: str | None) -> str | None:
    """Checks and returns the user's argument `implementation`: None or a known name.

    Raises:
        ValueError: If no implementation has this name.
        TypeError: If the argument is neither None nor a string.
    """
    what = f"None or one of {', '.join(_BY_NAME)}"
    check_instance("implementation", implementation, str | None, what)
    expect(
        implementation in (None, *_BY_NAME),
        "implementation",
        f"be {what}",
        implementation,
    )
    return implementation


def run_sequence(
    apply_sequence: Callable[[Run], tuple[PyTree, PyTree]],
    apply: Apply,
    run: Run,
    unroll: int = 1,
) -> tuple[PyTree, PyTree]:
    """Runs a cell over all steps; returns `(outputs, state)`.

    Args:
        apply_sequence: Runs all steps of `run` in one call; may raise `DeclinedError`.
        apply: Runs one step.
        run: The sequences. If `steps.returns_states` is true, the outputs are pairs
            `(output, new_state)`. If `apply_sequence` declines, a scan runs the cell,
            unless `implementation` is "native" or "cudnn".
        unroll: The number of steps unrolled in each iteration of a scan.

    Raises:
        ValueError: If `apply_sequence` declines and `implementation` is "native" or
            "cudnn".
    """
    sizes = jax.tree.leaves(run.inputs)[0].shape[:2]
    is_empty = any(isinstance(size, int) and not size for size in sizes)
    if not is_empty:
        try:
            outputs, last = apply_sequence(run)
            return outputs, with_structure(run.state, last)
        except DeclinedError as reason:
            if run.implementation not in (None, "xla"):
                raise ValueError(
                    f"`implementation` {run.implementation!r} cannot run this cell on "
                    f"these sequences: {reason}. Omit `implementation` to use XLA's "
                    "loop."
                ) from None
            _log.debug("the cell is run step by step, because %s", reason)
    return scan_steps(apply, run.inputs, run.state, run.steps, unroll)


def run_affine(cell: AffineCellLike, params: Params, run: Run) -> tuple[PyTree, PyTree]:
    """`(outputs, state)` of an affine cell over all steps; see `affine_sequence`.

    By default, the native loops run all supported cells on a single CPU device, and in
    `shard_map` over CPU devices.

    Raises:
        DeclinedError: If the named implementation cannot run the cell on these
            sequences. The error gives the reason.
    """
    name = type(cell).__name__
    if run.implementation is None and _is_local((params, run)):
        try:
            results = native_sequence(cell, params, run, is_default=True)
        except DeclinedError as reason:
            _log.debug("%s cannot run in a native loop: %s", name, reason)
        else:
            _log.debug("%s runs with implementation='native'", name)
            return results
    implementation = run.implementation or "xla"
    results = _BY_NAME[implementation](cell, params, run)
    _log.debug("%s runs with implementation=%r", name, implementation)
    return results


def _is_local(arrays: PyTree) -> bool:
    """Whether the arrays are on a single CPU device, as also inside `shard_map`.

    XLA cannot divide a native loop over devices, and would gather the rows on each
    device. A program that is compiled for another platform uses XLA's loop instead
    (`native/operation.py`).
    """
    kinds = {kind for mesh in meshes_of(arrays) for kind in mesh.axis_types}
    is_one_of_many = kinds == {AxisType.Manual}
    is_alone = kinds <= {AxisType.Auto} and jax.device_count() == 1
    return platform_of(arrays) == "cpu" and (is_one_of_many or is_alone)
