"""How far results in float32 and bfloat16 are from those of a loop in float64."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ..core.cases import Case
from . import DEVIATING, DTYPES
from .data import Data, named
from .program import function
from .runs import by_driver, by_segments


def deviations(case: Case, data: Data) -> dict[str, float]:
    """By form and dtype, as `"scan, float32"`, the largest of all arrays.

    That of an array is its largest difference relative to its largest entry.
    """
    with jax.enable_x64(True):
        reference = _results(case, data, by_segments, "float64")
    return {
        f"{name}, {dtype}": _largest(_results(case, data, run, dtype), reference)
        for name, run in zip(DEVIATING, (by_driver, by_segments), strict=True)
        for dtype in DTYPES
    }


def _results(
    case: Case, data: Data, form: Callable, dtype: str
) -> dict[str, np.ndarray]:
    """The named results of a form, with all arrays in that dtype."""
    cast = lambda tree: jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)
    run = function(case.mode, functools.partial(form, data.cell), cast(data.cotangents))
    raw = jax.jit(run)(*cast((data.params, data.inputs, data.state)))
    found = named(case.mode, raw)
    return {name: array.astype(np.float64) for name, array in found.items()}


def _largest(results: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> float:
    return max(
        float(np.abs(results[name] - array).max() / max(np.abs(array).max(), 1e-30))
        for name, array in reference.items()
    )
