"""Sizes padded to powers of two, for Triton, which accepts no others.

Units are padded with copies of the last one, which are finite if it is. The rows of the
matrices that belong to copies are zeros, so that no other unit reads them. The columns
of a product are padded block by block.

That is exact for updates that compute each unit by itself, with the same operations at
any size. Both conditions are checked on the programs of the updates and of their
derivatives; the sizes of other cells are not padded.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._affine.programs import ELEMENTWISE, by_unit, inlined, shape_of, without_sizes
from .._autodiff.jax_internals import Jaxpr, JaxprEqn
from .._base.typing import Array, Params, PyTree
from .._time.steps import Steps
from .kernel_loop import step_input_type
from .step import step_types
from .work import Work, step_result_types

# Triton multiplies matrices of at least so many rows and columns.
SMALLEST = 16
# Pallas lowers more elementwise operations for Triton than for both platforms.
TRITON_ELEMENTWISE = ELEMENTWISE | {"cbrt", "cosh", "erf_inv", "expm1", "sinh"}
_FIXED_SIZES = "its updates, or its `blocks`, fit these sizes alone"


def run_padded(
    run: Callable, cell: Any, params: Params, xs: Array, state: PyTree, steps: Steps
) -> tuple[PyTree, PyTree]:
    """`run(params, xs, state, steps)` with padded sizes, cut to the true sizes.

    Args:
        run: Returns `(outputs, state)`.
        cell: An `AffineCell`.
        params: Its parameters.
        xs: Inputs, `[batch, time, depth]` or `[time, batch, depth]`.
        state: The initial state, each leaf `[batch, size]`.
        steps: Which steps there are.
    """
    output, _ = step_result_types(cell, params, step_input_type(xs, steps), state)
    if steps.stand_in is not None:
        inputs, units = steps.stand_in
        steps = dataclasses.replace(steps, stand_in=(inputs, pad_units(units)))
    params = pad_params(cell, params, xs.shape[-1])
    outputs, last = run(params, xs, pad_units(state), steps)
    cut = lambda x, true: x[..., : true.shape[-1]]
    return jax.tree.map(cut, outputs, output), jax.tree.map(cut, last, state)


def power_of_two(n: int) -> int:
    """The least power of two that is at least `n` and `SMALLEST`; 0 for 0."""
    return n and max(SMALLEST, 1 << (n - 1).bit_length())


def pad_params(cell: Any, params: Params, depth: int) -> Params:
    """Parameters of an `AffineCell` with padded units, for inputs of size `depth`."""
    pairs = zip(cell.product_params(params, depth), cell.stages, strict=True)
    products = [_pad_product(product, stage.blocks or 1) for product, stage in pairs]
    return cell.join(products, pad_units(cell.elementwise(params)))


def pad_units(tree: PyTree) -> PyTree:
    """Leaves `[..., units]` with padded units."""
    return jax.tree.map(_pad, tree)


def padded(work: Work, size: Callable[[int], int] = power_of_two) -> Work:
    """The work with each size n of units replaced by `size(n)`."""
    pairs = zip(work.matrices, work.cell.stages, strict=True)
    blocks = [(c, stage.blocks or 1) for (_, c), stage in pairs]
    columns = [size(c // count) * count for c, count in blocks]
    rows = [size(r) for r, _ in work.matrices]
    return dataclasses.replace(
        work,
        matrices=tuple(zip(rows, columns, strict=True)),
        input_columns=tuple(
            c if n else 0 for n, c in zip(work.input_columns, columns, strict=True)
        ),
        state=tuple((size(n), dtype) for n, dtype in work.state),
        outputs=tuple((size(n), dtype) for n, dtype in work.outputs),
        elementwise=tuple(map(size, work.elementwise)),
    )


def why_not_padded(work: Work) -> str | None:
    """Why the sizes cannot be padded, or None if they can or need not be."""
    if padded(work) == work:
        return None
    if any(stage.blocks is None for stage in work.cell.stages):
        return "a stage does not declare the `blocks` of its columns"
    # Of the last sizes, those are equal that are equal at the true sizes, and not those
    # that only powers of two make equal. What is split into equal parts both at powers
    # of two and at odd sizes is split into whole blocks.
    sizes = (lambda n: n, power_of_two, lambda n: n and 2 * n + 65)
    try:
        programs = [_program(work, size) for size in sizes]
    except Exception:  # A cell's own code may raise anything.
        return _FIXED_SIZES
    true, *others = (list(without_sizes(program)) for program in programs)
    if any(other != true for other in others):
        return _FIXED_SIZES
    not_elementwise = next((e for e in programs[-1].eqns if not _by_unit(e)), None)
    return (
        not_elementwise
        and f"its updates are not elementwise: `{not_elementwise.primitive.name}`"
    )


def _program(work: Work, size: Callable[[int], int]) -> Jaxpr:
    """The updates and their derivative in one program, with sizes changed by `size`.

    Raises:
        ValueError: If their results are not of those sizes, or they hold arrays.
    """
    wide, updates = padded(work, size), functools.partial(_updates, work.cell)

    def both(*operands: Any) -> Any:
        results, pull_back = jax.vjp(updates, *operands)
        return updates(*operands), pull_back(results)

    _, _, elementwise, zs, state, *_ = step_types(wide, SMALLEST)[1]
    plain = functools.partial(inlined, both, join=False)
    program, types = jax.make_jaxpr(plain, return_shape=True)(zs, elementwise, state)
    sizes = lambda tree: [x.shape[-1] for x in jax.tree.leaves(tree)]
    operands, outputs = [n for n, _ in wide.matrices if n], [n for n, _ in wide.outputs]
    if program.consts or [*map(sizes, types[0])] != [operands, outputs, sizes(state)]:
        raise ValueError(_FIXED_SIZES)
    return program.jaxpr


def _updates(cell: Any, zs: list, elementwise: Params, state: PyTree) -> Any:
    """A step without its products: the operands, the output and the new state."""
    output, after, _, operands = cell.chain(
        lambda k, *_: zs[k], elementwise, None, state
    )
    return [x for x in operands if x.size], output, after


def _by_unit(eqn: JaxprEqn) -> bool:
    """Whether it computes each unit by itself, moves whole blocks, or sums rows."""
    name, shapes = eqn.primitive.name, [shape_of(x) for x in eqn.invars]
    if name == "reduce_sum":
        return eqn.params["axes"] == (0,) and shapes[0][0] in (1, SMALLEST)
    if name == "concatenate":
        return len(set(shapes)) == 1
    return by_unit(eqn, TRITON_ELEMENTWISE)


def _pad_product(params: Params, blocks: int) -> Params:
    """The parameters of a stage's product, with padded columns and padded rows."""
    params = jax.tree.map(lambda x: _pad(x, blocks), params)
    return params | {"state": _pad(params["state"].T, mode="constant").T}


def _pad(x: Array, blocks: int = 1, mode: str = "edge") -> Array:
    """Copies of the last number, or zeros, after each block of the last axis."""
    *outer, n = x.shape
    missing = power_of_two(n // blocks) - n // blocks
    if not missing:
        return x
    apart = x.reshape(*outer, blocks, n // blocks)
    wide = jnp.pad(apart, [(0, 0)] * (len(outer) + 1) + [(0, missing)], mode)
    return wide.reshape(*outer, n + blocks * missing)
