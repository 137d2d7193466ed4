"""Values that are known while a program is traced."""

from typing import Any

import jax
import numpy as np


def as_known(values: Any) -> np.ndarray | None:
    """The values as NumPy, or None if they are known only at run time.

    Inside of a trace a JAX array counts as unknown even if it is a constant: a branch
    of `lax.cond` is traced whether it is taken or not.
    """
    if not isinstance(values, jax.Array):
        return np.asarray(values)
    try:
        return np.asarray(values | False if values.dtype == bool else values + 0)
    except jax.errors.JAXTypeError:
        return None
