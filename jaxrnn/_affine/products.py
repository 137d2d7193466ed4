"""The products of affine cells: for one step, and for many steps at once.

The parameters of a stage's product are `{"state": [rows, columns], "inputs": [depth,
columns], "bias": [columns]}`, the last two only if the stage has them.
"""

from typing import Any

import jax
import jax.numpy as jnp

from .._base.math import dot
from .._base.sharding import sharding_of
from .._base.typing import Array, DType, Params


def plain_product(
    k: int, stage: Any, params: Params, inputs: Array, operand: Array, dtype: DType
) -> Array:
    """The z of stage number k, `[batch, columns]`, as `AffineCell.chain` calls it."""
    del k
    return stage.product(params, inputs, operand, dtype)


def product_of_inputs(product: Params, inputs: Array, dtype: DType) -> Array | None:
    """The inputs' contribution to z, with the bias, in `dtype`; None if it has none.

    Args:
        product: The parameters of a stage's product.
        inputs: `[..., depth]`, of one step or of many.
        dtype: That of z.

    Returns:
        `[..., columns]`.
    """
    if "inputs" not in product:
        return None
    share = dot(inputs, product["inputs"], dtype)
    if "bias" not in product:
        return share
    bias = jnp.expand_dims(product["bias"], tuple(range(inputs.ndim - 1)))
    return share + bias.astype(dtype)


def product_cotangents(
    products: list[Params],
    inputs: Array,
    operands: list[Array],
    c_zs: list[Array],
    accumulator: DType | None = None,
) -> tuple[list[Params], Array]:
    """The cotangents of the products' parameters and of the inputs, of many steps.

    Args:
        products: The parameters of each stage's product.
        inputs: `[batch, time, depth]` or `[time, batch, depth]`, zeros in rows that are
            not alive.
        operands: What "state" was multiplied with in each stage, `[..., rows]`.
        c_zs: The cotangents of the products, `[..., columns]`.
        accumulator: The dtype in which sums are accumulated; None for that of `c_zs`.

    Returns:
        `(c_products, c_inputs)` in the dtypes of the parameters and of the inputs.
    """
    c_products, c_inputs = [], jnp.zeros_like(inputs)
    for product, operand, c_z in zip(products, operands, c_zs, strict=True):
        c_product = {"state": _outer(operand, c_z, product["state"], accumulator)}
        if "inputs" in product:
            c_product["inputs"] = _outer(inputs, c_z, product["inputs"], accumulator)
            kernel = product["inputs"].astype(c_z.dtype)
            share = jnp.matmul(c_z, kernel.T, preferred_element_type=accumulator)
            c_inputs += share.astype(inputs.dtype)
        if "bias" in product:
            total = jnp.sum(c_z, (0, 1), dtype=accumulator)
            c_product["bias"] = total.astype(product["bias"].dtype)
        c_products.append(c_product)
    return c_products, c_inputs


def _outer(
    operand: Array, c_z: Array, kernel: Array, accumulator: DType | None
) -> Array:
    """The cotangent of a kernel, summed over all rows of all steps at once."""
    # Written out: the form that JAX would derive has the slower layout on a CPU.
    c_kernel = jax.lax.dot_general(
        operand.astype(c_z.dtype),
        c_z,
        (((0, 1), (0, 1)), ((), ())),
        preferred_element_type=accumulator,
        out_sharding=sharding_of(kernel, c_z),
    )
    return c_kernel.astype(kernel.dtype)
