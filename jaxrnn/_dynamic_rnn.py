"""`dynamic_rnn`: a cell over the steps of padded sequences, one compiled loop."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from . import _masking
from ._arguments import (
    as_lengths,
    as_scope,
    as_sequences,
    as_state,
    as_unroll,
    check_cell,
    check_swap_memory,
    check_time_major,
)
from ._initial_state import output_dtype, zero_state
from ._keys import cell_at_step
from ._probe import probe
from ._sharding import lay_out
from ._trees import is_pytree_of_arrays
from ._typing import Array, ArrayLike, DType, PyTree, RNNCellLike


def dynamic_rnn(
    cell: RNNCellLike,
    inputs: PyTree,
    sequence_length: ArrayLike | None = None,
    initial_state: PyTree = None,
    dtype: DType | None = None,
    parallel_iterations: int | None = None,
    swap_memory: bool = False,
    time_major: bool = False,
    scope: str | None = None,
) -> tuple[PyTree, PyTree]:
    """Runs `cell` over the time axis of `inputs`.

    Args:
        cell: A bound cell (`cell.bind(params)`), or any object with `state_size`,
            `output_size`, `zero_state` and a call `(inputs, state) -> (output,
            new_state)`.
        inputs: `[batch, time, ...]`, or `[time, batch, ...]` if `time_major`; or a nest
            of such arrays that agree in time and batch. The cell sees one step of the
            same nest, each leaf `[batch, ...]`.
        sequence_length: `[batch]`, integers: how many steps of each row count. Past its
            length a row puts out zeros and keeps its state; what the inputs hold there
            (NaN included) changes no output, state or gradient. Lengths beyond the time
            axis count as all of it, negative ones as 0. A row of length 0 shows the
            cell zeros, at which it has to be finite. None: all steps count.
        initial_state: A state of the structure of `cell.state_size`, each leaf
            `[batch, ...]`; leaves without axes are carried along unmasked. None
            for the cell's zero state, which needs `dtype`.
        dtype: The dtype of the zero state and of the outputs; None for that of
            `initial_state`, if its leaves share one.
        parallel_iterations: A hint: this many steps, up to 4, are unrolled per turn of
            the loop. Changes values by no more than rounding.
        swap_memory: Taken for TensorFlow's sake; never changes values.
        time_major: Whether time is the first axis of inputs and outputs, which saves
            two transposes.
        scope: The name of the loop in profiles; "rnn" by default.

    Returns:
        `(outputs, state)`: the outputs in the structure of `cell.output_size`, each
        leaf `[batch, time, ...]` (`[time, batch, ...]` if `time_major`); the state
        after each row's last step, in the structure of the state that went in.

    Raises:
        TypeError: If `cell` is not a cell, or does not keep the dtypes of its state; if
            an argument is of the wrong kind.
        ValueError: If `inputs` are missing or of rank below 3; if shapes disagree; if
            neither `initial_state` nor `dtype` is given.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn
        >>> cell = jaxrnn.LSTMCell(5)
        >>> x = jnp.ones((4, 7, 3), jnp.float32)
        >>> params = cell.init(jax.random.key(0), x[:, 0])
        >>> outputs, state = jaxrnn.dynamic_rnn(
        ...     cell.bind(params), x, sequence_length=[7, 0, 3, 1], dtype=jnp.float32
        ... )
        >>> outputs.shape, state.h.shape
        ((4, 7, 5), (4, 5))

    Source: `tf.compat.v1.nn.dynamic_rnn`.
    """
    where = "dynamic_rnn"
    check_cell(where, "cell", cell)
    unroll = as_unroll(where, parallel_iterations)
    check_swap_memory(where, swap_memory)
    check_time_major(where, time_major)
    inputs = as_sequences(where, inputs, time_major)
    batch_size = jax.tree.leaves(inputs)[0].shape[1 if time_major else 0]
    lengths = as_lengths(where, sequence_length, batch_size)
    if initial_state is not None:
        initial_state = as_state(where, "initial_state", initial_state)
    dtype = output_dtype(where, initial_state, dtype)
    run = _run_compiled if _is_known_by_value(cell) else _run
    with jax.named_scope(as_scope(where, scope, "rnn")):
        return run(
            cell,
            inputs,
            lengths,
            initial_state,
            dtype=dtype,
            unroll=unroll,
            time_major=bool(time_major),
        )


def _is_known_by_value(cell: RNNCellLike) -> bool:
    """Whether one compilation serves all that are equal to this cell."""
    unbound = getattr(cell, "cell", None)
    return is_pytree_of_arrays(cell) and not getattr(
        unbound, "closes_over_arrays", False
    )


def _run(
    cell: RNNCellLike,
    inputs: PyTree,
    lengths: Array | None,
    initial_state: PyTree,
    *,
    dtype: DType,
    unroll: int,
    time_major: bool,
) -> tuple[PyTree, PyTree]:
    xs = inputs if time_major else _swap_time_and_batch(inputs)
    time, batch_size = jax.tree.leaves(xs)[0].shape[:2]
    state = initial_state
    if state is None:
        state = zero_state("dynamic_rnn", cell, batch_size, dtype)
    cell, lengths, state = lay_out(cell, xs, lengths, state)
    inputs_0 = _masking.first_inputs(xs)
    probe("dynamic_rnn", cell, inputs_0, state, dtype, strict=lengths is not None)

    if lengths is None:
        step = functools.partial(_step, cell)
    else:
        bound = _masking.steps_to_run(lengths)
        first = _masking.first_step(lengths, inputs_0, state)
        step = functools.partial(_masked_step, cell, lengths, bound, first)
    ts = jnp.arange(time, dtype=jnp.int32)
    # A symbolic time cannot be split into turns of several steps.
    unroll = unroll if isinstance(time, int) else 1
    state, outputs = jax.lax.scan(step, state, (ts, xs), unroll=unroll)
    # Without lengths a list passes for a tuple; the declared kind is what comes back.
    outputs = _like(cell.output_size, outputs)
    return (outputs if time_major else _swap_time_and_batch(outputs)), state


# Eagerly, a loop over a new closure would compile on every call.
_run_compiled = jax.jit(
    _run, static_argnames=("dtype", "unroll", "time_major"), inline=True
)


def _step(
    cell: RNNCellLike, state: PyTree, scanned: tuple[Array, PyTree]
) -> tuple[PyTree, PyTree]:
    t, inputs = scanned
    output, new_state = cell_at_step(cell, t)(inputs, state)
    return _like(state, new_state), output


def _masked_step(
    cell: RNNCellLike,
    lengths: Array,
    bound: Array,
    first: PyTree,
    state: PyTree,
    scanned: tuple[Array, PyTree],
) -> tuple[PyTree, PyTree]:
    t, inputs = scanned
    alive, running = t < lengths, t < bound
    seen = _masking.shown(alive, running, inputs, state, first)
    output, new_state = cell_at_step(cell, t)(*seen)
    new_state = _masking.advance(alive, running, new_state, state)
    return new_state, _masking.zero_dead(alive, output)


def _like(structure: Any, tree: PyTree) -> PyTree:
    """The leaves of `tree` in the nest of `structure`."""
    return jax.tree.unflatten(jax.tree.structure(structure), jax.tree.leaves(tree))


def _swap_time_and_batch(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), tree)
