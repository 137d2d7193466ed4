"""What is kept of a window of steps until its derivative is taken.

A keeper runs a window forward (`keep`) and, given what it kept, backward (`pull_back`).
Another way to trade memory for work is one more class here.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax.custom_derivatives import SymbolicZero

from .._autodiff.leaves import merge, split
from .._autodiff.transposable import dense, only_arrays
from .._base.typing import PyTree


@dataclasses.dataclass(frozen=True)
class Window:
    """A window of steps that starts from some state.

    Attributes:
        size: The number of steps.
        run: `run(moving) -> (floats, outs)`: of the outputs and the last state the
            floating parts, and all of it.
        moving: What derivatives are taken by.
        known: All arrays that are at hand going backward as well as forward: what the
            window reads, but for the state.
    """

    size: int
    run: Callable[[PyTree], tuple[PyTree, PyTree]]
    moving: PyTree
    known: list


class FirstState:
    """Keeps the state that a window starts from, and runs it again to go back."""

    def keep(self, at: Callable, state: list) -> tuple[PyTree, list]:
        """`(outs, kept)` of the window `at(state)`."""
        here = at(state)
        return here.run(here.moving)[1], state

    def pull_back(self, at: Callable, kept: list, cotangents: PyTree) -> PyTree:
        """The cotangents of what moves, from those of what `run` gave as floats."""
        here = at(kept)
        leaves = jax.tree.leaves(cotangents)
        # Nothing is made of outputs that nothing depends on: no window of zeros.
        wanted = [not isinstance(c, SymbolicZero) for c in leaves]

        def run(moving: PyTree) -> list:
            return split(jax.tree.leaves(here.run(moving)[0]), wanted)[1]

        _, pull_back = jax.vjp(run, here.moving)
        return pull_back(only_arrays(leaves))[0]


class Residuals:
    """Keeps all that the way back reads, and makes nothing again."""

    def __init__(self) -> None:
        self.made: dict[int, tuple[Any, list, list]] = {}

    def keep(self, at: Callable, state: list) -> tuple[PyTree, list]:
        """`(outs, kept)` of the window `at(state)`."""
        here = at(state)
        _, pull_back, outs = jax.vjp(here.run, here.moving, has_aux=True)
        leaves, tree = jax.tree.flatten(pull_back)
        place = {id(x): i for i, x in enumerate(here.known)}
        # What is at hand is not kept: parameters would be, once a window.
        is_kept = [id(leaf) not in place for leaf in leaves]
        rest, kept = split(leaves, is_kept)
        self.made[here.size] = tree, is_kept, [place[id(leaf)] for leaf in rest]
        return outs, kept

    def pull_back(self, at: Callable, kept: list, cotangents: PyTree) -> PyTree:
        """The cotangents of what moves, from those of what `run` gave as floats."""
        here = at(None)
        tree, is_kept, places = self.made[here.size]
        rest = [here.known[i] for i in places]
        return tree.unflatten(merge(rest, kept, is_kept))(dense(cotangents))[0]
