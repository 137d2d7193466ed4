"""Recurrences by hand, for the cells that only jaxrnn has, with their parameters.

`Case.run` is "scan" (`lax.scan` of the cell's step), "associative" (the coefficients
of all steps, then `lax.associative_scan`) or "chunked" (`chunks.py`).
"""

import functools
from typing import Any

import jax

from jaxrnn._cells.linear.element import plus, times

from ..built import LeftOutError, Variants
from ..cases import LINEAR, MATRICES, Case
from ..data import Data
from . import _jax, chunks
from .jaxrnn import make_cell, make_net

USES = ("jax", "jaxlib")

PyTree = Any


def build(case: Case, data: Data) -> Variants:
    """The program for a case without lengths."""
    run, cells = RUNS[case.run]
    if case.cell not in cells:
        raise LeftOutError(f"only for {', '.join(cells)}")
    if data.lengths is not None:
        raise LeftOutError("written without lengths")
    of_cell = functools.partial(run, make_cell(case))
    net = make_net(case, data, lambda *args: of_cell(*args[:3]))
    return _jax.build(case, data, {"": net})


def scan(
    cell: Any, params: PyTree, inputs: jax.Array, state: PyTree
) -> tuple[jax.Array, PyTree]:
    """A loop over the steps of inputs `[T, B, D]`."""
    step = lambda state, x: cell.apply(params, x, state)[::-1]
    state, outputs = jax.lax.scan(step, state, inputs)
    return outputs, state


def associative(
    cell: Any, params: PyTree, inputs: jax.Array, state: PyTree
) -> tuple[jax.Array, PyTree]:
    """A linear recurrence with all steps in parallel, for inputs `[T, B, D]`."""
    a, b, first, rest = jax.vmap(lambda x: cell.terms(params, x, state))(inputs)
    if first is not None:  # The first step starts from zeros.
        b = b.at[0].set(first[0])
    products, sums = jax.lax.associative_scan(in_order, (a, b))
    states = plus(times(products, state), sums)
    output = lambda h, rest: cell.output(params, h, rest).astype(inputs.dtype)
    return jax.vmap(output)(states, rest), jax.tree.map(lambda x: x[-1], states)


def in_order(first: tuple, second: tuple) -> tuple:
    """The factor and the addend of two steps, of which one follows the other."""
    (a, b), (a_after, b_after) = first, second
    return times(a_after, a), plus(times(a_after, b), b_after)


RUNS = {
    "scan": (scan, LINEAR + MATRICES),
    "associative": (associative, LINEAR),
    "chunked": (chunks.run, ("mlstm",)),
}
