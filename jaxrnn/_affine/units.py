"""The share of an affine cell's units that a device has.

A device has the columns of every gate that belong to its units. What a product
multiplies is gathered from all devices, once a step; its gradient is scattered to them.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from .._autodiff.jax_internals import ClosedJaxpr, JaxprEqn
from .._base.math import widest_dtype
from .._base.typing import Array, DType, Params, PyTree
from .programs import ELEMENTWISE, by_unit, inlined, shape_of, without_sizes

_ELEMENTWISE = ELEMENTWISE | {"cbrt", "copy", "cosh", "erf", "erf_inv"}
_ELEMENTWISE |= {"erfc", "expm1", "sinh", "asinh", "atan", "atan2"}


class CellOfUnits:
    """An `AffineCell` inside of `shard_map`, with the units of one device.

    Args:
        cell: The whole cell.
        axis: The axes of the mesh that divide the units.
    """

    def __init__(self, cell: Any, axis: Any) -> None:
        self.cell, self.axis = cell, axis
        self.elementwise, self.join = cell.elementwise, cell.join
        self.product_params = cell.product_params

    def chain(
        self, product: Callable, params: Params, inputs: Array, state: PyTree
    ) -> tuple[PyTree, PyTree, list, list]:
        """As `AffineCell.chain`; each product reads the operands of all devices."""

        def product_of_all(
            k: int,
            stage: Any,
            params: Params,
            inputs: Any,
            operand: Array,
            dtype: DType,
        ) -> Array:
            return product(k, stage, params, inputs, self.whole(operand), dtype)

        return self.cell.chain(product_of_all, params, inputs, state)

    def whole(self, operand: Array) -> Array:
        """The operand of all devices, `[..., rows]`."""
        axis = operand.ndim - 1
        return jax.lax.all_gather(operand, self.axis, axis=axis, tiled=True)


def whole_operands(cell: Any, operands: list[Array]) -> list[Array]:
    """The operands of all devices, where the cell has the units of one."""
    is_share = isinstance(cell, CellOfUnits)
    return list(map(cell.whole, operands)) if is_share else operands


def columns_apart(cell: Any, params: Params, depth: int) -> Params:
    """The parameters, columns `[..., blocks, units]` in place of `[..., columns]`."""
    apart = lambda blocks, x: x.reshape(*x.shape[:-1], blocks, -1)
    return _map_products(apart, cell, params, depth)


def columns_joined(cell: Any, params: Params, depth: int) -> Params:
    """The inverse of `columns_apart`, also for a share of the units."""
    joined = lambda blocks, x: x.reshape(*x.shape[:-2], -1)
    return _map_products(joined, cell, params, depth)


def _map_products(fn: Callable, cell: Any, params: Params, depth: int) -> Params:
    pairs = zip(cell.stages, cell.product_params(params, depth), strict=True)
    products = [
        jax.tree.map(functools.partial(fn, stage.blocks), product)
        for stage, product in pairs
    ]
    return cell.join(products, cell.elementwise(params))


def why_not_divided(
    cell: Any, params: Params, state: PyTree, shares: int
) -> str | None:
    """Why the units cannot be divided into so many shares, or None if they can.

    They can if the updates compute each unit by itself, with the same operations for a
    share of the units; the programs of the updates tell.
    """
    stages = cell.stages
    if any(stage.blocks is None for stage in stages):
        return "a stage does not declare the `blocks` of its columns"
    units = {stage.columns // stage.blocks for stage in stages}
    units |= {stage.rows for stage in stages}
    vectors = jax.tree.leaves((state, cell.elementwise(params)))
    other = {x.shape[-1] for x in vectors if x.ndim} - units
    if other:
        return f"a state or an elementwise parameter has {min(other)} numbers"
    odd = next((n for n in sorted(units) if n % shares), None)
    if odd is not None:
        return f"{odd} units cannot be divided into {shares} shares of one size"
    return _why_not_by_unit(cell, params, state, shares)


def _why_not_by_unit(
    cell: Any, params: Params, state: PyTree, shares: int
) -> str | None:
    try:
        programs = [_updates(cell, params, state, n) for n in (1, shares)]
    except Exception:  # A cell's own code may raise anything.
        return "its updates fit the whole cell alone"
    (whole, whole_sizes), (share, sizes) = programs
    if list(without_sizes(whole.jaxpr)) != list(without_sizes(share.jaxpr)):
        return "its updates differ for a share of its units"
    consts = zip(whole.consts, share.consts, strict=True)
    if not all(_is_same_number(x, y) for x, y in consts):
        return "its updates hold arrays"
    if [n * shares for n in sizes] != whole_sizes:
        return "the sizes of its results are not those of its units"
    mixing = [e for e in whole.jaxpr.eqns if not _by_unit(e, cell.stages, 1)]
    mixing += [e for e in share.jaxpr.eqns if not _by_unit(e, cell.stages, shares)]
    if mixing:
        return f"its updates are not elementwise: `{mixing[0].primitive.name}`"
    return None


def _is_same_number(x: Any, y: Any) -> bool:
    x, y = np.asarray(x), np.asarray(y)
    return x.size == y.size == 1 and x.item() == y.item()


def _by_unit(eqn: JaxprEqn, stages: Any, shares: int) -> bool:
    """`by_unit`, where a split takes apart the blocks that a stage declares."""
    if eqn.primitive.name == "split":
        parts = eqn.params["sizes"]
        blocks = {(s.blocks, s.columns // s.blocks // shares) for s in stages}
        if (len(parts), parts[0]) not in blocks:
            return False
    return by_unit(eqn, _ELEMENTWISE)


def _updates(
    cell: Any, params: Params, state: PyTree, shares: int
) -> tuple[ClosedJaxpr, list[int]]:
    """The updates of a share of the units, and the sizes of their results."""
    dtype = widest_dtype(state)

    def of_share(x: Any) -> jax.ShapeDtypeStruct:
        if not x.ndim:
            return jax.ShapeDtypeStruct((), x.dtype)
        return jax.ShapeDtypeStruct((*x.shape[:-1], x.shape[-1] // shares), x.dtype)

    def updates(zs: list, elementwise: Params, state: PyTree) -> Any:
        product = lambda k, *_: zs[k]
        output, new_state, _, operands = cell.chain(product, elementwise, None, state)
        return output, new_state, operands

    rows = jax.tree.leaves(state)[0].shape[0]
    zs = [jax.ShapeDtypeStruct((rows, s.columns), dtype) for s in cell.stages]
    args = jax.tree.map(of_share, (zs, cell.elementwise(params), state))
    plain = functools.partial(inlined, updates)
    closed = jax.make_jaxpr(plain)(*args)
    return closed, [shape_of(x)[-1] for x in closed.jaxpr.outvars]
