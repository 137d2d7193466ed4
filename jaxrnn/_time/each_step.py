"""Computes for all steps at once what does not depend on the step before."""

from collections.abc import Callable
from typing import Any

import jax

from .._base.typing import PyTree


def at_each_step(fn: Callable[..., PyTree], *trees: Any) -> PyTree:
    """`fn` mapped over steps; a product in it becomes one product over all of them.

    Args:
        fn: A function of one step of each tree, leaves `[batch, ...]`, which treats
            each row separately. In rows that are not alive its arguments must be
            finite, or its derivatives are not.
        trees: Sequences, each leaf `[batch, time, ...]`, or all `[time, batch, ...]`.

    Returns:
        What `fn` returns, with the same two axes.
    """
    # Always over the first axis, even if that is the batch: `fn` then takes the steps
    # of one row for rows. Mapped over the second axis, XLA would transpose every array.
    return jax.vmap(fn)(*trees)
