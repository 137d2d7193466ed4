"""The share of an affine cell's units that a device has.

A device has the columns of every gate that belong to its units. What a product
multiplies is gathered from all devices, once a step; its gradient is scattered to them.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax

from .._base.typing import Array, DType, Params, PyTree


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
            k: int, stage: Any, params: Params, inputs: Any, operand: Array, dtype: DType
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
    """Why the units cannot be divided into so many shares, or None if they can."""
    if any(stage.blocks is None for stage in cell.stages):
        return "a stage does not declare the `blocks` of its columns"
    sizes = [stage.columns // stage.blocks for stage in cell.stages]
    sizes += [stage.rows for stage in cell.stages]
    sizes += [leaf.shape[-1] for leaf in jax.tree.leaves((state, cell.elementwise(params)))]
    odd = next((size for size in sizes if size % shares), None)
    if odd is not None:
        return f"{odd} units cannot be divided into {shares} shares of one size"
    return None
