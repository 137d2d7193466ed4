"""The numbers of a linear recurrence: real, or complex as pairs of real arrays."""

from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from .._base.serialization import serializable


@serializable
class ComplexState(NamedTuple):
    """Complex numbers as two real arrays, which drivers cast and mask as any others.

    Attributes:
        real: The real part.
        imag: The imaginary part, of the same shape and dtype.
    """

    real: Any
    imag: Any


Element: TypeAlias = Any
"""`[..., units]`: a real array, or a `ComplexState`."""


def times(a: Element, h: Element) -> Element:
    """The product, unit by unit."""
    if isinstance(a, ComplexState):
        real = a.real * h.real - a.imag * h.imag
        return ComplexState(real, a.real * h.imag + a.imag * h.real)
    return a * h


def plus(x: Element, y: Element) -> Element:
    """The sum, unit by unit."""
    return jax.tree.map(jnp.add, x, y)


def one_like(a: Element) -> Any:
    """The number 1 in the structure of `a`."""
    return ComplexState(1, 0) if isinstance(a, ComplexState) else 1


def cast_like(like: Element, h: Element) -> Element:
    """The same numbers in the dtypes of `like`."""
    return jax.tree.map(lambda x, y: y.astype(x.dtype), like, h)
