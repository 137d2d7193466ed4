"""`packed_rnn`: runs a cell over sequences that are stored end to end in rows."""

import jax
import jax.numpy as jnp

from .._base import sharding
from .._base.arguments import as_bool, as_scope, check_instance
from .._base.errors import expect
from .._base.inputs import as_arrays, check_no_plain_tuple, output_dtype
from .._base.trees import has_read_only, with_tuples_of
from .._base.typing import Array, DType, PyTree, RNNCellLike, bound_or_none
from .._batching.packed_sequences import PackedSequences, check_whole, with_first_axes
from .._hints import with_hints
from .._run import masking
from .._run.arguments import fix_of_rows
from .._run.first_step import rows_interact, zero_state
from .._run.masking import Restarts, Steps, read_rows
from .._run.run import Run
from .._run.run_cell import Options, run_cell
from ..memory import Strategy, as_strategy, plan_of
from .arguments import check_is_cell


@with_hints
def packed_rnn(
    cell: RNNCellLike,
    packed: PackedSequences,
    initial_state: PyTree = None,
    dtype: DType | None = None,
    scope: str | None = None,
    *,
    swap_memory: bool | Strategy = False,
    return_states: bool = False,
) -> tuple[PyTree, ...]:
    """Runs `cell` over packed sequences, each from its own initial state.

    The results of each sequence are the same as in a padded batch with `dynamic_rnn`,
    but the cost is proportional to the sum of the lengths. Random keys are numbered by
    the steps of the packed row, not by the steps of the sequence.

    Args:
        cell: As in `dynamic_rnn`.
        packed: Sequences from `pack_sequences`. If `packed.inputs` holds more than the
            cell's inputs, select the inputs with
            `dataclasses.replace(packed, inputs=...)`.
        initial_state: The state before the first step of each sequence, each leaf
            `[sequences, ...]`; None for the cell's zero state, which requires `dtype`.
        dtype: As in `dynamic_rnn`.
        scope: The name of the loop in profiles; "rnn" by default.
        swap_memory: As in `dynamic_rnn`. The states of all steps stay on the device,
            because the last state of each sequence is read from them.
        return_states: Whether to also return the state after every step. These states
            cost little extra, because `state` is read from them.

    Returns:
        `(outputs, state)`. `outputs` has the layout of `packed.inputs`, which is
        `[row_length, rows, ...]` if the pack is time-major, otherwise `[rows,
        row_length, ...]`. Outputs are zeros at steps that belong to no sequence;
        `packed.unpack(outputs)` returns a padded batch of sequences. `state` is the
        state after the last step of each sequence, each leaf `[sequences, ...]`. With
        `return_states`, the result is `(outputs, state, states)`, where `states` has
        the layout of `outputs`.

    Raises:
        TypeError: If `packed` does not come from `pack_sequences`; see also
            `dynamic_rnn`.
        ValueError: If the arrays of `packed` were sliced or concatenated; if `packed`
            is a result of `stack_packed`, which requires `jax.vmap`; if a leaf of
            `initial_state` does not have one row for each sequence; if the rows of the
            cell interact; see also `dynamic_rnn`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn
        >>> cell = jaxrnn.LSTMCell(5)
        >>> x = jnp.ones((4, 7, 3), jnp.float32)
        >>> params = cell.init(jax.random.key(0), x[:, 0])
        >>> packed = jaxrnn.pack_sequences(x, [7, 0, 3, 1])
        >>> packed
        PackedSequences(4 sequences in 2 rows of 7 steps, 79% full)
        >>> outputs, state = jaxrnn.packed_rnn(
        ...     cell.bind(params), packed, dtype=jnp.float32
        ... )
        >>> packed.unpack(outputs).shape, state.h.shape
        ((4, 7, 5), (4, 5))
    """
    check_is_cell("cell", cell)
    fix = "Packed rows hold steps of different sequences. Use `dynamic_rnn`."
    expect(not rows_interact(cell), "cell", "keep rows apart", cell, fix)
    as_bool("return_states", return_states)
    strategy = as_strategy("swap_memory", swap_memory, (cell, packed, initial_state))
    _check_packed(packed)
    count = packed.sequence_length.shape[0]
    state, dtype = _states_of_sequences(cell, initial_state, dtype, count)
    inputs = jax.tree.map(jnp.asarray, packed.inputs)
    axis = 0 if packed.time_major else 1
    starts = jnp.asarray(packed.starts)
    # If sequences start from zeros, the first step of each sequence is a reset.
    first, restarts = None, Restarts(starts >= 0, None)
    bound = bound_or_none(cell)
    if initial_state is not None or not (bound and bound.cell.starts_from_zeros):
        first, states = _states_at_starts(inputs, starts, state, axis)
        restarts = Restarts(restarts.where, states, starts)
    steps = Steps(
        lengths=jnp.asarray(packed.lengths),
        restarts=restarts,
        time=starts.shape[axis],
        axis=axis,
        returns_states=True,
    )
    options = Options(dtype=dtype, plan=plan_of(strategy, starts.shape[axis]))
    with jax.named_scope(as_scope(scope, "rnn")):
        outputs, _, states = run_cell(cell, Run(inputs, first, steps), options)
    has_steps = jnp.asarray(packed.sequence_length) > 0
    ends = sharding.as_rows_of(has_steps, (packed.at_ends(states), state))
    last = masking.select(has_steps, *ends)
    return (outputs, last, states) if return_states else (outputs, last)


def _check_packed(packed: PackedSequences) -> None:
    """Raises an error unless `packed` is one whole pack."""
    what = "the result of `pack_sequences`"
    fix = "Pass `packed.packed`." if hasattr(packed, "packed") else ""
    check_instance("packed", packed, PackedSequences, what, fix)
    check_whole("packed", packed)


def _states_of_sequences(
    cell: RNNCellLike, state: PyTree, dtype: DType | None, count: int
) -> tuple[PyTree, DType]:
    """Returns the checked initial states of `count` sequences, and the outputs' dtype.

    Raises:
        ValueError: If the state has read-only parts, which the sequences of a packed
            row cannot share, or if a leaf does not have `count` rows.
    """
    if state is not None:
        state = as_arrays("initial_state", state)
        must = "hold no read-only parts, such as an attention memory"
        expect(not has_read_only(state), "initial_state", must, state)
        check_no_plain_tuple("initial_state", cell.state_size, state)
        state = with_tuples_of(cell.state_size, state)
    dtype = output_dtype(state, dtype)
    if state is None:
        state = zero_state(cell, count, dtype)
    fix = fix_of_rows(cell, state, count)
    return with_first_axes("initial_state", state, (count,), fix), dtype


def _states_at_starts(
    inputs: PyTree, starts: Array, state: PyTree, axis: int
) -> tuple[PyTree, PyTree]:
    """The state before the first step of the rows, and the states of all sequences.

    Args:
        inputs: The inputs of the rows.
        starts: `packed.starts`.
        state: The states of all sequences, each leaf `[sequences, ...]`.
        axis: The time axis.
    """
    # The loop may read the state of any sequence at any step. Before the loop, the
    # states must therefore be whole on each device and, in `shard_map`, have types that
    # are device-varying like the types of the inputs.
    state = sharding.whole_on_explicit_mesh(state, inputs)
    states = sharding.as_varying_as(inputs, state)
    of_rows = jax.lax.index_in_dim(starts, 0, axis, keepdims=False)
    return masking.zero_unless(of_rows >= 0, read_rows(states, of_rows)), states
