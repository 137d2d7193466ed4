"""`dynamic_rnn`: a cell over the steps of padded sequences, in one compiled loop."""

from typing import Any

import jax

from .._base.arguments import as_bool, as_scope, as_unroll, check_is_cell
from .._base.inputs import as_sequences, as_state, output_dtype
from .._base.lengths import as_lengths
from .._base.typing import ArrayLike, DType, Lengths, PyTree, RNNCellLike
from .._base.unknown_arguments import hints_at_unknown_arguments
from .._batching.packed_sequences import check_not_packed
from .._sequences.implementation import check_implementation
from .._tensor_array.carried import with_capacity_for
from ..memory._strategy import Strategy, as_strategy
from .masks import as_mask
from .over_time import over_time
from .preparation import Batch, Options
from .resets import as_resets


@hints_at_unknown_arguments
def dynamic_rnn(
    cell: RNNCellLike,
    inputs: PyTree,
    sequence_length: Lengths | None = None,
    initial_state: PyTree = None,
    dtype: DType | None = None,
    parallel_iterations: int | None = None,
    swap_memory: bool | Strategy = False,
    time_major: bool = False,
    scope: str | None = None,
    *,
    resets: ArrayLike | None = None,
    reset_state: PyTree = None,
    implementation: Any = None,
    mask: ArrayLike | None = None,
    return_states: bool = False,
) -> tuple[PyTree, ...]:
    """The outputs of a cell at all steps of `inputs`, and its final state.

    Past its length a row outputs zeros and keeps its state, so the final state is that
    after each row's own last step.

    Cells made of products and elementwise updates (`AffineCell`, such as LSTMs and
    GRUs), and stacks, residuals and dropout of these, run over whole sequences at once:
    the gradients of weights are computed in large products, and the loop ends near the
    longest length. Linear recurrences (`LinearRecurrenceCell`) and `MLSTMCell` compute
    many steps in parallel, over the whole time axis. Any other cell is run step by step
    over the whole time axis; the logger "jaxrnn" reports this, with the reason, at
    level DEBUG.

    Args:
        cell: A bound cell (`cell.bind(params)`), or any object with `state_size`,
            `output_size`, `zero_state` and a call `(inputs, state) -> (output,
            new_state)`.
        inputs: `[batch, time, ...]`, or `[time, batch, ...]` if `time_major`; or a nest
            of such arrays that agree in time and batch. The cell receives one step of
            the same nest, each leaf `[batch, ...]`.
        sequence_length: `[batch]`, integers, clamped to `[0, time]`; None for `time`.
            Past its length a row outputs zeros and keeps its state; the inputs there
            (NaN included) affect no output, state or gradient. In rows without
            a step the cell is evaluated on zeros, and must be finite there.
        initial_state: A state of the structure of `cell.state_size`, each leaf
            `[batch, ...]`; leaves without axes belong to no row, and change until
            the longest row ends. As in TensorFlow, without lengths a plain `(c, h)` may
            replace an `LSTMStateTuple`, and is returned; with lengths it is a
            TypeError. None for the zero state of the cell, which needs `dtype`.
        dtype: The dtype of the zero state and of the outputs; None for that of
            `initial_state`, if its leaves share one.
        parallel_iterations: The number of steps to unroll per loop iteration, up to 4,
            where the cell is run step by step; cells that run whole sequences at once
            ignore it. Changes values by rounding at most.
        swap_memory: What the forward pass saves for the backward pass: False for all
            that it reads; True, or a strategy of `jaxrnn.memory`, for long sequences.
            True recomputes segments of about sqrt(time) steps from states that are
            stored in host memory, if the device has separate memory. Changes values by
            rounding at most.
        time_major: Whether time is the first axis of inputs and outputs, which saves
            two transposes.
        scope: The name of the loop in profiles; "rnn" by default.
        resets: Bool `[batch, time]`, or `[time, batch]` if `time_major`: where it is
            true, the row's state is set to `reset_state` before the step, as at the
            first step of an episode: the `done` of a step belongs to the next one. What
            came before, NaN included, reaches no output or state after it, and no
            gradient of inputs after it. (A gradient of parameters is a sum over all
            steps, so NaN in any episode makes it NaN.) Resets past the length are
            ignored.
        reset_state: The state that resets go to, as `initial_state`, each leaf
            `[batch, ...]`; leaves without axes, and read-only parts, are not reset.
            None for the zero state of the cell, also where an `initial_state` is given.
        implementation: What runs the loop of an `AffineCell`: "xla" for a loop compiled
            by XLA; "native" for that of the package's library, for LSTMs, GRUs and
            basic RNNs with tanh, relu or sigmoid in float32 on CPUs; "cudnn" for
            cuDNN's LSTM, for plain LSTMs in float32, traced on a machine with an
            NVIDIA GPU. None for "native" on one CPU device, where it was built and can
            run the cell, and in `shard_map` over CPU devices; else "xla".
        mask: Bool `[batch, time]`, or `[time, batch]` if `time_major`, in place of
            `sequence_length`: the steps that count. At the others a row keeps its
            state and outputs zeros, and its inputs (NaN included) have no effect; a
            reset there takes effect at the row's next step that counts. Random numbers
            are drawn from the keys of steps 0, 1, ... of those that count. None for the
            steps before the lengths.
        return_states: Whether to return the state after every step as well. That before
            a step is the one after the step before, or the initial state.

    Returns:
        `(outputs, state)`: the outputs in the structure of `cell.output_size`, each
        leaf `[batch, time, ...]` (`[time, batch, ...]` if `time_major`); the state
        after the last step of each row, in the structure of the initial state.
        With `return_states`, `(outputs, state, states)`: the states in the structure
        of `state`, each leaf with the axes of the outputs. A step past the length of a
        row, or masked, has the state that the row keeps.

    Raises:
        TypeError: If `cell` is not a cell, or does not keep the dtypes of its state; if
            an argument is of the wrong kind.
        ValueError: If `inputs` are None or of rank below 3, or hold no array (then it
            is an IndexError as well, as in TensorFlow); if shapes disagree; if neither
            `initial_state` nor `dtype` is given; if there is a `reset_state` and no
            `resets`; if there is a `mask` beside `sequence_length`; if
            `implementation` cannot run this cell; with `return_states`, if a leaf of
            the state has no axis of rows.

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
    caller = "dynamic_rnn"
    check_is_cell(caller, "cell", cell)
    check_implementation(caller, implementation)
    unroll = as_unroll(caller, parallel_iterations)
    as_bool(caller, "return_states", return_states)
    beside = cell, inputs, initial_state
    strategy = as_strategy(caller, "swap_memory", swap_memory, beside)
    check_not_packed(caller, inputs)
    inputs = as_sequences(caller, inputs, time_major)
    axis = 0 if time_major else 1
    shape = jax.tree.leaves(inputs)[0].shape
    checked_resets = as_resets(caller, resets, reset_state, shape[:2], axis)
    mask, sequence_length = as_mask(caller, mask, sequence_length, shape[:2], axis)
    lengths = as_lengths(caller, sequence_length, shape[1 - axis])
    if initial_state is not None:
        initial_state = with_capacity_for(initial_state, shape[axis])
        initial_state = as_state(caller, "initial_state", initial_state)
    dtype = output_dtype(caller, initial_state, dtype)
    batch = Batch(inputs, lengths, initial_state, resets=checked_resets, mask=mask)
    how = strategy, unroll, implementation, return_states
    with jax.named_scope(as_scope(caller, scope, "rnn")):
        results = over_time(cell, batch, Options(caller, dtype, axis, *how))
    return tuple(results) if return_states else tuple(results[:2])
