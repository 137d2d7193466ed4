"""The loop of `pipelined_rnn` over ticks, as each stage runs it.

A stage is a device of a mesh axis. At tick k stage s runs chunk k - s of the steps, if
there is one, and sends its outputs to stage s + 1.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._base.typing import Array, PyTree
from .._time.alive_scan import in_chunks
from .stages import check_captured


def run_ticks(
    run_chunk: Callable[[Array, PyTree, PyTree], tuple[PyTree, PyTree]],
    inputs: PyTree,
    state: PyTree,
    running: Array | int,
    chunk: int,
    axis_name: str,
) -> tuple[PyTree, PyTree]:
    """`(outputs, state)`: the outputs of the last stage, the final state of this one.

    At a tick without a chunk nothing is run: it adds nothing to states and gradients.

    Args:
        run_chunk: `(start, inputs, state) -> (outputs, state)`, the layers of this
            stage over the steps from `start` on; outputs have the type of the inputs.
        inputs: Time-major, each leaf `[time, batch, ...]`, varying over the stages.
            Zeros follow them, up to a whole chunk.
        state: The initial state of this stage, of the type of the state after a chunk.
        running: The number of steps that are run.
        chunk: The number of steps in a chunk.
        axis_name: The mesh axis of the stages.
    """
    stage, last = jax.lax.axis_index(axis_name), jax.lax.axis_size(axis_name) - 1
    to_next = [(s, s + 1) for s in range(last)]

    def tick(carry: tuple[PyTree, PyTree], xs: tuple[Array, PyTree]) -> Any:
        (received, state), (k, read) = carry, xs
        inputs = _where(stage == 0, read, received)
        start = (k - stage) * chunk
        is_active = (start >= 0) & (start < running)
        # Not a select: what is not run cannot make a gradient NaN.
        outputs, state = jax.lax.cond(is_active, run, _skip, start, inputs, state)
        return (jax.lax.ppermute(outputs, axis_name, to_next), state), outputs

    time = jax.tree.leaves(inputs)[0].shape[0]
    ticks = -(-time // chunk) + last
    chunks = jax.tree.map(lambda x: in_chunks(x, ticks, chunk), inputs)
    nothing = jax.tree.map(lambda x: jnp.zeros_like(x[0]), chunks)
    # The stage has the type of a start.
    converted, captured = jax.closure_convert(run_chunk, stage, nothing, state)
    check_captured("pipelined_rnn", captured, axis_name)
    run = lambda *args: converted(*args, *captured)
    ks = jnp.arange(ticks, dtype=jnp.int32)
    (_, state), outputs = jax.lax.scan(tick, (nothing, state), (ks, chunks))
    outputs = jax.tree.map(lambda x: jax.lax.collapse(x[last:], 0, 2)[:time], outputs)
    outputs = _where(stage == last, outputs, jax.tree.map(jnp.zeros_like, outputs))
    return jax.lax.psum(outputs, axis_name), state


def _skip(start: Array, inputs: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
    """What a stage returns at a tick without a chunk."""
    del start
    return jax.tree.map(jnp.zeros_like, inputs), state


def _where(condition: Array, tree: PyTree, other: PyTree) -> PyTree:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), tree, other)
