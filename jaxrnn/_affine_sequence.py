"""Whole sequences of a cell that is products followed by elementwise updates.

A loop that JAX differentiates by itself keeps every gate of every step, and adds to the
gradient of each kernel at every step. Here the loop forward keeps the results z of the
products and the states, no more; the loop backward does what has to be done in turn,
the elementwise work and the product with the recurrent part of a kernel; and the
gradients of kernels and inputs are made of many steps at once, in large products.

The tangent of the run is one linear function that brings its own transpose, so that it
can be pushed forward, batched and differentiated again.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ._math import dot, widest_dtype
from ._phases import by_length, may_sort
from ._sharding import as_varying_as, sharding_of, zeros_along
from ._steps import Phase, Steps
from ._time_loop import time_loop
from ._transposable import transposable
from ._typing import Array, Params, PyTree

# The rows of one product after the loop: enough to be as fast as any, and few enough to
# take little memory.
MANY_ROWS = 512
# Up to so many rows in a step, and in all, the inputs' products are made ahead of the
# loop.
FEW_ROWS, MANY_STEPS = 8, 4096


def affine_sequence(
    cell: Any, params: Params, xs: Array, state: PyTree, steps: Steps, history: bool
) -> tuple[PyTree, PyTree]:
    """`cell` over all steps: `(outputs, state)`, as a scan of `cell.apply` gives them.

    Args:
        cell: An `AffineCell`, whose functions close over no arrays.
        params: Its parameters.
        xs: Inputs, time along `steps.axis`.
        state: The initial state.
        steps: Which steps there are.
        history: Whether the outputs are pairs of output and new state.
    """
    run = functools.partial(_run, cell, params, history=history)
    if may_sort(steps, xs.shape[1 - steps.axis]):
        return by_length(run, xs, state, steps)
    return run(xs, state, steps)


def _run(
    cell: Any, params: Params, xs: Array, state: PyTree, steps: Steps, history: bool
) -> tuple[PyTree, PyTree]:
    rule = _Rule(cell, history)

    @jax.custom_jvp
    def run(lin: Any, steps: Steps) -> tuple[PyTree, PyTree]:
        emits, state, _ = rule.run(lin, steps, record=False)
        return emits, state

    @run.defjvp
    def _(primals: Any, tangents: Any) -> tuple[Any, Any]:
        lin, steps = primals
        emits, state, record = rule.run(lin, steps, record=True)
        moved = transposable(
            rule.push_forward, rule.pull_back, (lin, steps, record), tangents[0]
        )
        return (emits, state), moved

    fresh, steps = steps.fresh, dataclasses.replace(steps, fresh=None)
    return run((params, xs, state, fresh), steps)


class _Rule:
    """The run, its tangent and its transpose.

    What the run is differentiated by travels together: `(params, xs, state, fresh)`.
    """

    def __init__(self, cell: Any, history: bool) -> None:
        self.cell, self.history = cell, history

    def step(self, product: Any, steps: Steps, t: Array, lin: Any) -> tuple[Any, Any]:
        """One step: `((emit, new_state), (zs, operands))`."""
        params, inputs, state, fresh = lin
        seen = steps.show(t, inputs, state, fresh)
        output, new_state, zs, operands = self.cell.chain(product, params, *seen)
        new_state, output = steps.settle(t, state, new_state, output)
        emit = (output, new_state) if self.history else output
        return (emit, new_state), (zs, operands)

    def run(
        self, lin: Any, steps: Steps, record: bool
    ) -> tuple[PyTree, PyTree, PyTree]:
        """The loop forward: `(emits, state, record)`."""
        params, xs, state, fresh = lin
        product, small = _product, _is_small(xs, steps)
        if small:
            product, xs, steps = self._hoisted(params, xs, steps, widest_dtype(state))

        def at(
            steps: Steps, t: Array, inputs: PyTree, state: PyTree
        ) -> tuple[PyTree, PyTree, PyTree]:
            lin = params, inputs, state, fresh
            (emit, new_state), (zs, _) = self.step(product, steps, t, lin)
            return new_state, emit, (zs, state) if record else ()

        def run(phase: Phase, state: PyTree, room: Any) -> tuple[PyTree, Any]:
            steps = phase.steps

            def body(i: Array, carry: Any) -> Any:
                (state, ahead, *room), t = carry, phase.begin + i
                state, *made = at(steps, t, ahead if small else read(t), state)
                # XLA's CPU compiler makes slow code of elementwise work that reads from
                # the middle of an array: such inputs are read a step ahead.
                ahead = read(t + 1) if small else ()
                return state, ahead, *steps.write(room, t, made)

            read = functools.partial(steps.read, xs)
            ahead = read(phase.begin) if small else ()
            carry = phase.head(state), ahead, *room
            head, _, *room = time_loop(phase.count, steps.time, body, carry)
            return phase.put(state, head), room

        start = jnp.int32(0)
        types = jax.eval_shape(at, steps, start, steps.read(xs, start), state)[1:]
        room = _room(lin, types, steps.time, steps.axis)
        for phase in steps.phases():
            state, room = run(phase, state, room)
        emits, kept = room
        return emits, state, kept

    def _hoisted(
        self, params: Params, xs: Array, steps: Steps, dtype: Any
    ) -> tuple[Callable, list, Steps]:
        """What the inputs add to each z, of all steps at once, in place of the inputs.

        Measured on a CPU this gains up to a third where there are few rows, and loses
        as much where there are many.
        """
        parts = self.cell.parts(params, xs.shape[-1])

        def share(inputs: Array) -> list:
            return [_share_of_inputs(part, inputs, dtype) for part in parts]

        def product(
            k: int, stage: Any, params: Params, inputs: list, operand: Array, dtype: Any
        ) -> Array:
            if inputs[k] is None:
                return stage.product(params, inputs, operand, dtype)
            return inputs[k] + dot(operand, parts[k]["state"], dtype)

        if steps.first is not None:
            inputs, state = steps.first
            steps = dataclasses.replace(steps, first=(share(inputs), state))
        return product, share(steps.zero_dead(xs)), steps

    def push_forward(self, res: Any, d_lin: Any) -> tuple[PyTree, PyTree]:
        """The tangents of `(emits, state)`."""
        (params, xs, state, fresh), steps, (_, states) = res
        d_params, d_xs, d_state, d_fresh = d_lin

        def at(
            steps: Steps, t: Array, state: PyTree, inputs: Array
        ) -> Callable[[Any], Any]:
            step = lambda lin: self.step(_product, steps, t, lin)[0]
            lin = params, inputs, state, fresh
            return lambda d_lin: jax.jvp(step, (lin,), (d_lin,))[1]

        def run(phase: Phase, d_state: PyTree, d_emits: Any) -> tuple[PyTree, Any]:
            steps = phase.steps

            def body(i: Array, carry: Any) -> Any:
                (d_state, d_emits), t = carry, phase.begin + i
                inputs, state, d_inputs = steps.read((xs, states, d_xs), t)
                push = at(steps, t, state, inputs)
                d_emit, d_state = push((d_params, d_inputs, d_state, d_fresh))
                return d_state, steps.write(d_emits, t, d_emit)

            carry = phase.head(d_state), d_emits
            head, d_emits = time_loop(phase.count, steps.time, body, carry)
            return phase.put(d_state, head), d_emits

        lin = params, steps.read(xs, jnp.int32(0)), state, fresh
        step = lambda lin: self.step(_product, steps, jnp.int32(0), lin)[0][0]
        types = jax.eval_shape(step, lin)
        d_emits = _room((res, d_lin), types, steps.time, steps.axis)
        for phase in steps.phases():
            d_state, d_emits = run(phase, d_state, d_emits)
        return d_emits, d_state

    def pull_back(self, res: Any, cotangents: Any) -> Any:
        """The cotangents of `(params, xs, state, fresh)`."""
        (params, xs, _, fresh), steps, _ = res
        c_emits, c_state = cotangents
        parts = self.cell.parts(params, xs.shape[-1])
        small = self.cell.elementwise(params)
        carry = jax.tree.map(jnp.zeros_like, (fresh, small, parts, xs))
        carry = as_varying_as((res, cotangents), carry)
        for phase in reversed(steps.phases()):
            backward = _Backward(self, phase, res, c_emits)
            head, *carry = backward.run((phase.head(c_state), *carry))
            c_state = phase.put(c_state, head)
        c_fresh, c_small, c_parts, c_xs = carry
        return self.cell.join(c_parts, c_small), c_xs, c_state, c_fresh


class _Backward:
    """The loop backward over a phase, a chunk at a time, from the last to the first.

    What it carries is `(c_state, c_fresh, c_small, c_parts, c_xs)`.
    """

    def __init__(self, rule: _Rule, phase: Phase, res: Any, c_emits: Any) -> None:
        self.rule, self.phase, self.steps = rule, phase, phase.steps
        self.lin, _, self.record = res
        self.like, self.c_emits = (res, c_emits), c_emits
        params, xs, state, _ = self.lin
        self.parts = rule.cell.parts(params, xs.shape[-1])
        # Turned once, so that the loop finds them as its products want them.
        self.turned = [parts["state"].T for parts in self.parts]
        self.small = rule.cell.elementwise(params)
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
        room = _room(self.like, (c_zs, operands), self.size, steps.axis)
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
        c_emit = self.steps.read(self.c_emits, t)

        def remembered(state: PyTree, fresh: PyTree, small: Params, slots: list) -> Any:
            def product(k: int, stage: Any, params: Params, *operands: Array) -> Array:
                return _recall(operands[1], self.turned[k], slots[k], zs[k])

            lin = {**params, **small}, inputs, state, fresh
            made, (_, operands) = self.rule.step(product, self.steps, t, lin)
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


def _share_of_inputs(part: Params, inputs: Array, dtype: Any) -> Array | None:
    """What does not depend on the state in a product, if any."""
    if "inputs" not in part:
        return None
    share = dot(inputs, part["inputs"], dtype)
    if "bias" not in part:
        return share
    bias = jnp.expand_dims(part["bias"], tuple(range(inputs.ndim - 1)))
    return share + bias.astype(dtype)


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


def _product(
    k: int, stage: Any, params: Params, inputs: Array, operand: Array, dtype: Any
) -> Array:
    del k
    return stage.product(params, inputs, operand, dtype)


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


def _room(like: PyTree, types: PyTree, count: int, axis: int) -> PyTree:
    """Zeros for `count` steps of these types, along `axis`."""
    room = jax.tree.map(lambda x: zeros_along(axis, count, x), types)
    return as_varying_as(like, room)


def _is_small(xs: Array, steps: Steps) -> bool:
    """Whether the products are so small that what is outside of them counts."""
    rows = xs.shape[1 - steps.axis]
    return (
        isinstance(rows, int) and rows <= FEW_ROWS and rows * steps.time <= MANY_STEPS
    )


def _chunk_size(rows: Any, time: int) -> int:
    """How many steps' rows make one large product."""
    if not isinstance(rows, int):
        return time
    return min(time, max(1, MANY_ROWS // max(1, rows)))
