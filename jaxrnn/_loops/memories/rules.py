"""A table that maps each rule of a matrix memory to functions over many steps."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from ..._base.arguments import is_list_of
from ..._base.errors import expect
from ..._base.inputs import check_like
from ..._base.typing import Array, PyTree
from ..._cells.matrix.rule import MatrixRule
from ..._run.loops import inherited_entry


class RuleLoops(NamedTuple):
    """The functions `chunk(rule, chunk)` and `transition(rule)`; see `MatrixRule`."""

    chunk: Callable
    transition: Callable


_RULES: dict[type, RuleLoops] = {}


def register_rule(kind: type, chunk: Callable, transition: Callable) -> None:
    """Registers functions for a rule, and for subclasses that inherit its step."""
    _RULES[kind] = RuleLoops(chunk, transition)


def chunk_of(rule: MatrixRule) -> Callable | None:
    """The rule's own method `chunk`, or the registered function, or None."""
    if rule.chunk is not None:
        return rule.chunk
    found = inherited_entry(_RULES, type(rule), ("step",))
    return found and functools.partial(found.chunk, rule)


def transition_of_rule(rule: MatrixRule) -> Any:
    """The rule's registered `transition`, or the result of its method, or None."""
    found = None if rule.chunk else inherited_entry(_RULES, type(rule), ("step",))
    return found.transition(rule) if found else rule.transition()


def as_chunk_results(
    rule: object, results: PyTree, chunk: Any, step: Callable
) -> tuple[Array, PyTree]:
    """Checks the results `(h, states)` of a rule's `chunk`, and returns them.

    The results of `step` determine the expected structure, shapes and dtypes.

    Args:
        rule: The `MatrixRule`.
        results: The results of the rule's `chunk`.
        chunk: The `Chunk` for which the rule was called.
        step: Runs one step; see `MatrixRule.step`.

    Raises:
        ValueError: If the structure or a shape differs.
        TypeError: If a dtype differs.
    """
    one = jax.tree.map(lambda x: x[:, :, 0], (chunk.values, chunk.state))
    of_step = jax.eval_shape(step, *one)
    time = jax.tree.leaves(chunk.values)[0].shape[2]

    def with_time(size: int, tree: PyTree) -> PyTree:
        shape = lambda x: (*x.shape[:2], size, *x.shape[2:])
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(shape(x), x.dtype), tree)

    h, state = of_step
    wanted = with_time(time, h), with_time(time if chunk.returns_states else 1, state)
    name = type(rule).__name__
    fix = f"The results must match `{name}.step` at all steps; see `MatrixRule.chunk`."
    expect(is_list_of(results, 2), "chunk", "return a pair (h, states)", results, fix)
    for result, got, want in zip(("h", "states"), results, wanted, strict=True):
        check_like(result, got, want, strict=False, fix=fix)
    return results
