"""`pipelined_rnn`: runs the layers of a stack on several devices.

A stage is a device of a mesh axis. At tick k, stage s runs chunk k - s of the time
steps, if this chunk exists, and sends the outputs to stage s + 1.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._base import arguments, sharding
from .._base.inputs import as_sequences, as_state, output_dtype
from .._base.lengths import as_lengths
from .._base.math import where
from .._base.typing import Array, DType, Lengths, PyTree, RNNCellLike
from .._batching.packed_sequences import check_not_packed
from .._sequences.implementation import check_implementation
from .._time.alive_scan import in_chunks
from .._time.float32_sums import reader
from .._time.steps import steps_to_run
from ..memory._strategy import Strategy, as_strategy
from . import pipeline_checks as checks
from .initial_state import zero_state
from .over_time import over_time
from .pipeline_layers import PipelineLayer, layers_of_stage, states_of_stage
from .preparation import Batch, Options
from .static_rnn import stacked


def pipelined_rnn(
    cell: RNNCellLike,
    inputs: PyTree,
    sequence_length: Lengths | None = None,
    initial_state: PyTree = None,
    dtype: DType | None = None,
    *,
    axis_name: str,
    chunk: int,
    swap_memory: bool | Strategy = False,
    time_major: bool = False,
    scope: str | None = None,
    implementation: Any = None,
) -> tuple[PyTree, PyTree]:
    """Runs a stack of equal layers, divided among the devices of a mesh axis.

    Call the function inside `jax.shard_map`. Each device of the axis `axis_name` is a
    stage and holds some of the layers, in order. Time is divided into chunks: while a
    stage runs one chunk, the previous stage runs the next chunk. Results and gradients
    equal `dynamic_rnn` over a `MultiRNNCell` of the layers, including dropout, up to
    rounding. The rows may be divided over a second axis that `shard_map` maps.

    With S stages and C chunks, each stage is idle for S - 1 of C + S - 1 ticks; start
    with about four chunks per stage. At each tick, a stage sends the outputs of one
    chunk or, in the backward pass, their gradients. After the last tick, the outputs
    are summed over the stages, because only the last stage has them. In the backward
    pass, the gradients of the inputs are summed in the same way.

    For its backward pass, a stage saves the same arrays as `dynamic_rnn` for its
    layers, but for C + S - 1 chunks instead of C. `swap_memory=memory.Recompute(chunk)`
    saves only the states between chunks and the outputs of the layers.

    Args:
        cell: The cell of one layer, bound to the parameters of all layers of the stage,
            each leaf `[layers, ...]` and sharded over the stages along its first axis.
            The key, if any, is the key of the whole stack.
        inputs: As in `dynamic_rnn`, and the same on all stages. The inputs must have
            the depth and dtype of the layers' outputs.
        sequence_length: As in `dynamic_rnn`. If a row has no valid step in a chunk, the
            cell is evaluated on zeros for that row, and must return finite results.
        initial_state: The stacked states of the stage's layers, with the structure of
            `cell.state_size`, each leaf `[layers, batch, ...]` or `[layers]`; None for
            the zero state, which requires `dtype`.
        dtype: As in `dynamic_rnn`.
        axis_name: The mesh axis of the stages.
        chunk: The number of steps in a chunk. It does not need to divide the total
            number of steps.
        swap_memory: As in `dynamic_rnn`, applied to each chunk separately.
        time_major: As in `dynamic_rnn`.
        scope: The name of the loop in profiles; "pipelined_rnn" by default.
        implementation: As in `dynamic_rnn`.

    Returns:
        `(outputs, state)`. `outputs` are the outputs of the last layer, in the layout
        of `inputs`, the same on all stages. `state` holds the final states of the
        stage's layers, stacked like `initial_state`.

    Raises:
        TypeError: If `cell` is not bound, or if `inputs` do not have the dtype of the
            outputs; see also `dynamic_rnn`.
        ValueError: If `axis_name` is not a mesh axis that a `jax.shard_map` with
            `check_vma` maps; if `inputs` differ between stages, or do not have the
            depth of the outputs; if parameters or states are not stacked; if parameters
            are not sharded over the stages; if the cell closes over a traced array that
            is the same on all stages; see also `dynamic_rnn`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn
        >>> from jax.sharding import PartitionSpec as P
        >>> cell = jaxrnn.LSTMCell(5)
        >>> x = jnp.ones((4, 7, 5), jnp.float32)
        >>> keys = jax.random.split(jax.random.key(0), 2)
        >>> params = jax.vmap(lambda key: cell.init(key, x[:, 0]))(keys)
        >>> def run(params, x):
        ...     return jaxrnn.pipelined_rnn(
        ...         cell.bind(params), x, dtype=x.dtype, axis_name="stage", chunk=2
        ...     )
        >>> mesh = jax.make_mesh((1,), ("stage",))  # Or 2, on two devices.
        >>> params = jax.device_put(params, jax.NamedSharding(mesh, P("stage")))
        >>> specs = {"in_specs": (P("stage"), P()), "out_specs": (P(), P("stage"))}
        >>> outputs, state = jax.jit(jax.shard_map(run, mesh=mesh, **specs))(params, x)
        >>> outputs.shape, state.h.shape
        ((4, 7, 5), (2, 4, 5))

    Source: the schedule of arXiv:1811.06965, over chunks of time instead of rows;
    layers of a recurrent stack on several devices: arXiv:1609.08144, section 3.
    """
    arguments.check_is_cell("cell", cell)
    checks.check_is_bound(cell)
    check_implementation(implementation)
    check_not_packed(inputs)
    chunk = arguments.as_count("chunk", chunk, fix="It is a number of steps.")
    inputs = as_sequences(inputs, time_major)
    axis = 0 if time_major else 1
    batch_size = jax.tree.leaves(inputs)[0].shape[1 - axis]
    lengths = as_lengths(sequence_length, batch_size)
    if initial_state is not None:
        initial_state = as_state("initial_state", initial_state)
    dtype = output_dtype(initial_state, dtype)
    strategy = as_strategy("swap_memory", swap_memory, (cell, inputs))
    options = Options(dtype, 0, strategy, implementation=implementation)
    checks.check_mesh_axis(axis_name)
    checks.check_inputs(cell, inputs, dtype, axis_name)
    layers = layers_of_stage(cell, inputs, axis_name)
    if initial_state is None:
        states = [zero_state(cell, batch_size, dtype)] * len(layers)
    else:
        states = states_of_stage(cell, initial_state, len(layers), axis_name)
    pipeline = _Pipeline(axis_name, chunk, options)
    with jax.named_scope(arguments.as_scope(scope, "pipelined_rnn")):
        swap_time = functools.partial(jax.tree.map, lambda x: jnp.swapaxes(x, 0, axis))
        outputs, states = pipeline.run(layers, swap_time(inputs), lengths, states)
        return swap_time(outputs), stacked(states)


@dataclasses.dataclass(frozen=True)
class _Pipeline:
    """The loop of each stage.

    Attributes:
        axis_name: The mesh axis of the stages.
        chunk: The number of steps in a chunk.
        options: The options of the loop of each layer.
    """

    axis_name: str
    chunk: int
    options: Options

    def run(
        self,
        layers: list[PipelineLayer],
        xs: PyTree,
        lengths: Array | None,
        states: list,
    ) -> tuple[PyTree, list[PyTree]]:
        """Runs all steps of time-major inputs; returns `(outputs, states)`."""
        time, batch_size = jax.tree.leaves(xs)[0].shape[:2]
        if lengths is None and time % self.chunk:  # The last chunk has extra steps.
            lengths = jnp.full(batch_size, time, jnp.int32)
        longest = time
        if lengths is not None:
            lengths = jnp.minimum(lengths, time)
            longest = jnp.minimum(steps_to_run(lengths, time), time)
        # Make values vary over the devices before the loop. Otherwise the backward pass
        # would sum gradients over the devices at every tick.
        given = xs, layers, lengths
        stage = jax.lax.axis_index(self.axis_name)
        xs, layers, lengths = sharding.as_varying_as((stage, states, given), given)
        states = sharding.as_rows_of(xs, states, batch_axis=1)
        run_chunk = functools.partial(self.run_chunk, layers, lengths)
        return self.run_ticks(run_chunk, xs, states, longest)

    def run_chunk(
        self, layers: list, lengths: Array | None, start: Array, xs: PyTree, states: Any
    ) -> tuple[PyTree, list[PyTree]]:
        """Runs the layers one by one over a chunk; returns `(outputs, states)`."""
        if lengths is not None:
            lengths = jnp.clip(lengths - start, 0, self.chunk)
        new_states = []
        for layer, state in zip(layers, states, strict=True):
            layer_at: Any = dataclasses.replace(layer, offset=start)
            batch = Batch(xs, lengths, state)
            xs, state, _ = over_time(layer_at, batch, self.options)
            new_states.append(state)
        return xs, new_states

    def run_ticks(
        self, run_chunk: Callable, xs: PyTree, state: PyTree, longest: Array | int
    ) -> tuple[PyTree, PyTree]:
        """Returns the outputs of the last stage, and the final state of this stage.

        At a tick for which a stage has no chunk, the stage runs nothing, so the tick
        does not affect states and gradients.

        Args:
            run_chunk: `(start, inputs, state) -> (outputs, state)`, which runs the
                layers of this stage over the chunk that begins at step `start`. Outputs
                have the type of inputs.
            xs: Time-major inputs, each leaf `[time, batch, ...]`, varying over the
                stages. The last step is repeated to fill the last chunk.
            state: The initial state of this stage, with the same type as the state
                after a chunk.
            longest: The number of steps to run.
        """
        axis_name, chunk = self.axis_name, self.chunk
        stage, last = jax.lax.axis_index(axis_name), jax.lax.axis_size(axis_name) - 1
        to_next = [(s, s + 1) for s in range(last)]
        # If a stage has no chunk at a tick, it sends zeros and keeps its state.
        skip = lambda start, xs, state: (jax.tree.map(jnp.zeros_like, xs), state)

        def tick(carry: tuple[PyTree, PyTree], scanned: tuple[Array, PyTree]) -> Any:
            (received, state), (k, inputs) = carry, scanned
            inputs = where(stage == 0, inputs, received)
            start = (k - stage) * chunk
            has_chunk = (start >= 0) & (start < longest)
            # A select would run the stage anyway and could make gradients NaN.
            outputs, state = jax.lax.cond(has_chunk, run, skip, start, inputs, state)
            return (jax.lax.ppermute(outputs, axis_name, to_next), state), outputs

        time = jax.tree.leaves(xs)[0].shape[0]
        ticks = -(-time // chunk) + last
        chunks = jax.tree.map(lambda x: in_chunks(x, ticks, chunk), xs)
        nothing = jax.tree.map(lambda x: jnp.zeros_like(x[0]), chunks)
        # `stage` stands in for `start`, because both have the same type.
        converted, captured = jax.closure_convert(run_chunk, stage, nothing, state)
        checks.check_captured(captured, axis_name)
        read = reader(captured)  # Sums gradients in float32.
        run = lambda *args: converted(*args, *read())
        ks = jnp.arange(ticks, dtype=jnp.int32)
        (_, state), outputs = jax.lax.scan(tick, (nothing, state), (ks, chunks))
        join = lambda x: jax.lax.collapse(x[last:], 0, 2)[:time]
        outputs = jax.tree.map(join, outputs)
        outputs = where(stage == last, outputs, jax.tree.map(jnp.zeros_like, outputs))
        return jax.lax.psum(outputs, axis_name), state
