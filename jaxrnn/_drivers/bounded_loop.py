"""A while loop with a maximum number of steps, differentiable in every mode.

JAX cannot differentiate `lax.while_loop` in reverse mode, because the loop saves no
values from its steps. This module **runs the while loop, but differentiates another
implementation of the loop**.

| where | saved | backward pass |
|---|---|---|
| CPUs | the carry before each step | a while loop (`recorded_steps.py`) |
| elsewhere | the carry before every 16 steps | derived from a scan (`loop_forms.py`) |
| plans with segments | the carry before each segment | derived from the same scan |
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType

from .._base import jax_internals
from .._base.run_time_checks import without_checks
from .._base.sharding import as_varying_as, meshes_of, platform_of, zeros_of
from .._base.typing import Array, PyTree
from .._time.float32_sums import closed_over
from ..memory._strategy import CheckpointPlan
from .loop_forms import Loop
from .recorded_steps import jvp_by_record

Step = Callable[[Array, PyTree], tuple[PyTree, PyTree]]
Condition = Callable[[Array, PyTree], Array]


def bounded_loop(
    is_running: Condition,
    step: Step,
    carry: PyTree,
    max_steps: Any,
    plan: CheckpointPlan,
) -> tuple[Array, PyTree, PyTree]:
    """Runs steps while `is_running(t, carry)` is true, at most `max_steps` steps.

    Args:
        is_running: A function of the step t and the carry. It returns a bool scalar:
            whether to run the step. The function must not close over arrays.
        step: `step(t, carry) -> (carry, y)`, where `t` is an int32 scalar and the carry
            keeps its structure, shapes and dtypes. The function may close over arrays,
            and is traced once.
        carry: The carry before the first step.
        max_steps: The maximum number of steps, static or symbolic.
        plan: The checkpoint plan, which selects what derivatives save. If the plan has
            segments, derivatives save the carry before each segment and recompute the
            segment. Otherwise, derivatives save the carry before each step on CPUs, and
            use short segments elsewhere.

    Returns:
        `(n, carry, ys)`: the number of steps taken, an int32 scalar; the carry after
        these steps; and the stacked results `y` of all steps, `[max_steps, ...]`, with
        zeros for steps not taken.
    """
    zero = as_varying_as(carry, jnp.zeros((), jnp.int32))
    if isinstance(max_steps, int) and not max_steps:
        y_types = jax.eval_shape(step, zero, carry)[1]
        return zero, carry, zeros_of(y_types, 0, carry)
    pure, arrays, _ = closed_over(step, zero, carry)
    loop = Loop(is_running, pure, max_steps, plan)
    run = jax.custom_jvp(loop.as_while_loop)

    def by_scan(primals: tuple, tangents: tuple) -> tuple[Any, Any]:
        return _jvp_of_perturbed(loop.as_scan, primals, tangents)

    def by_record(primals: tuple, tangents: tuple) -> tuple[Any, Any]:
        # `run_beside_xla` does not support programs with effects, so value checks are
        # removed from the while loop. The scan keeps its value checks.
        unchecked = Loop(is_running, without_checks(pure), max_steps, plan)
        return jvp_by_record(unchecked, primals, tangents)

    is_recorded = _is_recorded(max_steps, plan, (arrays, carry))
    run.defjvp(by_record if is_recorded else by_scan, symbolic_zeros=True)
    return run(arrays, carry)


def _is_recorded(max_steps: Any, plan: CheckpointPlan, arrays: PyTree) -> bool:
    """Whether derivatives save the carry before each step.

    On explicit meshes and in `shard_map`, array types include mesh axes, which
    `recorded_steps.py` does not track.
    """
    has_plan = plan.segments or plan.on_host
    kinds = {kind for mesh in meshes_of(arrays) for kind in mesh.axis_types}
    is_plain = kinds <= {AxisType.Auto} and isinstance(max_steps, int)
    is_on_cpu = platform_of(arrays) == "cpu" and jax_internals.MISSING is None
    return is_on_cpu and is_plain and not has_plan


def _jvp_of_perturbed(fn: Callable, primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    """Returns `jax.jvp(fn, primals, tangents)`; tangents may be symbolic zeros."""
    leaves, structure = jax.tree.flatten(primals)
    d_leaves = jax.tree.leaves(tangents)
    perturbed = [i for i, d in enumerate(d_leaves) if isinstance(d, jax.Array)]

    def of_perturbed(*given: Array) -> PyTree:
        replaced = dict(zip(perturbed, given, strict=True))
        all_leaves = [replaced.get(i, leaf) for i, leaf in enumerate(leaves)]
        return fn(*structure.unflatten(all_leaves))

    pick = lambda leaves: [leaves[i] for i in perturbed]
    return jax.jvp(of_perturbed, pick(leaves), pick(d_leaves))
