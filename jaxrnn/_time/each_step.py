"""Computes for all steps at once what does not depend on the step before."""

from collections.abc import Callable
from typing import Any

import jax

from .._base.typing import PyTree
from .steps import Steps


def at_each_step(steps: Steps, fn: Callable[..., PyTree], *trees: Any) -> PyTree:
    """`fn` mapped over steps; a product in it becomes one product over all of them.

    Args:
        steps: Which steps there are.
        fn: A function of one step of each tree, leaves `[batch, ...]`, which treats
            each row separately. In rows that are not alive its arguments must be
            finite, or its derivatives are not.
        trees: Sequences, each leaf with the steps along `steps.axis`.

    Returns:
        What `fn` returns, with the steps along `steps.axis`.
    """
    # Whichever of rows and time is the second axis stands for rows: mapped over the
    # second axis, XLA would transpose each array.
    return jax.vmap(fn)(*trees)
