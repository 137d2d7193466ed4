"""Which operations a kernel's steps are made of, and whether its compiler has them."""

import functools
from collections.abc import Callable

import jax

from .._autodiff.jax_internals import JaxprEqn
from .rewrite import rewritten
from .step import backward_step, forward_step, step_types
from .work import Work


def why_unknown(
    work: Work, rows: int, trouble: Callable[[JaxprEqn], str | None]
) -> str | None:
    """The first trouble with the steps forward and backward of so many rows, if any.

    Args:
        work: The cell and the sizes.
        rows: The rows of a tile.
        trouble: What there is to say against an operation, if anything.
    """
    for step, given in zip(
        (forward_step, backward_step), step_types(work, rows), strict=True
    ):
        plain = functools.partial(rewritten, functools.partial(step, work.cell))
        closed = jax.make_jaxpr(plain)(*given)
        if closed.consts:
            return "its functions hold arrays"
        found = next(filter(None, map(trouble, closed.jaxpr.eqns)), None)
        if found:
            return found
    return None


def is_batched(eqn: JaxprEqn) -> bool:
    """Whether a `dot_general` is more than a product of two matrices."""
    (contracted, _), (batched, _) = eqn.params["dimension_numbers"]
    return bool(batched) or len(contracted) != 1
