"""Checks the argument `mask`, and converts it to lengths if it has no gaps."""

from typing import Any

import numpy as np

from .._base.errors import InvalidValue, describe
from .._base.inputs import as_step_booleans
from .._base.math import concrete_or_none
from .._base.typing import Array, Lengths


def as_mask(
    mask: Any, lengths: Lengths | None, shape: tuple, axis: int
) -> tuple[Array | None, Lengths | None]:
    """Returns `(mask, sequence_length)`; at least one of the two is None.

    A mask without gaps is converted to lengths if its values are concrete, so that no
    steps need to be moved. The arguments are as in `check_mask`.
    """
    checked = check_mask(mask, lengths, shape, axis)
    if checked is None:
        return None, lengths
    known = concrete_or_none(mask if isinstance(mask, np.ndarray) else checked)
    if known is None or (np.diff(known.astype(np.int8), axis=axis) > 0).any():
        return checked, None
    return None, known.sum(axis)


def check_mask(
    mask: Any, lengths: Lengths | None, shape: tuple, axis: int
) -> Array | None:
    """Returns the mask as an array, or None if there is no mask.

    Args:
        mask: The driver's argument `mask`.
        lengths: The driver's argument `sequence_length`.
        shape: The sizes of the first two axes of the inputs.
        axis: The time axis, 0 or 1.

    Raises:
        ValueError: If both `mask` and `lengths` are given, or if shapes disagree.
        TypeError: If the mask does not hold booleans.
    """
    if mask is None:
        return None
    if lengths is not None:
        ts, n = ("ts", "lengths[:, None]") if axis == 1 else ("ts[:, None]", "lengths")
        raise InvalidValue(
            "`mask` must be None where `sequence_length` is given, got "
            f"{describe(mask)}. Omit `sequence_length`, and mask the steps past the "
            f"`mask & ({ts} < {n})` with `ts = jnp.arange(time)`."
        )
    fix = "Convert numbers with `mask > 0`; pass lengths as `sequence_length`."
    if getattr(mask, "ndim", 0) == 3:
        fix = "`mask.all(-1)` is true where all features of a step are known."
        raise InvalidValue(
            "`mask` must have one bool for each row and step, got "
            f"{describe(mask)}. {fix}"
        )
    return as_step_booleans("mask", mask, shape, axis, fix)
