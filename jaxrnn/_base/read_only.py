"""Parts of a state that steps read but never change, such as an attention memory.

A driver keeps read-only parts outside its loop's carry. They are therefore neither
masked nor saved for each step, and beam search neither repeats nor reorders them. A
driver returns read-only parts as they were passed, regardless of what `RNNCell.start`
computes from them for the run.
"""

import dataclasses

import jax

from .typing import PyTree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ReadOnly:
    """A part of a state that no step changes."""

    value: PyTree


def is_read_only(x: object) -> bool:
    """Whether x is a part of a state that no step changes."""
    return isinstance(x, ReadOnly)


def without_read_only(state: PyTree) -> PyTree:
    """Empties the read-only parts of the state."""

    def empty(x: PyTree) -> PyTree:
        return ReadOnly(()) if is_read_only(x) else x

    return jax.tree.map(empty, state, is_leaf=is_read_only)


def with_read_only(state: PyTree, source: PyTree) -> PyTree:
    """Fills in the read-only parts of `source`, a state of the same structure."""
    parts = iter([x for x in _leaves(source) if is_read_only(x)])

    def pick(x: PyTree) -> PyTree:
        return next(parts) if is_read_only(x) else x

    return jax.tree.map(pick, state, is_leaf=is_read_only)


def has_read_only(state: PyTree) -> bool:
    """Whether the state has read-only parts."""
    return any(map(is_read_only, _leaves(state)))


def _leaves(state: PyTree) -> list:
    return jax.tree.leaves(state, is_leaf=is_read_only)
