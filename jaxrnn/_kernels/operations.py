"""The operations of a kernel's steps: inlined, and compared with what is supported.

Pallas lowers `split` for Triton, but not its transpose, `concatenate`; no functions
with custom derivatives; and no empty arrays, which occur where a stage has no operand.
"""

import functools
from collections.abc import Callable

import jax

from .._affine.programs import ELEMENTWISE, inlined
from .._autodiff.jax_internals import JaxprEqn
from .step import backward_step, forward_step, step_types
from .work import Work

SUPPORTED = ELEMENTWISE | frozenset(
    """
    broadcast_in_dim dot_general reduce_max reduce_min reduce_sum reshape split squeeze
    stack transpose
    """.split()
)


def why_not_operations(
    work: Work, rows: int, why_not: Callable[[JaxprEqn], str | None]
) -> str | None:
    """Why a compiler does not take the forward and the backward step, or None.

    Args:
        work: The cell and the sizes.
        rows: The rows of a tile.
        why_not: Returns why it does not take an equation, or None.
    """
    for step, types in zip(
        (forward_step, backward_step), step_types(work, rows), strict=True
    ):
        plain = functools.partial(inlined, functools.partial(step, work.cell))
        closed = jax.make_jaxpr(plain)(*types)
        if closed.consts:
            return "its functions hold arrays"
        reason = next(filter(None, map(why_not, closed.jaxpr.eqns)), None)
        if reason:
            return reason
    return None


def is_batched(eqn: JaxprEqn) -> bool:
    """Whether a `dot_general` is more than a product of two matrices."""
    (contracted, _), (batched, _) = eqn.params["dimension_numbers"]
    return bool(batched) or len(contracted) != 1
