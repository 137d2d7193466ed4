"""Runs a linear recurrence in chunks of steps, such as 1024 steps at once.

In each chunk, all matrix products and gates are computed at once, then the states, and
then the outputs. On a CPU, a chunk is small enough for the cache, so little of its data
goes through main memory. The backward pass recomputes each chunk from the state before
the chunk. Therefore, except for outputs and gradients, only the states between chunks
take memory that grows with time.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ..._base.derivatives import with_float32_gradients
from ..._base.math import cast, cast_like, widened, widest_dtype
from ..._base.mesh import platform_of, varying_like
from ..._base.typing import Array, Params, PyTree
from ..._cells.linear.cell import Terms
from ..._cells.linear.element import Element, is_zero, one_like, plus, times
from ..._run import masking
from ..._run.run import Run
from ..._run.scans import at_each_step, run_in_parts
from .recurrence import linear_recurrence


@dataclasses.dataclass(frozen=True)
class RecurrenceLoop:
    """Runs the steps of a linear recurrence in chunks.

    Attributes:
        terms: `terms(params, inputs, state)` returns the terms of one step. The
            function reads only the types of the state.
        output: `output(params, new_state, rest)` returns the output of one step.
    """

    terms: Callable[[Params, Array, Element], Terms]
    output: Callable[[Params, Element, PyTree], PyTree]

    def run(self, params: Params, run: Run) -> tuple[PyTree, PyTree]:
        """Runs all steps; returns `(outputs, state)`. See `Choice.loop`."""
        params_in_loop = with_float32_gradients(params)

        def run_chunk(part: Run) -> tuple[PyTree, PyTree]:
            # In a chunk, time is the first axis.
            steps, h = part.steps, part.state
            xs = steps.to_time_major(part.inputs)
            part = part.replace(inputs=xs, steps=steps.time_first())
            params = params_in_loop()
            a, b, rest = self._terms(params, part)
            start = varying_like((a, b), widened(h))
            hs, last = linear_recurrence((a, part.steps.resets), b, start)
            hs, last = cast_like(h, hs), cast_like(h, last)
            outputs = self._outputs(params, hs, rest, part)
            return steps.from_time_major(outputs), last

        platform = platform_of((params, run.inputs, run.state))
        size = steps_in_chunk(run.state, run.vmap_size, platform)
        # The gradient of the reset state is a sum over chunks, computed in float32.
        wide = run.replace(reset_state=widened(run.reset_state))
        return run_in_parts(size, run_chunk, wide)

    def _terms(self, params: Params, part: Run) -> tuple[Element, Element, PyTree]:
        """Returns `(a, b, rest)` of all steps: each step maps h to `a * h + b`.

        At a reset, b includes the effect of the reset state.
        """
        steps, h = part.steps, part.state
        at_step = lambda x: self.terms(params, x, h)
        xs = steps.fill_finished(part.inputs)
        a, b, b_from_zeros, rest = at_each_step(at_step, xs)
        reset_state = jax.tree.map(lambda x: x[None], part.reset_state)
        if b_from_zeros is not None:
            from_zeros = _are_from_zeros(b_from_zeros, h, steps.resets, reset_state)
            b = masking.select(from_zeros, b_from_zeros, b)
        a = steps.select_unfinished(a, one_like(a))  # Finished rows keep their state.
        b = steps.zero_finished(b)
        if reset_state is not None:
            # Steps without a reset must not add the reset state. Zero the states rather
            # than the product, because in the product's gradient, 0 * inf is NaN.
            reset_state = masking.zero_unless(steps.resets, reset_state)
            b = plus(b, times(a, reset_state))
        return a, b, rest

    def _outputs(self, params: Params, hs: Element, rest: PyTree, part: Run) -> PyTree:
        """Returns the outputs of all steps or, if requested, `(outputs, states)`."""
        dtype = widest_dtype(part.inputs)
        at_step = lambda *x: cast(self.output(params, *x), dtype)
        outputs = part.steps.zero_finished(at_each_step(at_step, hs, rest))
        return (outputs, hs) if part.steps.returns_states else outputs


def steps_in_chunk(state: Element, vmap_size: int, platform: str) -> int:
    """The number of steps in a chunk, a power of two.

    On CPUs, the states of a chunk take about 2 MiB, including the states of all rows
    that `vmap` maps. For MinGRU with 8 rows, 256 units and 8192 steps, chunks of 128,
    256, 512 and 1024 steps were compared. The forward pass took 232, 175, 192 and 210
    ms, and a training step took 680, 722, 775 and 839 ms. With 1 row, chunks of 256 to
    2048 steps are equally fast.

    On other platforms, a chunk has 1024 steps. For the gradient of MinGRU with 4 rows,
    512 units and 8192 steps, the TPU's compiler estimates 18 million cycles and 99 MiB.
    If all steps are in one chunk, the compiler estimates 13 million cycles and 829 MiB.
    """
    if not all(isinstance(n, int) for x in jax.tree.leaves(state) for n in x.shape):
        return 256  # A size is symbolic.
    if platform != "cpu":
        return 1024
    step_bytes = 4 * vmap_size * sum(leaf.size for leaf in jax.tree.leaves(state))
    steps = min(max(32, 2**21 // max(1, step_bytes)), 2**16)
    return 1 << (steps.bit_length() - 1)


def _are_from_zeros(
    b_from_zeros: Element,
    state: Element,
    resets: Array | None,
    reset_state: Element | None,
) -> Array:
    """Whether the state before each step is zeros, `[time, batch]`.

    The state is zeros if the last reset, or else the run, began with zeros, and
    `b_from_zeros` has been zeros at all steps since then.
    """
    is_written = ~is_zero(jax.lax.stop_gradient(b_from_zeros))
    writes = jnp.concatenate([~is_zero(state)[None], is_written[:-1]])
    if resets is None:
        return jnp.cumsum(writes, axis=0) == 0
    to_zeros = resets & is_zero(reset_state)
    writes = jnp.cumsum(writes | (resets & ~to_zeros), axis=0)
    # There were no writes since the last reset to zeros or, without one, the start.
    return writes == jax.lax.cummax(jnp.where(to_zeros, writes, 0))
