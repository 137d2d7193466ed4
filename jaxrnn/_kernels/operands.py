"""What the loops of a kernel read."""

from typing import Any, NamedTuple

from .._base.typing import Array, Params, PyTree


class ForwardOperands(NamedTuple):
    """What the loop forward reads.

    Attributes:
        lengths: `[batch]`, int32.
        weights: What multiplies the state in each stage; None where nothing does.
        biases: What is added in a stage without inputs, `[columns]`; or None.
        elementwise: The parameters that are used elementwise, `[units]` each.
        input_products: The inputs' part of each stage's product, with the bias,
            `[time, batch, columns]`, float32; None for a stage without inputs.
        state: The initial state, each leaf `[batch, size]`.
    """

    lengths: Array
    weights: list[Any]
    biases: list[Any]
    elementwise: Params
    input_products: list[Any]
    state: PyTree


class BackwardOperands(NamedTuple):
    """What the loop backward reads.

    Attributes:
        lengths: `[batch]`, int32.
        transposed: The transposes of the matrices; or None.
        elementwise: The parameters that are used elementwise.
        saved: `(zs, states)` of all steps, `[time, batch, size]` each.
        c_outputs: The cotangents of what was put out, likewise.
        c_state: The cotangent of the final state, each leaf `[batch, size]`.
    """

    lengths: Array
    transposed: list[Any]
    elementwise: Params
    saved: PyTree
    c_outputs: PyTree
    c_state: PyTree
