"""Lists of leaves: parts and rows of them, and the tangents of those that float."""

from typing import Any

import jax
import jax.numpy as jnp

from .._base.typing import Array


def read_rows(buffers: list, t: Array) -> list:
    """Row t of each buffer."""
    index = jax.lax.dynamic_index_in_dim
    return [index(b, t, keepdims=False) for b in buffers]


def write_rows(buffers: list, t: Array, rows: list) -> list:
    """Each buffer with a row at t."""
    update = jax.lax.dynamic_update_index_in_dim
    return [update(b, r, t, 0) for b, r in zip(buffers, rows, strict=True)]


def add(terms: list, others: list) -> list:
    """The sums of pairs."""
    return [a + b for a, b in zip(terms, others, strict=True)]


def split(leaves: Any, marks: list[bool]) -> tuple[list, list]:
    """Those that are not marked, and those that are."""
    pairs = list(zip(leaves, marks, strict=True))
    return [x for x, m in pairs if not m], [x for x, m in pairs if m]


def merge(unmarked: list, marked: list, marks: list[bool]) -> list:
    """What `split` took apart."""
    sources = (iter(unmarked), iter(marked))
    return [next(sources[m]) for m in marks]


def is_float(x: Any) -> bool:
    """Whether it has a tangent."""
    return jnp.issubdtype(x.dtype, jnp.inexact)


def only_floats(leaves: list) -> list:
    """Those that have tangents."""
    return [x for x in leaves if is_float(x)]


def zero_tangent(x: Array) -> Any:
    """The tangent of what is not floating."""
    return jax.custom_derivatives.zero_from_primal(x, symbolic_zeros=True)


def is_zero_tangent(tangent: Any) -> bool:
    """Whether nothing moves."""
    symbolic = isinstance(tangent, jax.custom_derivatives.SymbolicZero)
    return symbolic or tangent.dtype == jax.dtypes.float0


def dense_tangent(x: Array, tangent: Any) -> Array:
    """The tangent as an array."""
    return jnp.zeros_like(x) if is_zero_tangent(tangent) else tangent


def with_zero_tangents(leaves: list, tangents: list) -> list:
    """The tangents of all leaves, those of the floating ones being given."""
    moved = iter(tangents)
    return [next(moved) if is_float(x) else zero_tangent(x) for x in leaves]
