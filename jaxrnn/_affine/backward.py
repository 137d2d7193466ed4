"""The way back over the steps of an affine cell, a chunk of them at a time.

In turn, from the last step to the first, goes what has to: the elementwise work and the
product with the recurrent part of a kernel. The gradients of kernels and inputs are
made of all steps of a chunk at once.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._autodiff.bounded_loop import time_loop
from .._autodiff.transposable import dense
from .._base.sharding import buffers_for, sharding_of
from .._base.typing import Array, Params, PyTree
from .._time.steps import Phase

# The rows of one large product: enough to be as fast as any, and few enough to take
# little memory.
MANY_ROWS = 512


class Backward:
    """The loop backward over a phase, a chunk at a time, from the last to the first.

    What it carries is `(c_state, c_fresh, c_small, c_parts, c_xs)`.
    """

    def __init__(
        self,
        step: Callable,
        parts: list[Params],
        small: Params,
        phase: Phase,
        res: Any,
        c_emits: Any,
        like: Any,
    ) -> None:
        self.forward, self.parts, self.small = step, parts, small
        self.phase, self.steps = phase, phase.steps
        self.lin, _, self.record = res
        self.like, self.c_emits = like, c_emits
        _, _, state, _ = self.lin
        # Turned once, so that the loop finds them as its products want them.
        self.turned = [part["state"].T for part in parts]
        rows = jax.tree.leaves(phase.head(state))[0].shape[0]
        self.size = _chunk_size(rows, self.steps.time)

    def run(self, carry: Any) -> Any:
        """The carry after all chunks."""
        chunks, count = -(-self.steps.time // self.size), self.phase.count
        if chunks == 1:
            return self.chunk(self.phase.begin, carry)
        if count is not None:
            count = (count + self.size - 1) // self.size
        last = (chunks if count is None else count) - 1

        def body(i: Array, carry: Any) -> Any:
            return self.chunk(self.phase.begin + (last - i) * self.size, carry)

        return time_loop(count, chunks, body, carry)

    def chunk(self, start: Array, carry: Any) -> Any:
        """The steps from `start` on in turn, the last first; then the products."""
        c_state, c_fresh, c_small, c_parts, c_xs = carry
        steps, taken = self.steps, self._taken(start)
        last = start + (self.size if taken is None else taken) - 1
        # A part of a chunk lies where a whole one has room.
        place = jnp.minimum(start, steps.time - self.size)

        def body(i: Array, carry: Any) -> Any:
            (c_state, *sums, room), t = carry, last - i
            (c_state, *more, c_zs), operands = self.step(t, c_state)
            room = steps.write(room, t - place, (c_zs, operands))
            return c_state, *_add(sums, more), room

        (*_, c_zs), operands = jax.eval_shape(self.step, start, c_state)
        room = buffers_for(self.like, (c_zs, operands), self.size, steps.axis)
        carry = c_state, c_fresh, c_small, room
        *carry, (c_zs, operands) = time_loop(taken, self.size, body, carry)
        more, c_inputs = self.products(place, c_zs, operands)
        return *carry, _add(c_parts, more), self._add_at(place, c_xs, c_inputs)

    def _taken(self, start: Array) -> Array | None:
        """How many steps of a chunk there are; None for all."""
        time, end = self.steps.time, self.phase.end
        if end is None and time % self.size == 0:
            return None
        end = time if end is None else end
        return jnp.clip(end - start, 0, self.size).astype(jnp.int32)

    def _add_at(self, place: Array, c_xs: Array, c_inputs: Array) -> Array:
        # Added, as a part of a chunk lies where others lie too.
        starts = [jnp.int32(0)] * c_xs.ndim
        starts[self.steps.axis] = place
        here = jax.lax.dynamic_slice(c_xs, starts, c_inputs.shape)
        return jax.lax.dynamic_update_slice(c_xs, here + c_inputs, starts)

    def step(self, t: Array, c_state: PyTree) -> tuple[Any, list]:
        """The cotangents of `(state, fresh, small, zs)`, and the operands."""
        params, xs, _, fresh = self.lin
        inputs, (zs, state) = self.steps.read((xs, self.record), t)
        # Zeros are made here: XLA would carry them through the loop as an array.
        c_emit = self.steps.read(dense(self.c_emits), t)

        def remembered(state: PyTree, fresh: PyTree, small: Params, slots: list) -> Any:
            def product(k: int, stage: Any, params: Params, *operands: Array) -> Array:
                return _recall(operands[1], self.turned[k], slots[k], zs[k])

            lin = {**params, **small}, inputs, state, fresh
            made, (_, operands) = self.forward(product, self.steps, t, lin)
            return made, operands

        _, pull_back, operands = jax.vjp(
            remembered, state, fresh, self.small, zs, has_aux=True
        )
        return pull_back((c_emit, c_state)), operands

    def products(self, place: Array, c_zs: list, operands: list) -> tuple[list, Array]:
        """The cotangents of the kernels' parts and of the inputs, of one chunk."""
        _, xs, _, _ = self.lin
        steps = self.steps
        starts, sizes = [jnp.int32(0)] * xs.ndim, list(xs.shape)
        starts[steps.axis], sizes[steps.axis] = place, self.size
        sizes[1 - steps.axis] = c_zs[0].shape[1 - steps.axis]
        inputs = jax.lax.dynamic_slice(xs, starts, sizes)
        inputs = steps.window(place, self.size).zero_dead(inputs)
        c_parts, c_inputs = [], jnp.zeros_like(inputs)
        for parts, c_z, operand in zip(self.parts, c_zs, operands, strict=True):
            c_part = {"state": _outer(operand, c_z, parts["state"])}
            if "inputs" in parts:
                c_part["inputs"] = _outer(inputs, c_z, parts["inputs"])
                kernel = parts["inputs"].astype(c_z.dtype)
                c_inputs += (c_z @ kernel.T).astype(inputs.dtype)
            if "bias" in parts:
                c_part["bias"] = jnp.sum(c_z, (0, 1)).astype(parts["bias"].dtype)
            c_parts.append(c_part)
        return c_parts, c_inputs


def _outer(operand: Array, c_z: Array, kernel: Array) -> Array:
    """The cotangent of a kernel, of all rows of all steps of a chunk at once."""
    # Written out: the form that JAX would derive has the slower layout on a CPU.
    c_kernel = jax.lax.dot_general(
        operand.astype(c_z.dtype),
        c_z,
        (((0, 1), (0, 1)), ((), ())),
        out_sharding=sharding_of(kernel, c_z),
    )
    return c_kernel.astype(kernel.dtype)


@jax.custom_jvp
def _recall(operand: Array, turned: Array, slot: Array, z: Array) -> Array:
    """z, the product that `operand` went into, without making it again.

    The derivative by `operand` is the product's with the kernel that is `turned`; that
    by `slot` is the derivative by z.
    """
    del operand, turned, slot
    return z


@_recall.defjvp
def _(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (_, turned, _, z), (d_operand, _, d_slot, _) = primals, tangents
    d_z = jax.lax.dot_general(
        d_operand, turned, (((1,), (1,)), ((), ())), preferred_element_type=z.dtype
    )
    return z, d_slot + d_z


def _add(tree: PyTree, more: PyTree) -> PyTree:
    return jax.tree.map(jnp.add, tree, more)


def _chunk_size(rows: Any, time: int) -> int:
    """How many steps' rows make one large product."""
    if not isinstance(rows, int):
        return time
    size = min(time, max(1, MANY_ROWS // max(1, rows)))
    # Chunks of one size: a few steps left over would be a chunk as costly to start.
    return -(-time // -(-time // size))
