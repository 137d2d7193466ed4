"""Chooses the loops of linear recurrences, and computes the maps of several steps."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ..._base.math import cast_like
from ..._base.typing import Array, Params, PyTree
from ..._cells.linear.cell import LinearRecurrenceCell, Terms
from ..._cells.linear.element import Element, is_zero, one_like, plus, times
from ..._cells.linear.selective_scan import S6MemoryCell
from ..._run import masking
from ..._run.loops import Loops, register
from ..._run.run import Choice, Run
from ..divided_time import DividedTime, Transition
from ..many_steps import choose_many_steps, scanned_without_derivatives
from .chunks import RecurrenceLoop


def choose(cell: LinearRecurrenceCell, params: Params, run: Run) -> Choice:
    """Chooses a loop over chunks of steps."""
    loop = RecurrenceLoop(cell.terms, cell.output)
    return choose_many_steps("chunks", cell, loop.run, run)


def choose_s6(cell: S6MemoryCell, params: Params, run: Run) -> Choice:
    """Chooses chunks or, in calls that are not differentiated, a scan on a CPU.

    With N states per channel, the decays and terms of a step have N times as many
    numbers as the step's inputs. A chunk writes these numbers to memory, but a step of
    a scan uses the numbers immediately.
    """
    choice = choose(cell, params, run)
    return scanned_without_derivatives(choice, cell, cast_like, run)


def transition(cell: LinearRecurrenceCell) -> Transition:
    """Returns the functions of the cell's state map; see `Transition`.

    The map of several steps is `A h + B` for a state h. It is represented as a state
    with the units `[A, B]`. A step multiplies A and B by its factor a, and adds its
    term b to B. If the cell has `term_from_zeros`, the map also contains the state to
    which it maps zeros.
    """
    count = 1 if cell.term_from_zeros is None else 2
    zeros_like = functools.partial(jax.tree.map, jnp.zeros_like)

    def identity(state: Element) -> PyTree:
        one = jax.tree.map(jnp.full_like, state, one_like(state))
        zeros = zeros_like(state)
        return (_joined(one, zeros), zeros)[:count]

    def constant(state: Element) -> PyTree:
        return (_joined(zeros_like(state), state), state)[:count]

    def terms_of_units(params: Params, inputs: Array, units: Element) -> Terms:
        a, b, _, _ = cell.terms(params, inputs, _split(units)[0])
        return _joined(a, a), _joined(zeros_like(b), b), None, None

    def map_of_steps(params: Params, run: Run) -> PyTree:
        def last(terms: Callable, start: Element, states: PyTree) -> Element:
            own = run.replace(state=start, reset_state=states)
            return RecurrenceLoop(terms, lambda *_: None).run(params, own)[1]

        states = run.reset_state or (None, None)
        return tuple(map(last, (terms_of_units, cell.terms), run.state, states))

    def map_state(state_map: PyTree, state: Element) -> Element:
        a, b = _split(state_map[0])
        for from_zeros in state_map[1:]:
            b = masking.select(is_zero(state), from_zeros, b)
        return plus(times(a, state), b)

    return Transition(map_of_steps, identity, constant, map_state, cast_like)


def _joined(a: Element, b: Element) -> Element:
    """Concatenates the units of a and b."""
    return jax.tree.map(lambda *x: jnp.concatenate(x, axis=-1), a, b)


def _split(units: Element) -> list[Element]:
    """Splits the result of `_joined` into a and b."""
    halves = jax.tree.map(lambda x: jnp.split(x, 2, axis=-1), units)
    return jax.tree.transpose(jax.tree.structure(units), None, halves)


register(LinearRecurrenceCell, Loops(choose, DividedTime(transition)))
register(S6MemoryCell, Loops(choose_s6, DividedTime(transition)))
