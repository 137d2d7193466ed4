"""Sizes filled up to powers of two, for a compiler that knows no others.

Units are filled up with copies of the last, which are as finite as it is; their rows of
the matrices are zeros, so that no other unit sees them. That holds for updates that
treat units alike; the columns of a product are filled up block by block.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._autodiff.jax_internals import JaxprEqn, Literal
from .._base.typing import Array, Params, PyTree
from .._time.steps import Steps
from .kernel_loop import first_step, step_results
from .rewrite import rewritten
from .step import step_types
from .work import Work

# What is done to each number by itself, or to whole blocks of columns.
ALIKE = frozenset(
    """
    abs add and broadcast_in_dim cbrt ceil clamp convert_element_type cos cosh div eq
    erf_inv exp exp2 expm1 floor ge gt integer_pow is_finite le log log1p logistic lt
    max min mul ne neg not or pow rem rsqrt select_n sign sin sinh split sqrt square
    stop_gradient sub tan tanh xor
    """.split()
)
# What the derivatives of these are made of beside: blocks are put together again.
_TRANSPOSED = frozenset(["add_any", "reshape", "squeeze", "stack", "transpose"])
# The least that a product of matrices has of rows and columns.
LEAST = 16


def run_padded(
    run: Callable, cell: Any, params: Params, xs: Array, state: PyTree, steps: Steps
) -> tuple[PyTree, PyTree]:
    """`run(params, xs, state, steps)` of padded sizes, cut to the true sizes.

    Args:
        run: Returns `(outputs, state)`.
        cell: An `AffineCell`.
        params: Its parameters.
        xs: Inputs, `[batch, time, depth]` or `[time, batch, depth]`.
        state: The initial state, each leaf `[batch, size]`.
        steps: Which steps there are.
    """
    inputs = first_step(xs, steps)
    output, _ = step_results(cell, params, inputs, state)
    if steps.stand_in is not None:
        inputs, units = steps.stand_in
        steps = dataclasses.replace(
            steps, stand_in=(inputs, jax.tree.map(_filled, units))
        )
    params = _filled_params(cell, params, xs.shape[-1])
    outputs, last = run(params, xs, jax.tree.map(_filled, state), steps)
    cut = lambda x, true: x[..., : true.shape[-1]]
    return jax.tree.map(cut, outputs, output), jax.tree.map(cut, last, state)


def _filled_params(cell: Any, params: Params, depth: int) -> Params:
    pairs = zip(cell.product_params(params, depth), cell.stages, strict=True)
    products = [_filled_part(product, stage.blocks or 1) for product, stage in pairs]
    return cell.join(products, jax.tree.map(_filled, cell.elementwise(params)))


def filled(work: Work, size: Callable[[int], int] | None = None) -> Work:
    """The work with all sizes filled up, or others in their place."""
    size = size or _size
    pairs = zip(work.matrices, work.cell.stages, strict=True)
    blocks = [(c, stage.blocks or 1) for (_, c), stage in pairs]
    columns = [size(c // count) * count for c, count in blocks]
    return dataclasses.replace(
        work,
        matrices=tuple(
            (size(rows) if rows else 0, c)
            for (rows, _), c in zip(work.matrices, columns, strict=True)
        ),
        shares=tuple(c if n else 0 for n, c in zip(work.shares, columns, strict=True)),
        state=tuple((size(n), dtype) for n, dtype in work.state),
        outputs=tuple((size(n), dtype) for n, dtype in work.outputs),
        small=tuple(map(size, work.small)),
    )


def why_unfilled(work: Work) -> str | None:
    """Why the sizes cannot be filled up, if they would have to be and cannot."""
    wide = filled(work)
    if wide == work:
        return None
    if any(stage.blocks is None for stage in work.cell.stages):
        return "a stage does not say of how many `blocks` its columns are"
    # Sizes that differ do so after this, and none is a multiple of another's blocks.
    programs = [_programs(work, size) for size in (lambda n: n, lambda n: 2 * n + 65)]
    if programs[0] is None or programs[0] != programs[1]:
        return "its updates, or its `blocks`, go with these sizes alone"
    (ahead, back), _ = programs
    odd = next(filter(None, map(_unlike, ahead)), None)
    odd = odd or next(
        (n for n in map(_unlike, back) if n and n not in _TRANSPOSED), None
    )
    return odd and f"its updates do not treat units alike: `{odd}`"


def _programs(work: Work, size: Callable[[int], int]) -> Any:
    """The operations of the updates of such sizes, and of their derivative.

    None if they cannot be made, or if what they make is not of those sizes.
    """
    wide, updates = filled(work, size), functools.partial(_updates, work.cell)

    def back(given: Any, cotangents: Any) -> Any:
        return jax.vjp(updates, *given)[1](cotangents)

    try:
        _, _, small, zs, state, *_ = step_types(wide, LEAST)[1]
        made = jax.eval_shape(updates, zs, small, state)
        ahead = jax.make_jaxpr(functools.partial(rewritten, updates))(zs, small, state)
        behind = jax.make_jaxpr(functools.partial(rewritten, back))(
            (zs, small, state), made
        )
    except Exception:  # A cell's own code may raise anything.
        return None
    sizes = lambda tree: [x.shape[-1] for x in jax.tree.leaves(tree)]
    outputs = [n for n, _ in wide.outputs]
    operands = [n for n, _ in wide.matrices if n]
    if [*map(sizes, made)] != [operands, outputs, sizes(state)]:
        return None
    return [[_operation(eqn) for eqn in p.jaxpr.eqns] for p in (ahead, behind)]


def _operation(eqn: JaxprEqn) -> tuple:
    """What it is, with the numbers that it reads, and the axes that it sums over."""
    numbers = [repr(v.val) if isinstance(v, Literal) else "" for v in eqn.invars]
    return eqn.primitive.name, numbers, eqn.params.get("axes")


def _unlike(operation: tuple) -> str | None:
    """Its name, if it does not treat units alike."""
    name, _, axes = operation
    over_rows = name == "reduce_sum" and axes == (0,)
    return None if name in ALIKE or over_rows else name


def _updates(cell: Any, zs: list, small: Params, state: PyTree) -> Any:
    """A step without its products: what goes into them, the output and the state."""
    output, after, _, operands = cell.chain(lambda k, *_: zs[k], small, None, state)
    return [x for x in operands if x.size], output, after


def _filled_part(part: Params, blocks: int) -> Params:
    """The parameters of a stage's product."""
    part = jax.tree.map(lambda x: _filled(x, blocks), part)
    return part | {"state": _filled(part["state"].T, mode="constant").T}


def _filled(x: Array, blocks: int = 1, mode: str = "edge") -> Array:
    """The last number, or zeros, at the end of each block of the last axis."""
    *outer, n = x.shape
    if not n or _columns(n, blocks) == n:
        return x
    missing = _size(n // blocks) - n // blocks
    apart = x.reshape(*outer, blocks, n // blocks)
    wide = jnp.pad(apart, [(0, 0)] * (len(outer) + 1) + [(0, missing)], mode)
    return wide.reshape(*outer, _columns(n, blocks))


def _columns(n: int, blocks: int) -> int:
    return blocks * _size(n // blocks)


def _size(n: int) -> int:
    """The power of two from n on."""
    return max(LEAST, 1 << (n - 1).bit_length())
