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
    """The z of stage k, `[batch, columns]`; a `product` for `AffineCell.chain`."""
    del k
    return stage.product(params, inputs, operand, dtype)


def product_of_inputs(
    stage_params: Params, inputs: Array, dtype: DType
) -> Array | None:
    """The inputs' contribution to z, with the bias; None if the stage reads no inputs.

    Args:
        stage_params: The parameters of a stage's product.
        inputs: `[..., depth]`, of one step or of many.
        dtype: That of z.

    Returns:
        `[..., columns]` in `dtype`.
    """
    if "inputs" not in stage_params:
        return None
    share = dot(inputs, stage_params["inputs"], dtype)
    if "bias" not in stage_params:
        return share
    bias = jnp.expand_dims(stage_params["bias"], tuple(range(inputs.ndim - 1)))
    return share + bias.astype(dtype)


def product_cotangents(
    product_params: list[Params],
    inputs: Array,
    operands: list[Array],
    c_zs: list[Array],
) -> tuple[list[Params], Array]:
    """The cotangents of product parameters and of inputs, over many steps.

    Args:
        product_params: The parameters of each stage's product.
        inputs: `[batch, time, depth]` or `[time, batch, depth]`, zeros in rows that are
            not alive.
        operands: What "state" was multiplied by in each stage, `[..., rows]`.
        c_zs: The cotangents of the products, `[..., columns]`.

    Returns:
        `(c_product_params, c_inputs)`, in the dtypes of parameters and inputs.
    """
    c_product_params, c_inputs = [], jnp.zeros_like(inputs)
    for stage_params, operand, c_z in zip(product_params, operands, c_zs, strict=True):
        c_stage_params = {"state": _outer(operand, c_z, stage_params["state"])}
        if "inputs" in stage_params:
            c_stage_params["inputs"] = _outer(inputs, c_z, stage_params["inputs"])
            kernel = stage_params["inputs"].astype(c_z.dtype)
            c_inputs += jnp.matmul(c_z, kernel.T).astype(inputs.dtype)
        if "bias" in stage_params:
            total = jnp.sum(c_z, (0, 1))
            c_stage_params["bias"] = total.astype(stage_params["bias"].dtype)
        c_product_params.append(c_stage_params)
    return c_product_params, c_inputs


def _outer(operand: Array, c_z: Array, kernel: Array) -> Array:
    """The cotangent of a kernel, summed over all rows of all steps in one product."""
    # Written out: the form that JAX would derive has the slower layout on a CPU.
    c_kernel = jax.lax.dot_general(
        operand.astype(c_z.dtype),
        c_z,
        (((0, 1), (0, 1)), ((), ())),
        out_sharding=sharding_of(kernel, c_z),
    )
    return c_kernel.astype(kernel.dtype)
