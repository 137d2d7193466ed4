"""A while loop with a maximum number of steps, differentiable in every mode.

JAX cannot differentiate `lax.while_loop` in reverse mode, because the number of steps
whose values must be saved is unknown when the program is compiled. This module **runs
the while loop, but differentiates a scan** that computes the same results. The scan
divides the maximum number of steps into parts, of 16 steps by default, and skips the
parts after the end of the loop.

The backward pass recomputes the steps. By default, the scan saves the carry before each
step. If the checkpoint plan has parts or uses host memory, the scan saves only the
carry before each part.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from .._base.derivatives import (
    closure_converted,
    has_reverse_rule,
    in_reverse,
    with_float32_gradients,
    with_forward_only,
    without_checks,
)
from .._base.errors import is_key
from .._base.math import where
from .._base.mesh import varying_like
from .._base.sharding import zeros_of
from .._base.typing import Array, AxisSize, PyTree
from .memory import STATE, CheckpointPlan
from .scans import checkpointed, named, save_on_host

Step = Callable[[Array, PyTree], tuple[PyTree, PyTree]]
"""`step(t, carry) -> (carry, y)` runs step t."""
Condition = Callable[[PyTree], Array]
Position = tuple[Array, PyTree]
"""`(t, carry)`: the index of a step, and the carry before this step."""
Results = tuple[Array, PyTree, PyTree]

# If the loop ends within a part, the other steps of the part still run, and their
# results are dropped. Short parts waste few steps.
STEPS_IN_PART = 16


def bounded_loop(
    is_running: Condition,
    step: Step,
    carry: PyTree,
    max_steps: AxisSize,
    plan: CheckpointPlan,
) -> Results:
    """Runs steps while `is_running(carry)` is true, at most `max_steps` steps.

    Args:
        is_running: A function of the carry that returns whether to run another step, a
            bool scalar. The function must not close over arrays.
        step: `step(t, carry) -> (carry, y)`, where `t` is an int32 scalar and the carry
            keeps its structure, shapes and dtypes. The function may close over arrays,
            and is traced once.
        carry: The carry before the first step.
        max_steps: The maximum number of steps, static or symbolic.
        plan: The checkpoint plan. If it has parts or uses host memory, derivatives save
            the carry before each part and recompute the part. Otherwise, derivatives
            save the carry before each step.

    Returns:
        `(n, carry, ys)`. `n` is the number of steps taken, an int32 scalar. `carry` is
        the carry after these steps. `ys` contains the stacked results `y` of all steps,
        `[max_steps, ...]`, with zeros for steps not taken.
    """
    zero = _zero(carry)
    if isinstance(max_steps, int) and not max_steps:
        y_types = jax.eval_shape(step, zero, carry)[1]
        return zero, carry, zeros_of(y_types, 0, carry)

    pure, arrays, (_, y_types), program = closure_converted(step, zero, carry)

    def step_of_data(data: list, t: Array, values: PyTree) -> tuple[PyTree, PyTree]:
        after, y = pure(_with_keys(data, arrays), t, _with_keys(values, carry))
        return _without_keys(after), y

    loop = _Loop(
        is_running=lambda values: is_running(_with_keys(values, carry)),
        step=step_of_data,
        y_types=y_types,
        max_steps=max_steps,
        plan=plan,
    )
    # Differentiate a loop without run-time checks, because `to_stablehlo` removes the
    # checks of a program before differentiation, but cannot remove the checks of a
    # derivative that is traced later.
    unchecked = dataclasses.replace(loop, step=without_checks(loop.step))
    run = with_forward_only(unchecked.as_scan, forward_only=loop.as_while_loop)
    run = in_reverse(run) if has_reverse_rule(program) else run
    count, last, ys = run(_without_keys(arrays), _without_keys(carry))
    return count, _with_keys(last, carry), ys


@dataclasses.dataclass(frozen=True)
class _Loop:
    """A loop as a function of arrays and of the carry before its first step.

    Attributes:
        is_running: A function of the carry that returns whether to run another step,
            and closes over no arrays.
        step: A function `step(arrays, t, carry) -> (carry, y)` that closes over no
            arrays.
        y_types: The types of the results `y` of a step.
        max_steps: The maximum number of steps, static or symbolic.
        plan: The checkpoint plan, which selects the arrays that derivatives save.
    """

    is_running: Condition
    step: Callable[[list, Array, PyTree], tuple[PyTree, PyTree]]
    y_types: PyTree
    max_steps: AxisSize
    plan: CheckpointPlan

    def as_while_loop(self, arrays: list, carry: PyTree) -> Results:
        """Runs the while loop; returns `(n, carry, ys)` like `bounded_loop`."""

        def body(results: Results) -> Results:
            t, carry, ys = results
            carry, y = self.step(arrays, t, carry)

            def put(rows: Array, row: Array) -> Array:
                return jax.lax.dynamic_update_index_in_dim(rows, row, t, 0)

            return t + 1, carry, jax.tree.map(put, ys, y)

        first = _zero(carry), carry, zeros_of(self.y_types, self.max_steps, carry)
        return jax.lax.while_loop(lambda at: self._takes_step(at[:2]), body, first)

    def as_scan(self, arrays: list, carry: PyTree) -> Results:
        """Runs the scan; returns `(n, carry, ys)` like `bounded_loop`.

        In the part in which the loop ends, each step after the end repeats step 0, and
        its results are dropped. Step 0 is used because its values are finite if all
        values of the loop are finite.
        """
        arrays_in_loop = with_float32_gradients(arrays)
        first = _zero(carry), carry

        def one_step(position: Position) -> tuple[Position, PyTree]:
            is_taken = self._takes_step(position)
            t, carry = where(is_taken, position, first)
            carry, y = self.step(arrays_in_loop(), t, carry)
            zeros = jax.tree.map(jnp.zeros_like, y)
            position = where(is_taken, (t + 1, carry), position)
            return position, where(is_taken, y, zeros)

        # Parts have equal sizes, so that few steps beyond `max_steps` run.
        plan, max_steps = self.plan, self.max_steps
        size = plan.part or STEPS_IN_PART
        count = -(-max_steps // size)
        size = -(-max_steps // count) if isinstance(count, int) else size
        saves_each_carry = plan.part is None and not plan.on_host

        def step(position: Position, _: None) -> tuple[Position, PyTree]:
            if not saves_each_carry:
                return one_step(position)
            # Integers are named too. Otherwise, the backward pass would recompute them
            # from the start of the part.
            saved = jax.tree.map(lambda x: checkpoint_name(x, STATE), position)
            return checkpointed(one_step)(saved)

        def run(position: Position) -> tuple[Position, PyTree]:
            return jax.lax.scan(step, position, None, length=size)

        def skip(position: Position) -> tuple[Position, PyTree]:
            return position, zeros_of(self.y_types, size, position)

        def run_part(position: Position, _: None) -> tuple[Position, PyTree]:
            position = named(STATE, position) if plan.on_host else position
            return jax.lax.cond(self._takes_step(position), run, skip, position)

        policy = save_on_host((STATE,)) if plan.on_host else None
        if saves_each_carry:
            policy = jax.checkpoint_policies.save_only_these_names(STATE)
        # Checkpoint the whole `cond`, because checkpointing only its branch `run` would
        # save a copy of everything that `run` closes over.
        body = checkpointed(run_part, policy)
        (t, carry), ys = jax.lax.scan(body, first, None, length=count)

        def joined(y: Array) -> Array:
            return y.reshape(count * size, *y.shape[2:])[:max_steps]

        return t, carry, jax.tree.map(joined, ys)

    def _takes_step(self, position: Position) -> Array:
        """Whether the loop takes another step at this position."""
        t, carry = position
        return (t < self.max_steps) & self.is_running(carry)


def _without_keys(tree: PyTree) -> PyTree:
    """Replaces random keys by their integers.

    Works around a bug of JAX 0.10.0: a `lax.cond` whose branches read keys cannot be
    differentiated.
    """
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)


def _with_keys(tree: PyTree, like: PyTree) -> PyTree:
    """Restores the random keys; the function reads only the types of `like`."""

    def restored(x: Array, like: Array) -> Array:
        if not is_key(like):
            return x
        return jax.random.wrap_key_data(x, impl=jax.random.key_impl(like))

    return jax.tree.map(restored, tree, like)


def _zero(carry: PyTree) -> Array:
    return varying_like(carry, jnp.zeros((), jnp.int32))
