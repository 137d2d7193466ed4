"""Runs sequences segment by segment, to save less for the backward pass.

A scan over segments, whose body is under `jax.checkpoint`, saves the state before each
segment and reruns the segment in the backward pass. A policy can store named arrays in
host memory between the forward and backward passes.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from .._base.math import is_float
from .._base.typing import Array, PyTree
from .scans import in_scan, with_tangent_of
from .steps import Steps

RunSteps = Callable[[PyTree, PyTree, Steps], tuple[PyTree, PyTree]]

# The `checkpoint_name`s of arrays that a strategy may store on the host: the state
# before a segment, and the residuals of a loop.
STATE = "jaxrnn_state"
RESIDUALS = "jaxrnn_residuals"


def named(name: str, tree: PyTree) -> PyTree:
    """Names the floating-point arrays of a tree, except scalars, which are small."""
    return jax.tree.map(
        lambda x: checkpoint_name(x, name) if is_float(x) and x.ndim > 0 else x, tree
    )


def save_on_host(names: tuple[str, ...]) -> Callable:
    """Returns a policy of `jax.checkpoint` that saves named arrays on the host."""
    return jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=list(names),
        offload_src="device",
        offload_dst="pinned_host",
    )


def segmented_run(
    sizes: tuple[int, ...],
    on_host: tuple[str, ...],
    run: RunSteps,
    xs: PyTree,
    state: PyTree,
    steps: Steps,
) -> tuple[PyTree, PyTree]:
    """Calls `run` on segments; derivatives save only the states between segments.

    Args:
        sizes: The segment sizes, in steps, from the outermost to the innermost level of
            nested segments. If `sizes` is empty, derivatives save all residuals.
        on_host: The names of arrays to store in host memory: empty, `STATE`, or `STATE`
            and `RESIDUALS`. Stored residuals are not recomputed.
        run: `run(xs, state, steps) -> (outputs, state)`, where the outputs have the
            same axes as `xs`. The function may close over arrays. For a segment, it
            returns the segment's outputs.
        xs: Inputs, time along `steps.axis`.
        state: The initial state.
        steps: The time axis of `xs`, with at least one step.
    """
    if not sizes:
        return run(xs, state, steps)
    steps_first = steps.time_first()
    size = min(sizes[0], steps.time)
    count, remaining = divmod(steps.time, size)

    def segment(size: int, state: PyTree, scanned: PyTree) -> tuple[PyTree, PyTree]:
        start, part = scanned
        state = named(STATE, state) if on_host else state
        inputs = _inputs_of_segment(xs, start, size, steps, part)
        steps_of_segment = steps_first.slice(start, size)
        outputs, state = segmented_run(
            sizes[1:], (), run, inputs, state, steps_of_segment
        )
        return state, outputs

    def body(size: int) -> Callable:
        policy = save_on_host(on_host) if on_host else None
        return in_scan(functools.partial(segment, size), policy)

    whole = count * size
    xs_first = steps.swap_time(xs)
    parts = jax.tree.map(
        lambda x: x[:whole].reshape(count, size, *x.shape[1:]), xs_first
    )
    starts = jnp.arange(count, dtype=jnp.int32) * size
    state, outputs = jax.lax.scan(body(size), state, (starts, parts))
    outputs = jax.tree.map(lambda y: jax.lax.collapse(y, 0, 2), outputs)
    if remaining:
        part = jax.tree.map(lambda x: x[whole:], xs_first)
        state, last = body(remaining)(state, (jnp.int32(whole), part))
        outputs = jax.tree.map(lambda *ys: jnp.concatenate(ys), outputs, last)
    return steps.swap_time(outputs), state


def _inputs_of_segment(
    xs: PyTree, start: Array | int, size: int, steps: Steps, part: PyTree
) -> PyTree:
    """Returns the inputs of the `size` steps from `start` on, `[time, batch, ...]`.

    A segment receives its inputs twice: as a slice of `xs`, and as `part`, which comes
    from the scan over segments. The values are read from the slice, which copies no
    other steps. The gradient goes to `part`, whose values are never read. The gradient
    of the slice would also be correct, but each segment would add this gradient to the
    gradient of all inputs.
    """
    values = jax.tree.map(
        lambda x: jax.lax.dynamic_slice_in_dim(x, start, size, steps.axis), xs
    )
    values = steps.swap_time(values)
    return jax.tree.map(with_tangent_of, values, part)


def run_in_segments(
    size: int, run: RunSteps, xs: PyTree, state: PyTree, steps: Steps
) -> tuple[PyTree, PyTree]:
    """Calls `run(xs, state, steps)` in segments of `size` steps; a shorter run at once.

    If there are several segments, derivatives save the state before each segment and
    rerun the segment. The other arguments are as in `segmented_run`.
    """
    sizes = (size,) if size < steps.time else ()
    return segmented_run(sizes, (), run, xs, state, steps)
