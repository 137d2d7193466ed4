"""What does not feed back is computed for all steps at once."""

from collections.abc import Callable
from typing import Any

import jax

from .._base.typing import PyTree
from .._time.steps import Steps


def at_each_step(steps: Steps, fn: Callable[..., PyTree], *trees: Any) -> PyTree:
    """`fn` of each step of `trees`, a product in it as one product of all steps.

    Args:
        steps: Which steps there are.
        fn: A function of one step of each tree, leaves `[batch, ...]`, which treats
            each row separately. In rows that are not alive its arguments must be
            finite, or its derivatives are not.
        trees: Sequences, each leaf with the steps along `steps.axis`.
    """
    return jax.vmap(fn, steps.axis, steps.axis)(*trees)
