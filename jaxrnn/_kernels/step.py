"""One step of an affine cell as kernels run it: values in, values out.

A kernel keeps the recurrent parts of a cell's matrices on the chip and runs these steps
in turn. What the inputs add to the products was made before, of all steps at once, and
the gradients of matrices and inputs are made afterwards, so that a step is the
elementwise work and the product with the recurrent part, forward as backward.

All of it is computed in float32, whatever dtype the sequences have; what is multiplied
is rounded to the dtype of the matrices.
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


def only(alive: Array, tree: PyTree) -> PyTree:
    """Zeros in place of rows that are not alive, whatever lies there."""
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
    small: Params,
    shares: list[Array | None],
    state: PyTree,
    times: Callable[[Array, Any], Array] = dot,
) -> tuple[PyTree, PyTree, list[Array]]:
    """`(output, new_state, zs)` of rows of which some are alive.

    Args:
        cell: An `AffineCell`.
        alive: `[rows, 1]`, whether a row counts.
        weights: What multiplies the state in each stage, `[rows of it, columns]`; None
            where the state has no part in it.
        biases: What is added in a stage without inputs, `[columns]`, float32; or None.
        small: The parameters that are used elementwise, `[units]` each.
        shares: What the inputs add to each stage's product, with the bias, `[rows,
            columns]`, float32; None where they have no part in it.
        state: The state before the step, each leaf `[rows, size]`, float32.
        times: How an operand is multiplied with one of the weights.
    """
    shares = only(alive, shares)

    def product(k: int, stage: Any, *given: Any) -> Array:
        del stage
        weight, share, bias = weights[k], shares[k], biases[k]
        terms = [] if share is None else [share]
        if weight is not None:
            terms.append(times(given[2], weight))
        if bias is not None:
            terms.append(jnp.broadcast_to(bias[None, :], terms[0].shape))
        return functools.reduce(jnp.add, terms)

    output, after, zs, _ = cell.chain(product, small, None, state)
    after = with_structure(state, after)
    keep = lambda new, old: jnp.where(alive, new, old)
    return only(alive, output), jax.tree.map(keep, after, state), zs


def backward_step(
    cell: Any,
    alive: Array,
    turned: list[Any],
    small: Params,
    zs: list[Array],
    state: PyTree,
    c_output: PyTree,
    c_state: PyTree,
    times: Callable[[Array, Any], Array] = dot,
) -> tuple[list[Array], PyTree, Params]:
    """The cotangents of `(zs, state, small)`.

    Args:
        cell: An `AffineCell`.
        alive: `[rows, 1]`, whether a row counts.
        turned: The transposes of the matrices, `[columns, rows of the operand]`; or
            None.
        small: The parameters that are used elementwise.
        zs: The product of each stage.
        state: The state before the step.
        c_output: The cotangent of what the step put out.
        c_state: The cotangent of the state after it.
        times: How an operand is multiplied with one of the transposes.
    """

    def step(zs: list[Array], state: PyTree, small: Params) -> tuple[PyTree, PyTree]:
        def product(k: int, stage: Any, *given: Any) -> Array:
            del stage
            if turned[k] is None:
                return zs[k]
            return _recall(lambda c_z: times(c_z, turned[k]), given[2], zs[k])

        output, after, *_ = cell.chain(product, small, None, state)
        after = with_structure(state, after)
        keep = lambda new, old: jnp.where(alive, new, old)
        return only(alive, output), jax.tree.map(keep, after, state)

    zs, state, c_output = only(alive, (zs, state, c_output))
    _, pull_back = jax.vjp(step, zs, state, small)
    c_zs, c_before, c_small = pull_back((c_output, c_state))
    # What is not differentiable at zeros would make NaN of rows that are not alive.
    keep = lambda new, old: jnp.where(alive, new, old)
    return only(alive, c_zs), jax.tree.map(keep, c_before, c_state), c_small


def step_types(work: Work, rows: int) -> tuple[tuple, tuple]:
    """The types of what `forward_step` and `backward_step` take after the cell."""
    cell, f32 = work.cell, lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    alive = jax.ShapeDtypeStruct((rows, 1), jnp.bool_)
    matrix = lambda *shape: jax.ShapeDtypeStruct(shape, work.dtype)
    weights = [matrix(r, c) if r else None for r, c in work.matrices]
    turned = [matrix(c, r) if r else None for r, c in work.matrices]
    shares = [f32(rows, n) if n else None for n in work.shares]
    pairs = zip(cell.stages, work.matrices, strict=True)
    biases = [
        f32(columns) if stage.bias and not stage.takes_inputs else None
        for stage, (_, columns) in pairs
    ]
    small = dict(zip(cell.elementwise_specs(), map(f32, work.small), strict=True))
    kind = jax.tree.structure(jax.eval_shape(lambda: cell.zero_state(rows, work.dtype)))
    state = jax.tree.unflatten(kind, [f32(rows, size) for size, _ in work.state])
    given = alive, weights, biases, small, shares, state
    step = functools.partial(forward_step, cell)
    output, state, zs = jax.eval_shape(step, *given)
    return given, (alive, turned, small, zs, state, output, state)


def _recall(product: Callable, operand: Array, z: Array) -> Array:
    """z, which `operand` went into, without making it again.

    Its cotangent goes to the operand by `product`, with the transpose of the matrix.
    """

    @jax.custom_vjp
    def recall(operand: Array, z: Array) -> Array:
        del operand
        return z

    def forward(operand: Array, z: Array) -> tuple[Array, None]:
        del operand
        return z, None

    recall.defvjp(forward, lambda _, c_z: (product(c_z), c_z))
    return recall(operand, z)
