"""The work of a kernel: a cell and the sizes of its sequences."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from .._affine.products import plain_product
from .._base.errors import describe
from .._base.math import widest_dtype
from .._base.typing import DType, Params, PyTree, Shaped


@dataclasses.dataclass(frozen=True)
class Work:
    """The sizes of an affine cell's loop over sequences.

    Attributes:
        cell: The cell.
        time: The number of steps.
        batch: The number of rows.
        depth: The size of the inputs.
        dtype: The dtype of the inputs and the matrices.
        matrices: The shape of the matrix of each stage's operand, `(rows, columns)`; 0
            rows for a stage without an operand.
        input_columns: The columns of each stage; 0 for a stage without inputs.
        state: The leaves of the state, `(size, dtype)`.
        outputs: The leaves of the output, `(size, dtype)`.
        elementwise: The sizes of the parameters that are used elementwise.
        product_dtype: The dtype in which products are saved as residuals.
    """

    cell: Any
    time: int
    batch: int
    depth: int
    dtype: DType
    matrices: tuple[tuple[int, int], ...]
    input_columns: tuple[int, ...]
    state: tuple[tuple[int, DType], ...]
    outputs: tuple[tuple[int, DType], ...]
    elementwise: tuple[int, ...]
    product_dtype: DType

    @classmethod
    def of(
        cls, cell: Any, params: Params, time: int, inputs: Shaped, state: PyTree
    ) -> "Work":
        """The work of an `AffineCell`.

        Args:
            cell: The cell.
            params: Its parameters, or their types.
            time: The number of steps.
            inputs: One step of inputs, `[batch, depth]`, or its type.
            state: The state, or its type.
        """
        output, _ = step_result_types(cell, params, inputs, state)
        sizes = lambda tree: tuple(
            (x.shape[-1], jnp.dtype(x.dtype)) for x in jax.tree.leaves(tree)
        )
        batch, depth = inputs.shape
        split = lambda params: cell.product_params(params, depth)
        products = jax.eval_shape(split, params)
        matrices = tuple(product["state"].shape for product in products)
        pairs = zip(matrices, cell.stages, strict=True)
        return cls(
            cell,
            time,
            batch,
            depth,
            jnp.dtype(inputs.dtype),
            matrices,
            tuple(columns * stage.takes_inputs for (_, columns), stage in pairs),
            sizes(state),
            sizes(output),
            tuple(x.size for x in cell.elementwise(params).values()),
            jnp.dtype(widest_dtype(state)),
        )

    @property
    def matrix_bytes(self) -> int:
        """The bytes of the matrices."""
        count = sum(rows * columns for rows, columns in self.matrices)
        return count * self.dtype.itemsize

    @property
    def residual_bytes(self) -> int:
        """The bytes of the residuals of a row at a step."""
        products = sum(columns for _, columns in self.matrices)
        return products * self.product_dtype.itemsize + _bytes(self.state)

    @property
    def input_product_bytes(self) -> int:
        """The bytes of the inputs' contribution to a row's products at a step."""
        return 4 * sum(self.input_columns)

    @property
    def output_bytes(self) -> int:
        """The bytes of the outputs of a row at a step."""
        return _bytes(self.outputs)

    @property
    def flops(self) -> int:
        """The operations of the products of a row's state at a step."""
        return 2 * sum(rows * columns for rows, columns in self.matrices)


def _bytes(sizes: tuple[tuple[int, DType], ...]) -> int:
    return sum(size * dtype.itemsize for size, dtype in sizes)


def step_result_types(cell: Any, params: Params, inputs: Any, state: PyTree) -> Any:
    """The types of `(output, saved)` of one step, where `saved` is `(zs, state)`.

    Args:
        cell: An `AffineCell`.
        params: Its parameters, or their types.
        inputs: One step of inputs, `[batch, depth]`, or its type.
        state: The state, or its type.
    """

    def step(params: Params, inputs: Shaped, state: PyTree) -> Any:
        output, _, zs, _ = cell.chain(plain_product, params, inputs, state)
        return output, (zs, state)

    return jax.eval_shape(step, params, inputs, state)


def why_not_values(
    cell: Any, params: Params, inputs: Shaped, state: PyTree
) -> str | None:
    """Why kernels do not take the shapes or dtypes of a cell's values, or None."""
    outputs, _ = step_result_types(cell, params, inputs, state)
    known = (jnp.float32, jnp.bfloat16)
    for name, tree in (("inputs", inputs), ("state", state), ("output", outputs)):
        for leaf in jax.tree.leaves(tree):
            if leaf.ndim != 2 or 0 in leaf.shape:
                return f"a leaf of the {name} is not [batch, size]: {describe(leaf)}"
            if leaf.dtype not in known:
                return f"it computes in float32 and bfloat16, got {leaf.dtype}"
    if any(leaf.ndim != 1 for leaf in cell.elementwise(params).values()):
        return "an elementwise parameter is not [units]"
    if any(not s.takes_inputs and not s.rows for s in cell.stages):
        return "a stage multiplies nothing"
    if not any(stage.rows for stage in cell.stages):
        return "no product reads the state"
    return None
