"""A loop with a maximum number of steps, as a while loop and as a scan.

The while loop and the scan compute the same results. The while loop is fast, but JAX
cannot differentiate a while loop in reverse mode. JAX can differentiate the scan, which
covers the maximum number of steps in segments. Segments after the end of the loop are
skipped.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._base.math import where
from .._base.sharding import as_varying_as, zeros_of
from .._base.typing import Array, PyTree
from .._time.float32_sums import reader
from .._time.segments import STATE, in_scan, named, save_on_host
from ..memory._strategy import CheckpointPlan

Results = tuple[Array, PyTree, PyTree]

# Short segments keep few residuals in memory, and run few steps after the loop's end.
STEPS_IN_SEGMENT = 16


@dataclasses.dataclass(frozen=True)
class Loop:
    """A loop as a function of arrays and of the carry before its first step.

    Attributes:
        is_running: A function `is_running(t, carry)` that returns whether to run step
            t. It must not close over arrays.
        step: A function `step(arrays, t, carry) -> (carry, y)`. It must not close over
            arrays.
        max_steps: The maximum number of steps, static or symbolic.
        plan: The checkpoint plan, which selects what derivatives of the scan save.
    """

    is_running: Callable[[Array, PyTree], Array]
    step: Callable[[list, Array, PyTree], tuple[PyTree, PyTree]]
    max_steps: Any
    plan: CheckpointPlan

    def as_while_loop(self, arrays: list, carry: PyTree) -> Results:
        """Runs the while loop; returns `(n, carry, ys)` like `bounded_loop`."""
        y_types = self._y_types(arrays, carry)

        def body(loop: Results) -> Results:
            t, carry, ys = loop
            carry, y = self.step(arrays, t, carry)
            put = lambda ys, y: jax.lax.dynamic_update_index_in_dim(ys, y, t, 0)
            return t + 1, carry, jax.tree.map(put, ys, y)

        first = *_start(carry), zeros_of(y_types, self.max_steps, carry)
        return jax.lax.while_loop(lambda loop: self._goes_on(loop[:2]), body, first)

    def as_scan(self, arrays: list, carry: PyTree) -> Results:
        """Runs the scan; returns `(n, carry, ys)` like `bounded_loop`.

        In the segment in which the loop ends, the steps after the end repeat step 0,
        and their results are dropped. If all values of the loop are finite, the values
        of these steps are finite too.
        """
        read, first = reader(arrays), _start(carry)

        def one_step(loop: tuple, _: None) -> tuple[tuple, PyTree]:
            is_taken = self._goes_on(loop)
            t, carry = where(is_taken, loop, first)
            carry, y = self.step(read(), t, carry)
            zeros = jax.tree.map(jnp.zeros_like, y)
            loop = where(is_taken, (t + 1, carry), loop)
            return loop, where(is_taken, y, zeros)

        sizes = self.plan.segments or (STEPS_IN_SEGMENT,)
        body, types, steps = one_step, self._y_types(arrays, carry), 1
        for depth, size in reversed(list(enumerate(sizes))):
            count = -(-min(size, self.max_steps) // steps)
            on_host = self.plan.on_host and not depth
            body = _segment(self._goes_on, body, count, types, on_host)
            types = jax.eval_shape(functools.partial(zeros_of, types, count, ()))
            steps *= count
        loop, ys = jax.lax.scan(body, first, None, length=-(-self.max_steps // steps))

        def flat(y: Array) -> Array:
            axes = len(sizes) + 1  # The axes of segments and steps.
            return y.reshape(math.prod(y.shape[:axes]), *y.shape[axes:])

        return *loop, jax.tree.map(lambda y: flat(y)[: self.max_steps], ys)

    def _goes_on(self, loop: tuple) -> Array:
        t, carry = loop
        return (t < self.max_steps) & self.is_running(t, carry)

    def _y_types(self, arrays: list, carry: PyTree) -> PyTree:
        return jax.eval_shape(self.step, arrays, *_start(carry))[1]


def _start(carry: PyTree) -> tuple[Array, PyTree]:
    return as_varying_as(carry, jnp.zeros((), jnp.int32)), carry


def _segment(
    goes_on: Callable, body: Callable, count: int, types: PyTree, on_host: bool
) -> Callable:
    """Returns the body of a scan over segments of `count` steps of `body`."""

    def segment(loop: Any, _: None) -> tuple[Any, PyTree]:
        loop = named(STATE, loop) if on_host else loop
        run = lambda loop: jax.lax.scan(body, loop, None, length=count)
        skip = lambda loop: (loop, zeros_of(types, count, loop))
        return jax.lax.cond(goes_on(loop), run, skip, loop)

    # Checkpoint the condition, because checkpointing only its branch would save a copy
    # of everything that the branch closes over.
    return in_scan(segment, save_on_host((STATE,)) if on_host else None)
