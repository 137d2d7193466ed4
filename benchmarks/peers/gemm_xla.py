"""The matrix products alone, in XLA: what no network of these sizes can beat.

Forward: in each step `[B, D + H] @ [D + H, 4H]` (as the cell has it), whose operand
takes one number of the product before, so that none can be hoisted or merged. Training:
those, then in each step `[B, 4H] @ [4H, H]`, then one product each for the gradients by
weights and by inputs.
"""

from typing import Any

import jax
import jax.numpy as jnp

from ..built import Built, Variant
from ..cases import Case
from ..data import Data
from . import _gemm, _jax

USES = ("jax", "jaxlib")

Arrays = list[jax.Array]


def build(case: Case, data: Data) -> Built:
    """One loop forward, one back, and the large products."""
    _gemm.refuse(case, data)
    operands = jax.device_put(_gemm.operands(case))

    def forward(operands: dict[str, Any]) -> Arrays:
        return _chain(case.time, operands["steps"], operands["kernels"])

    def train(operands: dict[str, Any]) -> tuple[Arrays, ...]:
        back = _chain(case.time, operands["back_steps"], operands["back_kernels"])
        by_weights = [x.T @ z for x, z in operands["by_weights"]]
        by_inputs = [z @ k for z, k in operands["by_inputs"]]
        return forward(operands), back, by_weights, by_inputs

    function = forward if case.is_forward else train
    variants = {}
    for name, program, facts in _jax.compiled(function, operands):
        run = _jax.blocking(program, (operands,))
        variants[name] = Variant(run, None, facts)
    return Built(variants)


def _chain(time: int, operands: Arrays, kernels: Arrays) -> Arrays:
    """The last products of `time` turns through all kernels, one after another."""

    def turn(carried: Any, _: None) -> tuple[Any, None]:
        operands, products = carried
        last = products[-1][0, 0]
        for k, kernel in enumerate(kernels):
            operands[k] = operands[k].at[0, 0].set(last)
            products[k] = operands[k] @ kernel
            last = products[k][0, 0]
        return (operands, products), None

    shapes = zip(operands, kernels, strict=True)
    products = [jnp.zeros((x.shape[0], kernel.shape[1])) for x, kernel in shapes]
    (_, products), _ = jax.lax.scan(turn, (operands, products), length=time)
    return products
