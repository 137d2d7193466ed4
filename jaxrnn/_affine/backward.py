"""The backward loop over the steps of an affine cell, a chunk of them at a time.

Only the sequential work runs step by step, from the last step to the first: the
elementwise updates and the product with the recurrent part of a kernel. The gradients
of kernels and inputs are computed for all steps of a chunk at once.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._autodiff.bounded_loop import time_loop
from .._autodiff.transposable import dense, only_arrays
from .._base.sharding import as_varying_as, buffers_for
from .._base.typing import Array, Params, PyTree
from .forward import masked_step
from .loop_rule import Primals, Residuals
from .phases import Phase
from .products import product_cotangents
from .units import whole_operands

# The rows of one large product: enough for full speed, and few enough to take little
# memory.
MANY_ROWS = 512
# If the cotangents of all products take at most so many bytes, they are multiplied at
# once: a loop over chunks would save little memory, and takes long to compile.
FEW_BYTES = 2**20


class Sums(NamedTuple):
    """Cotangents that all chunks add to.

    Attributes:
        restart_states: Each leaf `[sequences, size]`; None without restarts.
        elementwise: Those of the elementwise parameters.
        product_params: Those of the parameters of each stage's product.
        xs: Those of the inputs, `[batch, time, depth]` or `[time, batch, depth]`.
    """

    restart_states: PyTree
    elementwise: Params
    product_params: list[Params]
    xs: Array


def run_backward(cell: Any, residuals: Residuals, cotangents: tuple) -> Primals:
    """The cotangents of the primals.

    Args:
        cell: An `AffineCell`.
        residuals: What the forward loop read and saved.
        cotangents: Those of `(outputs, state)`; some may be `SymbolicZero`s.
    """
    (params, xs, _, restart_states), phases, _ = residuals
    product_params = cell.product_params(params, xs.shape[-1])
    sums = Sums(restart_states, cell.elementwise(params), product_params, xs)
    varying = residuals, only_arrays(cotangents)
    sums = as_varying_as(varying, jax.tree.map(jnp.zeros_like, sums))
    c_state = dense(cotangents[1])
    for phase in reversed(phases.in_order()):
        loop = BackwardLoop(cell, phase, residuals, cotangents)
        rows, sums = loop.run((phase.take(c_state), sums))
        c_state = phase.put(c_state, rows)
    c_params = cell.join(sums.product_params, sums.elementwise)
    return Primals(c_params, sums.xs, c_state, sums.restart_states)


class BackwardLoop:
    """The loop over a phase, from its last chunk to the first.

    It carries `(c_state, sums)`.
    """

    def __init__(
        self, cell: Any, phase: Phase, residuals: Residuals, cotangents: tuple
    ) -> None:
        self.cell, self.phase, self.steps = cell, phase, phase.steps
        self.primals, _, self.saved = residuals
        self.c_outputs = cotangents[0]
        self.varying = residuals, only_arrays(cotangents)
        params, xs, state, _ = self.primals
        self.elementwise = cell.elementwise(params)
        self.product_params = cell.product_params(params, xs.shape[-1])
        # Transposed once, into the layout that the products in the loop read.
        self.transposed = [p["state"].T for p in self.product_params]
        rows = phase.rows or jax.tree.leaves(state)[0].shape[0]
        row_bytes = sum(w.dtype.itemsize * w.shape[0] for w in self.transposed)
        self.size = _chunk_size(rows, row_bytes, self.steps.time)

    def run(self, carry: Any) -> Any:
        """The carry after all chunks."""
        chunks, count = -(-self.steps.time // self.size), self.phase.count
        if chunks == 1:
            return self.run_chunk(self.phase.start, carry)
        if count is not None:
            count = (count + self.size - 1) // self.size
        last = (chunks if count is None else count) - 1

        def body(i: Array, carry: Any) -> Any:
            return self.run_chunk(self.phase.start + (last - i) * self.size, carry)

        return time_loop(count, chunks, body, carry)

    def run_chunk(self, start: Array, carry: Any) -> Any:
        """The steps from `start` on, last step first; then their large products."""
        (c_state, sums), phase = carry, self.phase
        # Buffers hold a whole chunk, even where the last one is shorter: they then
        # begin before `start`, with zeros for steps that are not taken.
        buffer_start = jnp.minimum(start, self.steps.time - self.size)
        totals = [sums.restart_states, sums.elementwise]
        c_state, totals, buffers = self._run_steps(start, buffer_start, c_state, totals)
        inputs = phase.read_slice(self.primals.xs, buffer_start, self.size)
        inputs = self.steps.slice(buffer_start, self.size).zero_dead(inputs)
        c_zs, operands = buffers
        operands = whole_operands(self.cell, operands)
        c_product_params, c_inputs = product_cotangents(
            self.product_params, inputs, operands, c_zs
        )
        # Added, since buffers that begin before `start` overlap the chunk before.
        c_inputs = phase.read_slice(sums.xs, buffer_start, self.size) + c_inputs
        c_xs = self.steps.write_slice(sums.xs, buffer_start, c_inputs)
        c_product_params = _add(sums.product_params, c_product_params)
        c_restart_states, c_elementwise = totals
        return c_state, Sums(c_restart_states, c_elementwise, c_product_params, c_xs)

    def _run_steps(
        self, start: Array, buffer_start: Array, c_state: PyTree, totals: list
    ) -> tuple[PyTree, list, Any]:
        """The sequential work of a chunk: `(c_state, totals, buffers)`.

        Args:
            start: The first step that is taken.
            buffer_start: The first step of the buffers.
            c_state: The cotangent of the state after the steps.
            totals: The sums of cotangents of the restart states and of the elementwise
                parameters.

        Returns:
            The buffers are `(c_zs, operands)` of `size` steps.
        """
        steps, taken = self.steps, self._taken(start)
        last = start + (self.size if taken is None else taken) - 1

        def body(i: Array, carry: Any) -> Any:
            (c_state, totals, buffers), t = carry, last - i
            (c_state, *more, c_zs), operands = self.step(t, c_state)
            buffers = steps.write(buffers, t - buffer_start, (c_zs, operands))
            return c_state, _add(totals, more), buffers

        (*_, c_zs), operands = jax.eval_shape(self.step, start, c_state)
        buffers = buffers_for(self.varying, (c_zs, operands), self.size, steps.axis)
        return time_loop(taken, self.size, body, (c_state, totals, buffers))

    def _taken(self, start: Array) -> Array | None:
        """The number of steps of the chunk that starts at `start`; None for all."""
        time, end = self.steps.time, self.phase.end
        if end is None and time % self.size == 0:
            return None
        end = time if end is None else end
        return jnp.clip(end - start, 0, self.size).astype(jnp.int32)

    def step(self, t: Array, c_state: PyTree) -> tuple[Any, list]:
        """The cotangents of `(state, restart_states, elementwise, zs)`, and `operands`.

        The operands are those of each stage's product, `[batch, rows]`.
        """
        params, xs, _, restart_states = self.primals
        inputs, (zs, state) = self.phase.read((xs, self.saved), t)
        # Zeros are created here: XLA would carry them through the loop as an array.
        c_output = self.phase.read(dense(self.c_outputs), t)

        def with_saved_products(
            state: PyTree, restart_states: PyTree, elementwise: Params, slots: list
        ) -> tuple[Any, list]:
            def product(k: int, stage: Any, *operands: Any) -> Array:
                del stage
                return _saved_product(operands[2], self.transposed[k], slots[k], zs[k])

            primals = Primals({**params, **elementwise}, inputs, state, restart_states)
            results = masked_step(self.cell, product, self.steps, t, primals)
            (output, new_state), (_, operands) = results
            return (output, new_state), operands

        _, pull_back, operands = jax.vjp(
            with_saved_products,
            state,
            restart_states,
            self.elementwise,
            zs,
            has_aux=True,
        )
        return pull_back((c_output, c_state)), operands


@jax.custom_jvp
def _saved_product(operand: Array, transposed: Array, slot: Array, z: Array) -> Array:
    """The z that the forward loop saved, with the derivative of the product that it is.

    Args:
        operand: `[batch, rows]`, what was multiplied by the kernel's recurrent part.
        transposed: `[columns, rows]`, the transpose of that part.
        slot: `[batch, columns]`, not read; its cotangent is that of z.
        z: `[batch, columns]`.
    """
    del operand, transposed, slot
    return z


@_saved_product.defjvp
def _(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (_, transposed, _, z), (d_operand, _, d_slot, _) = primals, tangents
    d_z = jax.lax.dot_general(
        d_operand, transposed, (((1,), (1,)), ((), ())), preferred_element_type=z.dtype
    )
    return z, d_slot + d_z


def _add(tree: PyTree, more: PyTree) -> PyTree:
    return jax.tree.map(jnp.add, tree, more)


def _chunk_size(rows: Any, row_bytes: int, time: int) -> int:
    """The number of steps whose rows make one large product.

    Args:
        rows: The number of rows of a step, which may be symbolic.
        row_bytes: The bytes of the cotangents of a row's products.
        time: The number of steps.
    """
    if not isinstance(rows, int) or rows * time * row_bytes <= FEW_BYTES:
        return time
    size = min(time, max(1, MANY_ROWS // max(1, rows)))
    # Chunks of equal size: a chunk of few steps would cost as much to start.
    return -(-time // -(-time // size))
