"""Sizes filled up to powers of two, for a compiler that knows no others.

Units are filled up with zeros: their rows of the matrices are zeros too, so that no
other unit sees them. That holds for updates that treat units alike; the columns of a
product are filled up block by block.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, Var

from .._steps import Steps
from .._typing import Array, Params, PyTree
from ._rewrite import rewritten
from ._rule import KernelRule, first_step
from ._step import step_types
from ._work import Work

# What is done to each number by itself, or to whole blocks of columns.
_ALIKE = frozenset(
    """
    abs add and broadcast_in_dim cbrt ceil clamp convert_element_type cos cosh div eq
    erf_inv exp exp2 expm1 floor ge gt integer_pow is_finite le log log1p logistic lt
    max min mul ne neg not or pow rem rsqrt select_n sign sin sinh split sqrt square
    stop_gradient sub tan tanh xor
    """.split()
)
HOLD_ON = "its updates work at their true sizes alone: they cut to a number, say"
# The least that a product of matrices has of rows and columns.
LEAST = 16


class FillingRule(KernelRule):
    """As `KernelRule`, with all sizes filled up."""

    def around(
        self, run: Callable, params: Params, xs: Array, state: PyTree, steps: Steps
    ) -> Any:
        """`run(params, xs, state, steps)` of filled sizes, with results of the true."""
        inputs = first_step(xs, steps)
        # The interpreter takes any sizes.
        if why_unfilled(Work.of(self.cell, params, steps.time, inputs, state)):
            return run(params, xs, state, steps)
        types, _ = jax.eval_shape(self.types, params, inputs, state)
        wide = self._filled(params, inputs.shape[-1]), xs, jax.tree.map(_filled, state)
        if steps.first is not None:
            inputs, first = steps.first
            first = inputs, jax.tree.map(_filled, first)
            steps = dataclasses.replace(steps, first=first)
        outputs, final = run(*wide, steps)
        cut = lambda x, like: x[..., : like.shape[-1]]
        return jax.tree.map(cut, outputs, types), jax.tree.map(cut, final, state)

    def _filled(self, params: Params, depth: int) -> Params:
        pairs = zip(self.cell.parts(params, depth), self.cell.stages, strict=True)
        parts = [_filled_part(part, stage.blocks or 1) for part, stage in pairs]
        return self.cell.join(
            parts, jax.tree.map(_filled, self.cell.elementwise(params))
        )


def filled(work: Work) -> Work:
    """The work with all sizes filled up."""
    pairs = zip(work.matrices, work.cell.stages, strict=True)
    columns = [_columns(c, stage.blocks or 1) for (_, c), stage in pairs]
    return dataclasses.replace(
        work,
        matrices=tuple(
            (_size(rows) if rows else 0, c)
            for (rows, _), c in zip(work.matrices, columns, strict=True)
        ),
        shares=tuple(c if n else 0 for n, c in zip(work.shares, columns, strict=True)),
        state=tuple((_size(n), dtype) for n, dtype in work.state),
        outputs=tuple((_size(n), dtype) for n, dtype in work.outputs),
        small=tuple(map(_size, work.small)),
    )


def why_unfilled(work: Work) -> str | None:
    """Why the sizes cannot be filled up, if they would have to be and cannot."""
    wide = filled(work)
    if wide == work:
        return None
    if any(stage.blocks is None for stage in work.cell.stages):
        return "a stage does not say of how many `blocks` its columns are"
    if {1} < _sizes(work):
        return "what is of size 1 may be meant for all units"
    updates = functools.partial(_updates, work.cell)
    try:
        _, _, small, zs, state, output, _ = step_types(wide, LEAST)[1]
        operands, *made = jax.eval_shape(updates, zs, small, state)
    except (TypeError, ValueError):  # A state is split at its size, say.
        return HOLD_ON
    sizes = [operand.shape[-1] for operand in operands]
    shapes = lambda tree: [x.shape for x in jax.tree.leaves(tree)]
    if sizes != [n for n, _ in wide.matrices if n] or shapes(made) != shapes(
        (output, state)
    ):
        return HOLD_ON
    closed = jax.make_jaxpr(functools.partial(rewritten, updates))(zs, small, state)
    blocks = [stage.blocks for stage in work.cell.stages]
    odd = _unlike(closed.jaxpr, blocks + [None] * (len(closed.in_avals) - len(blocks)))
    return odd and f"its updates do not treat units alike: {odd}"


def _sizes(work: Work) -> set[int]:
    """The sizes of what is used elementwise."""
    pairs = zip(work.matrices, work.cell.stages, strict=True)
    blocks = {columns // (stage.blocks or 1) for (_, columns), stage in pairs}
    return blocks | {n for n, _ in work.state} | {*work.small}


def _unlike(jaxpr: Jaxpr, blocks: list[int | None]) -> str | None:
    """What of the updates does not treat units alike, if anything.

    What is of several blocks may be split into them, and be mixed with nothing before.

    Args:
        jaxpr: The updates.
        blocks: Of how many blocks each argument is; None or 1 for what is no more.
    """
    counts = [n if n and n > 1 else None for n in blocks]
    made_of = dict(zip(jaxpr.invars, counts, strict=True))
    for eqn in jaxpr.eqns:
        name, read = eqn.primitive.name, [v for v in eqn.invars if isinstance(v, Var)]
        origins = {made_of.get(v) for v in read}
        parts = len(eqn.params["sizes"]) if name == "split" else None
        if name not in _ALIKE or len(origins) > 1 or (parts and origins != {parts}):
            return f"`{name}`"
        made_of |= dict.fromkeys(
            eqn.outvars, None if parts else next(iter(origins), None)
        )
    is_whole = lambda v: isinstance(v, Var) and made_of.get(v) is not None
    if any(map(is_whole, jaxpr.outvars)):
        return "a product is not split into its `blocks`"
    return None


def _updates(cell: Any, zs: list, small: Params, state: PyTree) -> Any:
    """A step without its products: what goes into them, the output and the state."""
    output, after, _, operands = cell.chain(lambda k, *_: zs[k], small, None, state)
    return [x for x in operands if x.size], output, after


def _filled_part(part: Params, blocks: int) -> Params:
    """The parameters of a stage's product."""
    part = jax.tree.map(lambda x: _filled(x, blocks), part)
    return part | {"state": _filled(part["state"].T).T}


def _filled(x: Array, blocks: int = 1) -> Array:
    """Zeros at the end of each block of the last axis."""
    *outer, n = x.shape
    if not n or _columns(n, blocks) == n:
        return x
    missing = _size(n // blocks) - n // blocks
    apart = x.reshape(*outer, blocks, n // blocks)
    wide = jnp.pad(apart, [(0, 0)] * (len(outer) + 1) + [(0, missing)])
    return wide.reshape(*outer, _columns(n, blocks))


def _columns(n: int, blocks: int) -> int:
    return blocks * _size(n // blocks)


def _size(n: int) -> int:
    """The power of two from n on."""
    return max(LEAST, 1 << (n - 1).bit_length())
