"""Scans over the steps of a sequence.

* `scan_steps` runs a cell step by step. This scan is the reference: every faster loop
  must give the same results.
* `checkpointed_run` runs a sequence part by part, to save less for the backward
  pass. A scan over parts, whose body is under `jax.checkpoint`, saves the state
  before each part and reruns the part in the backward pass. A policy can store
  named arrays in host memory between the forward and backward passes.
* `at_each_step` maps a function over steps that do not depend on each other.
"""

import functools
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from .._base.derivatives import straight_through, with_float32_gradients
from .._base.math import is_float
from .._base.mesh import in_explicit_mesh_of
from .._base.typing import Array, PyTree
from . import masking
from .memory import STATE
from .run import Run

Apply: TypeAlias = Callable[[Array, PyTree, PyTree], tuple[PyTree, PyTree]]
"""`apply(t, inputs, state) -> (output, new_state)` runs step t of the whole run."""

RunPart: TypeAlias = Callable[[Run], tuple[PyTree, PyTree]]
"""`run_part(part) -> (outputs, state)` runs all steps of `part`."""


def scan_steps(apply: Apply, run: Run, unroll: int = 1) -> tuple[PyTree, PyTree]:
    """Runs all steps one after another, and returns `(outputs, state)`.

    Several steps run in a `lax.scan`. A single step runs without a loop.

    Args:
        apply: Runs one step.
        run: All steps. If `run.steps.returns_states` is true, the outputs are pairs
            `(output, new_state)`.
        unroll: The number of steps unrolled in each iteration; 1 if the number of steps
            is symbolic.
    """
    steps = run.steps
    reset_state = with_float32_gradients(run.reset_state)

    def step(state: PyTree, scanned: tuple[Array, PyTree]) -> tuple[PyTree, PyTree]:
        t, inputs = scanned
        call = functools.partial(apply, steps.index_in_run(t))
        state, output, _ = steps.run_step(call, t, inputs, state, reset_state())
        return state, output

    if isinstance(steps.time, int) and steps.time == 1:
        first = jnp.int32(0), masking.first_inputs(run.inputs, steps.axis)
        state, output = step(run.state, first)
        output = jax.tree.map(lambda y: jnp.expand_dims(y, steps.axis), output)
        return output, jax.tree.map(jnp.asarray, state)
    ts = jnp.arange(steps.time, dtype=jnp.int32)
    unroll = unroll if isinstance(steps.time, int) else 1
    scanned = ts, steps.to_time_major(run.inputs)
    with in_explicit_mesh_of(run.inputs):
        state, outputs = jax.lax.scan(step, run.state, scanned, unroll=unroll)
    return steps.from_time_major(outputs), state


def checkpointed_run(
    size: int, run_part: RunPart, run: Run, on_host: tuple[str, ...] = ()
) -> tuple[PyTree, PyTree]:
    """Runs a sequence in parts; derivatives save only the state before each part.

    Args:
        size: The number of steps in a part.
        run_part: `run_part(part) -> (outputs, state)`, where the outputs have the same
            axes as the inputs of the part. The function may close over arrays.
        run: All steps, at least one.
        on_host: The names of arrays to store in host memory: empty, `STATE`, or `STATE`
            and `RESIDUALS`. Stored residuals are not recomputed.
    """
    steps = run.steps
    steps_first = steps.time_first()
    reset_state_in_loop = with_float32_gradients(run.reset_state)
    size = min(size, steps.time)
    count, remaining = divmod(steps.time, size)

    def run_next(size: int, state: PyTree, scanned: PyTree) -> tuple[PyTree, PyTree]:
        start, own = scanned
        state = named(STATE, state) if on_host else state
        # A part receives its inputs twice: as a slice of all inputs, and as `own`,
        # which comes from the scan over parts. Values are read from the slice, which
        # copies only these steps. Gradients go to `own`, whose values are never read,
        # because the gradient of a slice is an array as long as all inputs, and each
        # part would add such an array.
        inputs = jax.tree.map(
            lambda x: jax.lax.dynamic_slice_in_dim(x, start, size, steps.axis),
            run.inputs,
        )
        inputs = jax.tree.map(straight_through, steps.to_time_major(inputs), own)
        part = run.replace(
            inputs=inputs,
            state=state,
            steps=steps_first.slice(start, size),
            reset_state=reset_state_in_loop(),
        )
        outputs, state = run_part(part)
        return state, outputs

    def body(size: int) -> Callable:
        policy = save_on_host(on_host) if on_host else None
        return checkpointed(functools.partial(run_next, size), policy)

    whole = count * size
    xs_first = steps.to_time_major(run.inputs)
    parts = jax.tree.map(
        lambda x: x[:whole].reshape(count, size, *x.shape[1:]), xs_first
    )
    starts = jnp.arange(count, dtype=jnp.int32) * size
    state, outputs = jax.lax.scan(body(size), run.state, (starts, parts))
    outputs = jax.tree.map(lambda y: jax.lax.collapse(y, 0, 2), outputs)
    if remaining:
        part = jax.tree.map(lambda x: x[whole:], xs_first)
        state, last = body(remaining)(state, (jnp.int32(whole), part))
        outputs = jax.tree.map(lambda *ys: jnp.concatenate(ys), outputs, last)
    return steps.from_time_major(outputs), state


def run_in_parts(size: int, run_part: RunPart, run: Run) -> tuple[PyTree, PyTree]:
    """Calls `run_part(part)` for each part of `size` steps.

    If there are several parts, derivatives save the state before each part, and rerun
    the part. If there are at most `size` steps, `run_part` is called once.
    """
    if size < run.steps.time:
        return checkpointed_run(size, run_part, run)
    return run_part(run)


def checkpointed(body: Callable, policy: Callable | None = None) -> Callable:
    """Checkpoints a scan's body; without a policy, saves only the body's arguments."""
    return jax.checkpoint(body, prevent_cse=False, policy=policy)


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


def at_each_step(fn: Callable[..., PyTree], *sequences: object) -> PyTree:
    """Maps `fn` over steps, so that a matrix product in `fn` covers all steps.

    Args:
        fn: A function of one step of each sequence, with leaves `[batch, ...]`, which
            computes each row separately.
        sequences: Each leaf `[batch, time, ...]`, or all `[time, batch, ...]`. The
            values must be finite in finished rows too. Otherwise, derivatives may be
            NaN.

    Returns:
        The results of `fn`, with the same first two axes as the sequences.
    """
    # Always map over the first axis, even if it is the batch axis, so that `fn` sees
    # steps as rows. A map over the second axis would make XLA transpose all arrays.
    return jax.vmap(fn)(*sequences)
