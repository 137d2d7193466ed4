"""Lists of leaves: selections and sums of them, and their tangents."""

from typing import Any

import jax
import jax.numpy as jnp

from .._base.typing import Array
from .jax_internals import SymbolicZero, zero_from_primal


def add(terms: list, others: list) -> list:
    """The sums of pairs."""
    return [a + b for a, b in zip(terms, others, strict=True)]


def split(leaves: Any, marks: list[bool]) -> tuple[list, list]:
    """The unmarked and the marked."""
    pairs = list(zip(leaves, marks, strict=True))
    return [x for x, m in pairs if not m], [x for x, m in pairs if m]


def merge(unmarked: list, marked: list, marks: list[bool]) -> list:
    """The inverse of `split`."""
    sources = (iter(unmarked), iter(marked))
    return [next(sources[m]) for m in marks]


def is_float(x: Any) -> bool:
    """Whether it has a tangent."""
    return jnp.issubdtype(x.dtype, jnp.inexact)


def only_floats(leaves: list) -> list:
    """Those that have tangents."""
    return [x for x in leaves if is_float(x)]


def zero_tangent(x: Array) -> Any:
    """A `SymbolicZero`, of dtype float0 if `x` is not floating."""
    return zero_from_primal(x, symbolic_zeros=True)


def is_zero_tangent(tangent: Any) -> bool:
    """Whether it stands for zero: a `SymbolicZero`, or an array of dtype float0."""
    return isinstance(tangent, SymbolicZero) or tangent.dtype == jax.dtypes.float0


def dense_tangent(x: Array, tangent: Any) -> Array:
    """The tangent as an array, zeros like `x` if it is a zero tangent."""
    return jnp.zeros_like(x) if is_zero_tangent(tangent) else tangent


def with_zero_tangents(leaves: list, tangents: list) -> list:
    """The tangents of all leaves, from those of the floating ones; others are zero."""
    floating = iter(tangents)
    return [next(floating) if is_float(x) else zero_tangent(x) for x in leaves]
