"""What a linear recurrence multiplies: real numbers, or pairs that are complex."""

from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from .._base.math import at_least_float32
from .._base.serialization import serializable


@serializable
class ComplexState(NamedTuple):
    """Complex numbers as two real arrays, which drivers, casts and masks treat alike.

    Attributes:
        real: The real part.
        imag: The imaginary part, of the same shape and dtype.
    """

    real: Any
    imag: Any


Element: TypeAlias = Any
"""`[..., units]`: a real array, or a `ComplexState`."""


def times(a: Element, h: Element) -> Element:
    """The product of each unit."""
    if isinstance(a, ComplexState) and isinstance(h, ComplexState):
        real = a.real * h.real - a.imag * h.imag
        return ComplexState(real, a.real * h.imag + a.imag * h.real)
    return a * h


def plus(x: Element, y: Element) -> Element:
    """The sum of each unit."""
    return jax.tree.map(jnp.add, x, y)


def conjugate(a: Element) -> Element:
    """The complex conjugate; a real number is its own."""
    return ComplexState(a.real, -a.imag) if isinstance(a, ComplexState) else a


def one_of(a: Element) -> Any:
    """The number 1, of the structure of `a`."""
    return ComplexState(1, 0) if isinstance(a, ComplexState) else 1


def wide(h: Element) -> Element:
    """The same numbers in at least float32, in which recurrences are computed."""
    return jax.tree.map(lambda x: x.astype(at_least_float32(x.dtype)), h)


def cast_like(like: Element, h: Element) -> Element:
    """The same numbers in the dtypes of `like`."""
    return jax.tree.map(lambda x, y: y.astype(x.dtype), like, h)
