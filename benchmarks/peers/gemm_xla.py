"""The matrix products alone, in XLA: a lower limit for networks of these sizes.

Forward: in each step `[B, D + H] @ [D + H, 4H]` (as the cell has it), whose operand
takes one number of the product before, so that none can be hoisted or merged. Training:
those, then in each step `[B, 4H] @ [4H, H]`, then one product each for the gradients by
weights and by inputs.
"""

import jax
import jax.numpy as jnp

from ..core.built import Built, Variant
from ..core.cases import Case
from ..core.data import Data
from . import _gemm, _jax

USES = ("jax", "jaxlib")

Arrays = list[jax.Array]


def build(case: Case, data: Data) -> Built:
    """One loop forward, one backward, and the large products."""

    def forward(operands):
        return _chain(case.time, operands["steps"], operands["kernels"])

    def train(operands):
        back = _chain(case.time, operands["back_steps"], operands["back_kernels"])
        by_weights = [x.T @ z for x, z in operands["by_weights"]]
        by_inputs = [z @ k for z, k in operands["by_inputs"]]
        return forward(operands), back, by_weights, by_inputs

    function = forward if case.is_forward else train
    calls = _jax.compiled_calls(function, (_gemm.operands(case, data),))
    return Built({name: Variant(call, None, facts) for name, call, facts in calls})


def _chain(time: int, operands: Arrays, kernels: Arrays) -> Arrays:
    """The last products of `time` rounds through all kernels, one after another."""

    def body(carried, _):
        operands, products = carried
        last = products[-1][0, 0]
        for k, kernel in enumerate(kernels):
            operands[k] = operands[k].at[0, 0].set(last)
            products[k] = operands[k] @ kernel
            last = products[k][0, 0]
        return (operands, products), None

    shapes = zip(operands, kernels, strict=True)
    products = [jnp.zeros((x.shape[0], kernel.shape[1])) for x, kernel in shapes]
    (_, products), _ = jax.lax.scan(body, (operands, products), length=time)
    return products
