"""One step of an affine cell as kernels run it: pure functions of arrays, not refs.

A kernel keeps the recurrent parts of a cell's matrices on the chip. The inputs'
contribution to the products is computed before the loop, and the gradients of matrices
and inputs after it, for all steps at once. What remains of a step is the elementwise
work and the product with the recurrent part, both forward and backward.

Steps are computed in float32, whatever dtype the sequences have; operands are rounded
to the dtype of the matrices.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._base.trees import with_structure
from .._base.typing import Array, Params, PyTree
from .work import Work


def in_float32(tree: PyTree) -> PyTree:
    """The leaves in float32."""
    return jax.tree.map(lambda x: x.astype(jnp.float32), tree)


def zero_dead(alive: Array, tree: PyTree) -> PyTree:
    """`masking.zero_dead` for `alive` of shape `[rows, 1]`, which Pallas needs."""
    return jax.tree.map(lambda x: jnp.where(alive, x, jnp.zeros_like(x)), tree)


def dot(operand: Array, matrix: Array) -> Array:
    """The product in the dtype of the matrix, accumulated in float32."""
    operand = operand.astype(matrix.dtype)
    return jnp.dot(operand, matrix, preferred_element_type=jnp.float32)


def forward_step(
    cell: Any,
    alive: Array,
    weights: list[Any],
    biases: list[Array | None],
    elementwise: Params,
    input_products: list[Array | None],
    state: PyTree,
    matmul: Callable[[Array, Any], Array] = dot,
) -> tuple[PyTree, PyTree, list[Array]]:
    """`(output, new_state, zs)`; rows that are not alive keep their state.

    Args:
        cell: An `AffineCell`.
        alive: bool `[rows, 1]`, whether the step is within a row's length.
        weights: The matrix of each stage's operand, `[operand, columns]`; None for a
            stage without an operand.
        biases: The bias of a stage without inputs, `[columns]`, float32; or None.
        elementwise: The parameters that are used elementwise, `[units]` each.
        input_products: The inputs' contribution to each stage's product, with the bias,
            `[rows, columns]`, float32; None for a stage without inputs.
        state: The state before the step, each leaf `[rows, size]`, float32.
        matmul: The product of an operand and one of the weights.
    """
    input_products = zero_dead(alive, input_products)

    def product(k: int, *args: Any) -> Array:
        *_, operand, _ = args
        weight, inputs, bias = weights[k], input_products[k], biases[k]
        terms = [] if inputs is None else [inputs]
        if weight is not None:
            terms.append(matmul(operand, weight))
        if bias is not None:
            terms.append(jnp.broadcast_to(bias[None, :], terms[0].shape))
        return functools.reduce(jnp.add, terms)

    output, after, zs, _ = cell.chain(product, elementwise, None, state)
    after = with_structure(state, after)
    keep = lambda new, old: jnp.where(alive, new, old)
    return zero_dead(alive, output), jax.tree.map(keep, after, state), zs


def backward_step(
    cell: Any,
    alive: Array,
    transposed: list[Any],
    elementwise: Params,
    zs: list[Array],
    state: PyTree,
    c_output: PyTree,
    c_state: PyTree,
    matmul: Callable[[Array, Any], Array] = dot,
) -> tuple[list[Array], PyTree, Params]:
    """The cotangents of `(zs, state, elementwise)`.

    Args:
        cell: An `AffineCell`.
        alive: bool `[rows, 1]`, whether the step is within a row's length.
        transposed: The transposes of the matrices, `[columns, operand]`; or None.
        elementwise: The parameters that are used elementwise, `[units]` each.
        zs: The product of each stage, `[rows, columns]`.
        state: The state before the step, each leaf `[rows, size]`.
        c_output: The cotangent of the step's output, each leaf `[rows, size]`.
        c_state: The cotangent of the state after it, each leaf `[rows, size]`.
        matmul: The product of a cotangent and one of the transposes.
    """

    def step(
        zs: list[Array], state: PyTree, elementwise: Params
    ) -> tuple[PyTree, PyTree]:
        def product(k: int, *args: Any) -> Array:
            *_, operand, _ = args
            if transposed[k] is None:
                return zs[k]
            return _saved_product(
                lambda c_z: matmul(c_z, transposed[k]), operand, zs[k]
            )

        output, after, *_ = cell.chain(product, elementwise, None, state)
        after = with_structure(state, after)
        keep = lambda new, old: jnp.where(alive, new, old)
        return zero_dead(alive, output), jax.tree.map(keep, after, state)

    zs, state, c_output = zero_dead(alive, (zs, state, c_output))
    _, pull_back = jax.vjp(step, zs, state, elementwise)
    c_zs, c_before, c_elementwise = pull_back((c_output, c_state))
    # Where an update is not differentiable at zeros, rows that are not alive get NaN.
    keep = lambda new, old: jnp.where(alive, new, old)
    return zero_dead(alive, c_zs), jax.tree.map(keep, c_before, c_state), c_elementwise


def step_types(work: Work, rows: int) -> tuple[tuple, tuple]:
    """The types of the arguments of `forward_step` and `backward_step` after `cell`."""
    cell, f32 = work.cell, lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    alive = jax.ShapeDtypeStruct((rows, 1), jnp.bool_)
    matrix = lambda *shape: jax.ShapeDtypeStruct(shape, work.dtype)
    weights = [matrix(r, c) if r else None for r, c in work.matrices]
    transposed = [matrix(c, r) if r else None for r, c in work.matrices]
    input_products = [f32(rows, n) if n else None for n in work.input_columns]
    pairs = zip(cell.stages, work.matrices, strict=True)
    biases = [
        f32(columns) if stage.bias and not stage.takes_inputs else None
        for stage, (_, columns) in pairs
    ]
    elementwise = dict(
        zip(cell.elementwise_specs(), map(f32, work.elementwise), strict=True)
    )
    kind = jax.tree.structure(jax.eval_shape(lambda: cell.zero_state(rows, work.dtype)))
    state = jax.tree.unflatten(kind, [f32(rows, size) for size, _ in work.state])
    args = alive, weights, biases, elementwise, input_products, state
    step = functools.partial(forward_step, cell)
    output, state, zs = jax.eval_shape(step, *args)
    return args, (alive, transposed, elementwise, zs, state, output, state)


def _saved_product(product: Callable, operand: Array, z: Array) -> Array:
    """`z`, a product of `operand` that has been saved.

    The cotangent of the operand is `product` of that of z.
    """

    @jax.custom_vjp
    def saved(operand: Array, z: Array) -> Array:
        del operand
        return z

    def forward(operand: Array, z: Array) -> tuple[Array, None]:
        del operand
        return z, None

    saved.defvjp(forward, lambda _, c_z: (product(c_z), c_z))
    return saved(operand, z)
