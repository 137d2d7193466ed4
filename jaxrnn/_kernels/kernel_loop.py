"""The run of an affine cell by a Pallas kernel, with the gradients of XLA's loop.

A kernel runs the sequential work. The products of the inputs are computed ahead of it,
and the gradients of matrices and inputs after it, for all steps at once. Derivatives
that no kernel computes (forward mode, second derivatives) are those of XLA's loop.
"""

from typing import Any, final

import jax
import jax.numpy as jnp

from .._affine.loop_rule import Primals, Residuals, run_loop
from .._affine.phases import Phases
from .._affine.products import product_cotangents, product_of_inputs
from .._autodiff.jax_internals import Primitive, defvectorized, register_lowering
from .._base.typing import Array, Params, PyTree
from .._time import masking
from .._time.sequence import DeclinedError
from .._time.steps import Steps
from .kernel import BackwardInputs, ForwardInputs
from .loop_beside_xla import LoopBesideXla
from .work import Work, step_result_types, why_not_values


def work_for(
    kernel: Any, cell: Any, params: Params, xs: Array, state: PyTree, steps: Steps
) -> Work:
    """The work of running these sequences; for the arguments see `Implementation`.

    Raises:
        DeclinedError: If the kernel cannot run it, with the reason.
    """
    inputs, reason = step_input_type(xs, steps), why_not_steps(xs, steps)
    if not reason and 0 in (steps.time, *inputs.shape):
        reason = "there are no steps, no rows, or no inputs"
    reason = reason or why_not_values(cell, params, inputs, state)
    if reason:
        raise DeclinedError(reason)
    work = Work.of(cell, params, steps.time, inputs, state)
    if reason := kernel.why_not(work):
        raise DeclinedError(reason)
    return work


def run_kernel(
    kernel: Any, cell: Any, params: Params, xs: Array, state: PyTree, steps: Steps
) -> tuple[PyTree, PyTree]:
    """`(outputs, state)` of all steps, whose work `work_for` has accepted.

    For the arguments see `Implementation.run_sequences`.
    """
    return run_loop(KernelLoop(kernel, cell), params, xs, state, Phases(steps))


@final
class KernelLoop(LoopBesideXla):
    """The loop of one cell, run forward and backward by a `Kernel`."""

    def __init__(self, kernel: Any, cell: Any) -> None:
        super().__init__(cell)
        self.kernel = kernel

    def run_forward(
        self, primals: Primals, phases: Phases, save: bool
    ) -> tuple[PyTree, PyTree, PyTree]:
        """`(outputs, state, saved)`; see `LoopBesideXla`."""
        steps = phases.steps
        params, xs, state, _ = primals
        work = Work.of(self.cell, params, steps.time, step_input_type(xs, steps), state)
        xs = steps.swap_time(steps.zero_dead(xs))
        lengths = self._lengths(steps, work)
        products = self.cell.product_params(params, work.depth)
        output, saved = step_result_types(self.cell, params, xs[0], state)
        kernel_inputs = ForwardInputs(
            lengths,
            self._matrices(products),
            [None if "inputs" in p else p.get("bias") for p in products],
            self.cell.elementwise(params),
            [product_of_inputs(p, xs, jnp.float32) for p in products],
            masking.zero_dead(lengths > 0, state),
        )
        types = output, saved if save else ()
        results, final_state = self.kernel.forward(work, kernel_inputs, types)
        outputs, saved = steps.swap_time(results)
        return outputs, masking.choose(lengths > 0, final_state, state), saved

    def run_backward(self, residuals: Residuals, cotangents: tuple) -> Primals:
        """The cotangents of the primals; see `LoopBesideXla`."""
        (params, xs, state, restart_states), phases, saved = residuals
        steps = phases.steps
        work = Work.of(self.cell, params, steps.time, step_input_type(xs, steps), state)
        xs, saved, c_outputs = steps.swap_time(
            (steps.zero_dead(xs), saved, cotangents[0])
        )
        lengths = self._lengths(steps, work)
        products = self.cell.product_params(params, work.depth)
        kernel_inputs = BackwardInputs(
            lengths,
            [w if w is None else w.T for w in self._matrices(products)],
            self.cell.elementwise(params),
            saved,
            c_outputs,
            cotangents[1],
        )
        c_zs, c_state, c_elementwise = self.kernel.backward(work, kernel_inputs)
        alive = jnp.arange(work.time, dtype=jnp.int32)[:, None] < lengths[None, :]
        stage_operands = masking.zero_dead(alive, self._stage_operands(params, *saved))
        c_products, c_xs = product_cotangents(
            products, xs, stage_operands, c_zs, accumulator=jnp.float32
        )
        c_params = self.cell.join(c_products, c_elementwise)
        return Primals(c_params, steps.swap_time(c_xs), c_state, restart_states)

    def _lengths(self, steps: Steps, work: Work) -> Array:
        """int32 `[batch]`, whose program compiles for the kernel's platform alone."""
        lengths = row_lengths(steps, work.batch)
        if self.kernel.interpret:
            return lengths
        return _require_platform(self.kernel.platform, self.kernel.name, lengths)

    def _matrices(self, products: list[Params]) -> list[Array | None]:
        """The matrix that multiplies the state in each stage; None without one."""
        pairs = zip(products, self.cell.stages, strict=True)
        return [product["state"] if stage.rows else None for product, stage in pairs]

    def _stage_operands(self, params: Params, zs: list, states: PyTree) -> list[Array]:
        """The operand of each stage, `[time, batch, rows]`, from what was saved."""

        def step(zs: list, state: PyTree) -> list[Array]:
            saved_product = lambda k, *_: zs[k]
            return self.cell.chain(saved_product, params, None, state)[3]

        return jax.vmap(step)(zs, states)


def why_not_steps(xs: Array, steps: Steps) -> str | None:
    """Why a loop over a fixed number of whole rows cannot take these steps, or None."""
    if steps.restarts is not None:
        return "rows of several sequences restart within the loop"
    if not isinstance(xs.shape[1 - steps.axis], int):
        return "the number of rows is symbolic"
    return None


def row_lengths(steps: Steps, batch: int) -> Array:
    """int32 `[batch]`, the number of steps of each row, from 0 to all."""
    if steps.lengths is None:
        return jnp.full(batch, steps.time, jnp.int32)
    return jnp.clip(steps.lengths, 0, steps.time).astype(jnp.int32)


def step_input_type(xs: Array, steps: Steps) -> jax.ShapeDtypeStruct:
    """The type of one step of inputs, `[batch, depth]`."""
    shape = xs.shape[: steps.axis] + xs.shape[steps.axis + 1 :]
    return jax.ShapeDtypeStruct(shape, xs.dtype)


def _require_platform(platform: str, name: str, x: Array) -> Array:
    """`x`, in a program that can be compiled for one platform alone.

    While a program is traced its platform is unknown: it may be that of this process,
    that of a machine elsewhere, or several. So the error is raised on lowering.

    Args:
        platform: "tpu" or "cuda", as JAX calls it.
        name: The implementation that requires it.
        x: Returned as it is.

    Raises:
        ValueError: On lowering, if the program is compiled for another platform.
    """
    return _require_platform_p.bind(x, platform=platform, name=name)


def _lower(ctx: Any, x: Any, *, platform: str, name: str) -> list:
    for other in ctx.platforms or ctx.module_context.platforms:
        if other != platform:
            raise ValueError(
                f"`implementation` {name!r} runs on {platform}, and this is compiled "
                f"for {other}. Leave it out for XLA's loop, which runs everywhere."
            )
    return [x]


_require_platform_p = Primitive("require_platform")
_compiled = jax.jit(_require_platform_p.bind, static_argnames=("platform", "name"))


@_require_platform_p.def_impl
def _(x: Array, **names: str) -> Array:
    with jax.disable_jit(False):  # Otherwise it would call itself.
        return _compiled(x, **names)


_require_platform_p.def_abstract_eval(lambda x, **_: x)
register_lowering(_require_platform_p, _lower)
defvectorized(_require_platform_p)
