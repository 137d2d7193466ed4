"""A while loop with a bound on its steps that can be differentiated in every mode.

JAX cannot differentiate `lax.while_loop` backward, since the loop saves nothing of its
steps. A loop that is differentiated saves them: it is **the same loop that also returns
the carry before each step**, from which `recorded_steps.py` has the derivative.

A plan may say that carries are saved only now and then, or on the host. Then the while
loop is run, and a scan is differentiated in its place: `_as_while_loop` and `_as_scan`
compute the same. The second takes as many steps as the bound allows, in segments that
are skipped once the loop has ended.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._base.math import where
from .._base.run_time_checks import without_checks
from .._base.sharding import as_varying_as, zeros_of
from .._base.typing import Array, PyTree
from .._time.float32_sums import closed_over, reader
from .._time.segments import STATE, in_scan, named, save_on_host
from ..memory._strategy import CheckpointPlan
from .recorded_steps import Record, RecordedSteps, no_tangent

Step = Callable[[Array, PyTree], tuple[PyTree, PyTree]]
Condition = Callable[[Array, PyTree], Array]

# So few that their residuals take little memory, and few are run after the end.
STEPS_IN_SEGMENT = 16


def bounded_loop(
    is_running: Condition,
    step: Step,
    carry: PyTree,
    max_steps: Any,
    plan: CheckpointPlan,
) -> tuple[Array, PyTree, PyTree]:
    """Takes steps while `is_running(t, carry)`, at most `max_steps`.

    Args:
        is_running: Whether to take step t, a bool scalar; it closes over no arrays.
        step: `step(t, carry) -> (carry, y)`, where `t` is an int32 scalar and the carry
            keeps its structure, shapes and dtypes. It may close over arrays, and is
            traced once.
        carry: What the first step receives.
        max_steps: The largest number of steps, static or symbolic.
        plan: What derivatives save: the carry before each step, or before each segment
            of the plan, which is run again; segments on the host are short by default.

    Returns:
        `(n, carry, ys)`: the number of steps taken, an int32 scalar; the carry after
        them; and the y of each step, `[max_steps, ...]`, zeros for steps not taken.
    """
    zero = as_varying_as(carry, jnp.zeros((), jnp.int32))
    if isinstance(max_steps, int) and not max_steps:
        y_types = jax.eval_shape(step, zero, carry)[1]
        return zero, carry, zeros_of(y_types, 0, carry)
    checked, arrays, (_, y_types) = closed_over(step, zero, carry)

    @jax.custom_jvp
    def while_loop(arrays: list, carry: PyTree) -> tuple[Array, PyTree, PyTree]:
        step = functools.partial(checked, arrays)
        return _as_while_loop(is_running, step, carry, max_steps, y_types)

    def scan(arrays: list, carry: PyTree) -> tuple[Array, PyTree, PyTree]:
        read = reader(arrays)
        step = lambda t, carry: checked(read(), t, carry)
        return _as_scan(is_running, step, carry, max_steps, y_types, plan)

    has_segments = plan.segments or plan.on_host or not isinstance(max_steps, int)
    of_loop = is_running, checked, max_steps, plan
    by_record = functools.partial(_jvp_by_record, *of_loop)
    by_scan = functools.partial(_jvp_of_perturbed, scan)
    rule = by_scan if has_segments else by_record
    while_loop.defjvp(rule, symbolic_zeros=True)
    return while_loop(arrays, carry)


def _jvp_by_record(
    is_running: Condition,
    checked: Callable,
    max_steps: int,
    plan: CheckpointPlan,
    primals: tuple,
    tangents: tuple,
) -> tuple[Any, Any]:
    """The loop that also returns the carry before each step, and its tangents."""
    (arrays, first), (d_arrays, d_first) = primals, tangents
    # `checkify` does not change derivative rules; an export refuses their checks.
    pure = without_checks(checked)

    def recording(t: Array, carry: PyTree) -> tuple[PyTree, PyTree]:
        after, y = pure(arrays, t, carry)
        return after, (y, carry)

    loop = bounded_loop(is_running, recording, first, max_steps, plan)
    count, last, (ys, carries) = loop
    perturbed = [i for i, d in enumerate(d_arrays) if isinstance(d, jax.Array)]
    steps = RecordedSteps(pure, max_steps, perturbed)
    record = Record(arrays, first, carries, count)
    d_outs = steps.tangent(record, d_arrays, d_first, (last, ys))
    return (count, last, ys), (no_tangent(count), *d_outs)


def _jvp_of_perturbed(fn: Callable, primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    """`jax.jvp(fn, primals, tangents)`, where tangents may be symbolic zeros."""
    leaves, structure = jax.tree.flatten(primals)
    d_leaves = jax.tree.leaves(tangents)
    perturbed = [i for i, d in enumerate(d_leaves) if isinstance(d, jax.Array)]

    def of_perturbed(*given: Array) -> PyTree:
        replaced = dict(zip(perturbed, given, strict=True))
        all_leaves = [replaced.get(i, leaf) for i, leaf in enumerate(leaves)]
        return fn(*structure.unflatten(all_leaves))

    pick = lambda leaves: [leaves[i] for i in perturbed]
    return jax.jvp(of_perturbed, pick(leaves), pick(d_leaves))


def _as_while_loop(
    is_running: Condition, step: Step, carry: PyTree, max_steps: Any, y_types: PyTree
) -> tuple[Array, PyTree, PyTree]:
    """`bounded_loop` as a while loop, which is as fast as can be."""
    buffers = zeros_of(y_types, max_steps, carry)
    zero = as_varying_as(carry, jnp.zeros((), jnp.int32))

    def goes_on(loop: Any) -> Array:
        t, carry, _ = loop
        return (t < max_steps) & is_running(t, carry)

    def body(loop: Any) -> Any:
        t, carry, ys = loop
        carry, y = step(t, carry)
        put = lambda ys, y: jax.lax.dynamic_update_index_in_dim(ys, y, t, 0)
        return t + 1, carry, jax.tree.map(put, ys, y)

    return jax.lax.while_loop(goes_on, body, (zero, carry, buffers))


def _as_scan(
    is_running: Condition,
    step: Step,
    carry: PyTree,
    max_steps: int,
    y_types: PyTree,
    plan: CheckpointPlan,
) -> tuple[Array, PyTree, PyTree]:
    """`bounded_loop` as a scan, which has derivatives.

    Its segments are skipped once the loop has ended. In a segment in which it ends,
    further steps are the first one again, and dropped: it is as finite as the loop is.
    """
    first = as_varying_as(carry, jnp.zeros((), jnp.int32)), carry

    def goes_on(loop: Any) -> Array:
        t, carry = loop
        return (t < max_steps) & is_running(t, carry)

    def one_step(loop: Any, _: None) -> tuple[Any, PyTree]:
        is_taken = goes_on(loop)
        t, carry = where(is_taken, loop, first)
        carry, y = step(t, carry)
        zeros = jax.tree.map(jnp.zeros_like, y)
        loop = where(is_taken, (t + 1, carry), loop)
        return loop, where(is_taken, y, zeros)

    sizes = plan.segments or (STEPS_IN_SEGMENT,)
    body, types, steps = one_step, y_types, 1
    for depth, size in reversed(list(enumerate(sizes))):
        count = -(-min(size, max_steps) // steps)
        on_host = plan.on_host and not depth
        body = _segment(goes_on, body, count, types, on_host)
        types = jax.eval_shape(functools.partial(zeros_of, types, count, ()))
        steps *= count
    loop, ys = jax.lax.scan(body, first, None, length=-(-max_steps // steps))
    flat = lambda y: y.reshape(-1, *y.shape[len(sizes) + 1 :])[:max_steps]
    return *loop, jax.tree.map(flat, ys)


def _segment(
    goes_on: Callable, body: Callable, count: int, types: PyTree, on_host: bool
) -> Callable:
    """The body of a scan over segments, each of `count` steps of `body`."""

    def segment(loop: Any, _: None) -> tuple[Any, PyTree]:
        loop = named(STATE, loop) if on_host else loop
        run = lambda loop: jax.lax.scan(body, loop, None, length=count)
        skip = lambda loop: (loop, zeros_of(types, count, loop))
        return jax.lax.cond(goes_on(loop), run, skip, loop)

    # Around the condition, which would save a copy of all that is closed over.
    return in_scan(segment, save_on_host((STATE,)) if on_host else None)
