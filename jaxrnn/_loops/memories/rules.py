"""The table of the functions that run a rule of a matrix memory for many steps."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from ..._cells.matrix.rule import MatrixRule
from ..._run.loops import inherited_entry


class RuleLoops(NamedTuple):
    """`chunk(rule, chunk)` and `transition(rule)`; see `MatrixRule`."""

    chunk: Callable
    transition: Callable


_RULES: dict[type, RuleLoops] = {}


def register_rule(kind: type, chunk: Callable, transition: Callable) -> None:
    """Registers the functions of a class of rules and of subclasses with its step."""
    _RULES[kind] = RuleLoops(chunk, transition)


def chunk_of(rule: MatrixRule) -> Callable | None:
    """The rule's own method `chunk`, or the registered function, or None."""
    if rule.chunk is not None:
        return rule.chunk
    found = inherited_entry(_RULES, type(rule), ("step",))
    return found and functools.partial(found.chunk, rule)


def transition_of_rule(rule: MatrixRule) -> Any:
    """What `MatrixRule.transition` returns, or None."""
    found = None if rule.chunk else inherited_entry(_RULES, type(rule), ("step",))
    return found.transition(rule) if found else rule.transition()
