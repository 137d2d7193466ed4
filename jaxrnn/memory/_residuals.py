"""Residual policies: what is saved of a segment of steps for the backward pass.

A policy runs a segment forward (`save`) and, from what it saved, backward
(`pull_back`). Another way to trade memory for work is one more class here.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from .._autodiff.jax_internals import SymbolicZero
from .._autodiff.leaves import split
from .._autodiff.transposable import dense, only_arrays
from .._base.typing import PyTree


class SegmentRun(NamedTuple):
    """A segment of steps as a function.

    Attributes:
        from_state: `fn, perturbed = from_state(state)`, where `fn(perturbed)` gives the
            floating parts of the outputs and the last state, and all of them.
        at_hand: The arrays that it reads beside the state. The backward pass has them
            as well.
    """

    from_state: Callable[[list], tuple[Callable, PyTree]]
    at_hand: list


class SaveFirstState:
    """Saves the state before the segment, and runs the segment again."""

    @staticmethod
    def save(segment: SegmentRun, state: list) -> tuple[PyTree, Any]:
        """`(outputs, last state)` and the residuals."""
        fn, perturbed = segment.from_state(state)
        return fn(perturbed)[1], state

    @staticmethod
    def pull_back(segment: SegmentRun, residuals: Any, cotangents: PyTree) -> PyTree:
        """From cotangents of the floating parts to those of what is perturbed."""
        fn, perturbed = segment.from_state(residuals)
        leaves = jax.tree.leaves(cotangents)
        # Outputs on which nothing depends have no cotangent: no zeros are summed up.
        is_read = [not isinstance(c, SymbolicZero) for c in leaves]
        read = lambda values: split(jax.tree.leaves(fn(values)[0]), is_read)[1]
        return jax.vjp(read, perturbed)[1](only_arrays(leaves))[0]


class SaveResiduals:
    """Saves all that the backward pass reads, and computes nothing again."""

    @staticmethod
    def save(segment: SegmentRun, state: list) -> tuple[PyTree, Any]:
        """`(outputs, last state)` and the residuals."""
        fn, perturbed = segment.from_state(state)
        _, pull_back, outs = jax.vjp(fn, perturbed, has_aux=True)
        # Parameters and inputs would be saved once a segment otherwise.
        places = {id(x): _AtHand(i) for i, x in enumerate(segment.at_hand)}
        return outs, jax.tree.map(lambda x: places.get(id(x), x), pull_back)

    @staticmethod
    def pull_back(segment: SegmentRun, residuals: Any, cotangents: PyTree) -> PyTree:
        """From cotangents of the floating parts to those of what is perturbed."""
        is_place = lambda x: isinstance(x, _AtHand)
        fetch = lambda x: segment.at_hand[x.index] if is_place(x) else x
        pull_back = jax.tree.map(fetch, residuals, is_leaf=is_place)
        return pull_back(dense(cotangents))[0]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _AtHand:
    """In the place of a residual: its index in `SegmentRun.at_hand`."""

    index: int
