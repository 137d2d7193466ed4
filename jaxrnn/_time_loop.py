"""Loops over time that stop where there is nothing left to do."""

from collections.abc import Callable

import jax
import numpy as np

from ._bounded_loop import bounded_loop
from ._typing import Array, PyTree


def time_loop(
    count: Array | None,
    limit: int,
    body: Callable[[Array, PyTree], PyTree],
    carry: PyTree,
) -> PyTree:
    """`carry = body(t, carry)` for t from 0; differentiable in every mode.

    Args:
        count: How many steps to take, an int32 scalar; None for `limit`.
        limit: The most steps that are taken, static.
        body: A step; it may close over arrays.
        carry: What the first step is given.
    """
    if count is None:
        return jax.lax.fori_loop(np.int32(0), np.int32(limit), body, carry)

    def step(t: Array, carry: PyTree) -> tuple[PyTree, tuple]:
        count, carry = carry
        return (count, body(t, carry)), ()

    before_end = lambda t, carry: t < carry[0]
    return bounded_loop(before_end, step, (count, carry), limit)[1][1]
