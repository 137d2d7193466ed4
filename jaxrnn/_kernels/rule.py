"""The run of an affine cell by a kernel, with the gradients of the XLA loop.

A kernel runs what has to go in turn. The products of the inputs are made ahead of it
and the gradients of kernels and inputs after it, of all steps at once. Derivatives that
no kernel serves (forward mode, second ones) are those of the loop.
"""

from typing import Any

import jax
import jax.numpy as jnp

from .._affine.xla_loop import Rule, plain_product, share_of_inputs
from .._autodiff.differentiable import differentiable
from .._autodiff.transposable import dense
from .._base.typing import Array, Params, PyTree
from .._time.sequence import DeclinedError
from .._time.steps import Steps
from .only_on import only_on
from .operands import Backward, Forward
from .step import only
from .work import Work, why_not_values


class KernelRule(Rule):
    """As `Rule`, its loops forward and backward run by a kernel."""

    def __init__(self, cell: Any, history: bool, kernel: Any) -> None:
        super().__init__(cell, history)
        self.kernel = kernel

    def check(self, params: Params, xs: Array, state: PyTree, steps: Steps) -> None:
        """Raises DeclinedError with the reason, if the kernel cannot serve."""
        inputs = first_step(xs, steps)
        reason = why_no_loop(self.history, xs, steps) or why_not(
            self.kernel, self.cell, params, steps.time, inputs, state
        )
        if reason:
            raise DeclinedError(reason)

    def _work(self, params: Params, xs: Array, state: PyTree, steps: Steps) -> Work:
        return Work.of(self.cell, params, steps.time, first_step(xs, steps), state)

    def run(
        self, lin: Any, steps: Steps, record: bool
    ) -> tuple[PyTree, PyTree, PyTree]:
        """The loop forward: `(outputs, state, record)`."""

        def by_kernel(lin: Any, steps: Steps) -> Any:
            return self._forward(lin, steps, record)

        def push_forward(primals: Any, tangents: Any) -> Any:
            lin, steps = primals
            loop = lambda lin: super(KernelRule, self).run(lin, steps, record)
            return jax.jvp(loop, (lin,), (dense(tangents[0]),))

        return differentiable(by_kernel, push_forward, lin, steps)

    def pull_back(self, res: Any, cotangents: Any) -> Any:
        """The cotangents of `(params, xs, state, fresh)`."""

        def by_kernel(steps: Steps, *moving: Any) -> Any:
            return self._backward(steps, *moving)

        def push_forward(primals: Any, tangents: Any) -> Any:
            steps, *moving = primals

            def loop(lin: Any, record: Any, cotangents: Any) -> Any:
                return super(KernelRule, self).pull_back(
                    (lin, steps, record), cotangents
                )

            return jax.jvp(loop, tuple(moving), tuple(map(dense, tangents[1:])))

        lin, steps, record = res
        return differentiable(
            by_kernel, push_forward, steps, lin, record, dense(cotangents)
        )

    def _forward(self, lin: Any, steps: Steps, record: bool) -> Any:
        params, xs, state, _ = lin
        work = self._work(params, xs, state, steps)
        xs = _time_major(steps.zero_dead(xs), steps)
        lengths = self._lengths(steps, xs)
        parts = self.cell.parts(params, xs.shape[-1])
        is_alive = (lengths > 0)[:, None]
        types = jax.eval_shape(self.types, params, xs[0], state)
        given = Forward(
            lengths,
            self._weights(parts),
            [None if "inputs" in part else part.get("bias") for part in parts],
            self.cell.elementwise(params),
            [share_of_inputs(part, xs, jnp.float32) for part in parts],
            jax.tree.map(lambda s: jnp.where(is_alive, s, jnp.zeros_like(s)), state),
        )
        types = types if record else (types[0], ())
        (outputs, kept), final = self.kernel.forward(work, given, types)
        final = jax.tree.map(lambda new, s: jnp.where(is_alive, new, s), final, state)
        return _time_major(outputs, steps), final, _time_major(kept, steps)

    def types(self, params: Params, inputs: Array, state: PyTree) -> Any:
        """What is put out and kept of a step."""
        output, _, zs, _ = self.cell.chain(plain_product, params, inputs, state)
        return output, (zs, state)

    def _backward(self, steps: Steps, lin: Any, record: Any, cotangents: Any) -> Any:
        params, xs, state, fresh = lin
        work = self._work(params, xs, state, steps)
        xs = _time_major(steps.zero_dead(xs), steps)
        kept, c_outputs = (_time_major(x, steps) for x in (record, cotangents[0]))
        parts = self.cell.parts(params, xs.shape[-1])
        given = Backward(
            self._lengths(steps, xs),
            [w if w is None else w.T for w in self._weights(parts)],
            self.cell.elementwise(params),
            kept,
            c_outputs,
            cotangents[1],
        )
        c_zs, c_state, c_small = self.kernel.backward(work, given)
        operands = self._operands(params, *kept)
        alive = jnp.arange(work.time, dtype=jnp.int32)[:, None] < given.lengths[None, :]
        operands = only(alive[..., None], operands)
        c_parts, c_xs = [], jnp.zeros_like(xs)
        for part, c_z, operand in zip(parts, c_zs, operands, strict=True):
            c_parts.append(_c_part(part, c_z, operand, xs))
            if "inputs" in part:
                c_xs += _product(c_z, part["inputs"], (((2,), (1,)), ((), ())))
        c_params = self.cell.join(c_parts, c_small)
        return c_params, _time_major(c_xs, steps), c_state, fresh

    def _lengths(self, steps: Steps, xs: Array) -> Array:
        """`[batch]`, of a program that is for the kernel's platform alone."""
        lengths = row_lengths(steps, xs.shape[1])
        if self.kernel.interpret:
            return lengths
        return only_on(self.kernel.platform, self.kernel.name, lengths)

    def _weights(self, parts: list[Params]) -> list[Array | None]:
        """What multiplies the state in each stage; None for a stage without."""
        pairs = zip(parts, self.cell.stages, strict=True)
        return [part["state"] if stage.rows else None for part, stage in pairs]

    def _operands(self, params: Params, zs: list, states: PyTree) -> list[Array]:
        """What was multiplied in each stage, of all steps."""

        def step(zs: list, state: PyTree) -> list[Array]:
            recall = lambda k, *given: zs[k]
            return self.cell.chain(recall, params, None, state)[3]

        return jax.vmap(step)(zs, states)


def why_not(
    kernel: Any, cell: Any, params: Params, time: int, inputs: Any, state: PyTree
) -> str | None:
    """Why a kernel cannot run a cell over so many steps of such inputs, if it cannot.

    Args:
        kernel: The kernel.
        cell: An `AffineCell`.
        params: Its parameters, or their types.
        time: The number of steps.
        inputs: One step of inputs, or its type.
        state: The state, or its type.
    """
    if 0 in (time, *inputs.shape):
        return "there are no steps, no rows, or no inputs"
    reason = why_not_values(cell, params, inputs, state)
    return reason or kernel.why_not(Work.of(cell, params, time, inputs, state))


def why_no_loop(history: bool, xs: Array, steps: Steps) -> str | None:
    """Why sequences are not those of one loop of so many rows, if they are not."""
    if history:
        return "rows of several sequences restart within the loop"
    if not isinstance(xs.shape[1 - steps.axis], int):
        return "the number of rows is symbolic"
    return None


def row_lengths(steps: Steps, batch: int) -> Array:
    """`[batch]`, int32, from 0 to all steps."""
    if steps.lengths is None:
        return jnp.full(batch, steps.time, jnp.int32)
    return jnp.clip(steps.lengths, 0, steps.time).astype(jnp.int32)


def first_step(xs: Array, steps: Steps) -> Any:
    """The type of a step of inputs."""
    shape = xs.shape[: steps.axis] + xs.shape[steps.axis + 1 :]
    return jax.ShapeDtypeStruct(shape, xs.dtype)


def _c_part(part: Params, c_z: Array, operand: Array, xs: Array) -> Params:
    """The cotangents of one product's parameters."""
    over_rows = (((0, 1), (0, 1)), ((), ()))
    made = {"state": _product(operand, c_z, over_rows, part["state"].dtype)}
    if "inputs" in part:
        made["inputs"] = _product(xs, c_z, over_rows, part["inputs"].dtype)
    if "bias" in part:
        total = jnp.sum(c_z, (0, 1), dtype=jnp.float32)
        made["bias"] = total.astype(part["bias"].dtype)
    return made


def _product(x: Array, c_z: Array, axes: Any, dtype: Any = None) -> Array:
    """A large product in the dtype of the sequences, accumulated in float32."""
    made = jax.lax.dot_general(
        x.astype(c_z.dtype), c_z, axes, preferred_element_type=jnp.float32
    )
    return made.astype(dtype or x.dtype)


def _time_major(tree: PyTree, steps: Steps) -> PyTree:
    """Sequences with time first, or those the other way: it is its own inverse."""
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, steps.axis), tree)
