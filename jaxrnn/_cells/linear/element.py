"""Arithmetic of a linear recurrence's units, which are real or complex numbers."""

import functools
from typing import Any, Generic, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from ..._base.trees import serializable
from ..._base.typing import Array, Leaf


@serializable
class ComplexState(NamedTuple, Generic[Leaf]):
    """Complex numbers as two real arrays, cast and masked like other leaves.

    Attributes:
        real: The real part.
        imag: The imaginary part, with the same shape and dtype.
    """

    real: Leaf
    imag: Leaf


Element: TypeAlias = Any
"""`[..., units]`: a real array, or a `ComplexState`."""


def times(a: Element, h: Element) -> Element:
    """The element-wise product."""
    if isinstance(a, ComplexState):
        real = a.real * h.real - a.imag * h.imag
        return ComplexState(real, a.real * h.imag + a.imag * h.real)
    return a * h


def plus(x: Element, y: Element) -> Element:
    """The element-wise sum."""
    return jax.tree.map(jnp.add, x, y)


def one_like(a: Element) -> Element:
    """The number 1, with the structure of `a`."""
    return ComplexState(1, 0) if isinstance(a, ComplexState) else 1


def is_zero(state: Element) -> Array:
    """Returns a bool for each row: whether all units of its state are 0."""
    each = [jnp.all(x == 0, axis=-1) for x in jax.tree.leaves(state)]
    return functools.reduce(jnp.logical_and, each)
