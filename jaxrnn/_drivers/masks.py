"""The argument `mask`: checked, and as lengths where it has no gaps."""

from typing import Any

import numpy as np

from .._base.errors import describe
from .._base.inputs import as_step_booleans
from .._base.math import concrete_or_none
from .._base.typing import Array, Lengths


def as_mask(
    caller: str, mask: Any, lengths: Lengths | None, shape: tuple, axis: int
) -> tuple[Array | None, Lengths | None]:
    """`(mask, sequence_length)`, of which one is None; arguments as of `check_mask`.

    A mask without gaps becomes lengths, if its values are known outside of jit: nothing
    has to be moved then.
    """
    checked = check_mask(caller, mask, lengths, shape, axis)
    if checked is None:
        return None, lengths
    known = concrete_or_none(mask if isinstance(mask, np.ndarray) else checked)
    if known is None or (np.diff(known.astype(np.int8), axis=axis) > 0).any():
        return checked, None
    return None, known.sum(axis)


def check_mask(
    caller: str, mask: Any, lengths: Lengths | None, shape: tuple, axis: int
) -> Array | None:
    """The mask as an array; None stays None.

    Args:
        caller: The driver, for messages.
        mask: Its argument.
        lengths: Its argument `sequence_length`.
        shape: The first two axes of the inputs.
        axis: The time axis, 0 or 1.

    Raises:
        ValueError: If both are given, or shapes disagree.
        TypeError: If the mask does not hold booleans.
    """
    if mask is None:
        return None
    if lengths is not None:
        ts, n = ("ts", "lengths[:, None]") if axis == 1 else ("ts[:, None]", "lengths")
        raise ValueError(
            f"{caller}: `mask` must be None where `sequence_length` is given, got "
            f"{describe(mask)}. Leave the lengths out, and mask what is past them: "
            f"`mask & ({ts} < {n})` with `ts = jnp.arange(time)`."
        )
    fix = "Compare numbers: `mask > 0`. Lengths go to `sequence_length`."
    if getattr(mask, "ndim", 0) == 3:
        fix = "`mask.all(-1)` is true where all features of a step are known."
        raise ValueError(
            f"{caller}: `mask` must have one bool for each row and step, got "
            f"{describe(mask)}. {fix}"
        )
    return as_step_booleans(caller, "mask", mask, shape, axis, fix)
