"""Bidirectional RNNs, over arrays or over lists of steps."""

from typing import Any

import jax
import jax.numpy as jnp

from .._base import arguments, trees
from .._base.errors import InvalidType, error_note
from .._base.inputs import as_sequences, check_states_of_both
from .._base.lengths import check_not_inputs, lengths_for
from .._base.typing import Array, ArrayLike, DType, Lengths, PyTree, RNNCellLike
from .._batching.packed_sequences import check_not_packed
from .._loops import masking
from ..memory._strategy import Strategy
from .dynamic_rnn import dynamic_rnn
from .masks_and_resets import check_mask, check_resets
from .static_rnn import checked_steps, run_steps, stacked, unstacked


def bidirectional_dynamic_rnn(
    cell_fw: RNNCellLike,
    cell_bw: RNNCellLike,
    inputs: PyTree,
    sequence_length: Lengths | None = None,
    initial_state_fw: PyTree = None,
    initial_state_bw: PyTree = None,
    dtype: DType | None = None,
    parallel_iterations: int | None = None,
    swap_memory: bool | Strategy = False,
    time_major: bool = False,
    scope: str | None = None,
    *,
    resets: ArrayLike | None = None,
    implementation: Any = None,
    mask: ArrayLike | None = None,
    return_states: bool = False,
) -> tuple[tuple[PyTree, PyTree], ...]:
    """Runs `cell_fw` forward and `cell_bw` backward over the valid steps of each row.

    The backward cell reads a row of length n as `x[n-1], ..., x[0]`. The backward
    outputs are returned in the order of the inputs, with zeros past the length. The
    final backward state is the state after `x[0]`. Inputs past the length have no
    effect.

    Args:
        cell_fw: A bound cell, or any object that implements the RNNCell protocol.
        cell_bw: The cell of the backward direction, with separate parameters.
        inputs: `[batch, time, ...]`, or `[time, batch, ...]` if `time_major`; or a nest
            of such arrays with equal time and batch sizes.
        sequence_length: The length of each row, `[batch]`, integers, clamped to
            `[0, time]`; None for all steps.
        initial_state_fw: The forward state before each row's first step, with the
            structure of `cell_fw.state_size`, each leaf `[batch, ...]`; None for the
            zero state.
        initial_state_bw: The backward state before each row's last step, with the
            structure of `cell_bw.state_size`, each leaf `[batch, ...]`; None for the
            zero state.
        dtype: The dtype of the zero states and of the outputs; required unless both
            initial states are given.
        parallel_iterations: As in `dynamic_rnn`.
        swap_memory: As in `dynamic_rnn`.
        time_major: Whether time is the first axis of inputs and outputs.
        scope: The name of the loops in profiles; "bidirectional_rnn" by default.
        resets: Bool `[batch, time]`, or `[time, batch]` if `time_major`; true at the
            first step of each segment. Both directions start each segment from the zero
            state; the backward direction starts at the segment's last step. The first
            segment that a direction reads starts from its initial state instead. If
            `resets` is true at a row's first step, the forward direction ignores its
            initial state.
        implementation: As in `dynamic_rnn`.
        mask: As in `dynamic_rnn`.
        return_states: Whether to also return the states after every step.

    Returns:
        `((output_fw, output_bw), (state_fw, state_bw))`, with outputs and states as in
        `dynamic_rnn`. To concatenate the outputs, use
        `jnp.concatenate(outputs, axis=-1)`. With `return_states`, the result has a
        third pair, `(states_fw, states_bw)`, in the order of the inputs: step t of
        `states_bw` is the backward state after `x[t]`. Past a row's length,
        `states_bw` holds the final backward state. At a masked step, it holds the state
        after the row's next valid step; after the last valid step, the initial backward
        state. So a mask without gaps and the equal lengths give different `states_bw`
        at padding.

    Raises:
        TypeError: If `cell_fw` or `cell_bw` is not a cell; see also `dynamic_rnn`.
        ValueError: See `dynamic_rnn`.

    Source: Schuster and Paliwal 1997, doi:10.1109/78.650093; arXiv:1303.5778;
    `tf.compat.v1.nn.bidirectional_dynamic_rnn`. Unlike TensorFlow, which packs nested
    outputs into one array, the function reverses nested outputs leaf by leaf.
    """
    _check_cells(cell_fw, cell_bw, "dynamic_rnn")
    call = "bidirectional_dynamic_rnn(cell_fw, cell_bw, inputs, initial_state_fw=state)"
    check_not_inputs(sequence_length, call)
    check_states_of_both(initial_state_fw, initial_state_bw, dtype)
    given = inputs, sequence_length, mask, resets, time_major
    inputs, lengths, mask, resets = _sequences(*given)
    kwargs = {"implementation": implementation, "return_states": return_states}
    options = dtype, parallel_iterations, swap_memory, time_major
    reverse = lambda tree: masking.reverse_sequence(tree, lengths, time_major)

    def run(cell: Any, inputs: Any, mask: Any, resets: Any, state: Any, n: str) -> Any:
        with error_note(f"`cell` in this message is `cell_{n}`."):
            args = cell, inputs, lengths, state, *options, n
            return dynamic_rnn(*args, mask=mask, resets=resets, **kwargs)

    with jax.named_scope(arguments.as_scope(scope, "bidirectional_rnn")):
        forwards = run(cell_fw, inputs, mask, resets, initial_state_fw, "fw")
        resets = masking.reverse_resets(resets, lengths, mask, time_major)
        inputs, mask = reverse((inputs, mask))
        args = inputs, mask, resets, initial_state_bw, "bw"
        output, state, *states = run(cell_bw, *args)
        backwards = reverse(output), state, *reverse(states)
        return tuple(zip(forwards, backwards, strict=True))


_BACKWARD = {  # For each driver of one direction.
    "dynamic_rnn": (
        "reverse the inputs with `reverse_sequence`, call `dynamic_rnn`, and reverse "
        "the outputs in the same way."
    ),
    "static_rnn": (
        "call `static_rnn` with `inputs[::-1]`, and reverse the list of outputs. With "
        "lengths, use `dynamic_rnn` and `reverse_sequence`."
    ),
}


def _check_cells(cell_fw: Any, cell_bw: Any, driver: str) -> None:
    """Raises TypeError unless both are cells; `driver` runs one direction."""
    if cell_fw is None:
        raise InvalidType(
            "`cell_fw` must be a bound cell, got None. To run only the "
            f"backward direction, {_BACKWARD[driver]}"
        )
    if cell_bw is None:
        raise InvalidType(
            "`cell_bw` must be a bound cell, got None. To run only the "
            f"forward direction, call `{driver}`."
        )
    arguments.check_is_cell("cell_fw", cell_fw)
    arguments.check_is_cell("cell_bw", cell_bw)


def _sequences(
    inputs: Any, lengths: Any, mask: Any, resets: Any, time_major: bool
) -> tuple[PyTree, Array | None, Array | None, Array | None]:
    """Returns the checked `(inputs, lengths, mask, resets)`.

    A mask is not converted to lengths, because the mask must be reversed with the
    inputs. A reversal by lengths would leave the padding in place.
    """
    check_not_packed(inputs)
    inputs = as_sequences(inputs, time_major)
    shape, axis = jax.tree.leaves(inputs)[0].shape[:2], 0 if time_major else 1
    mask = check_mask(mask, lengths, shape, axis)
    lengths = lengths_for(lengths, inputs, shape[axis], 1 - axis)
    return inputs, lengths, mask, check_resets(resets, shape, axis)


def static_bidirectional_rnn(
    cell_fw: RNNCellLike,
    cell_bw: RNNCellLike,
    inputs: list[PyTree] | tuple[PyTree, ...],
    initial_state_fw: PyTree = None,
    initial_state_bw: PyTree = None,
    dtype: DType | None = None,
    sequence_length: Lengths | None = None,
    scope: str | None = None,
) -> tuple[list[PyTree], PyTree, PyTree]:
    """Runs `cell_fw` forward and `cell_bw` backward over a list of steps.

    The backward cell reads each row from its last valid step to its first, as in
    `bidirectional_dynamic_rnn`.

    Args:
        cell_fw: A bound cell, or any object that implements the RNNCell protocol.
        cell_bw: The cell of the backward direction, with separate parameters.
        inputs: A list or tuple with the inputs of each step, `[batch, ...]` or a nest
            of such arrays. With lengths, all steps must have the same shapes.
        initial_state_fw: The forward state before each row's first step, with the
            structure of `cell_fw.state_size`, each leaf `[batch, ...]`; None for the
            zero state.
        initial_state_bw: The backward state before each row's last step, with the
            structure of `cell_bw.state_size`, each leaf `[batch, ...]`; None for the
            zero state.
        dtype: The dtype of the zero states and of the outputs; required unless both
            initial states are given.
        sequence_length: The length of each row, `[batch]`, integers, clamped to
            `[0, time]`; None for all steps.
        scope: The name of the steps in profiles; "bidirectional_rnn" by default.

    Returns:
        `(outputs, state_fw, state_bw)`. `outputs` is a list with the output of each
        step, in which the forward and backward outputs are concatenated along axis 1,
        leaf by leaf. The two final states are as in `static_rnn`.

    Raises:
        TypeError: If `cell_fw` or `cell_bw` is not a cell; see also `static_rnn`.
        ValueError: If the outputs of the cells cannot be concatenated; see also
            `static_rnn`.

    Warns:
        UserWarning: See `static_rnn`.

    Source: arXiv:1303.5778; `tf.compat.v1.nn.static_bidirectional_rnn`.
    """
    _check_cells(cell_fw, cell_bw, "static_rnn")
    cells, states = (cell_fw, cell_bw), (initial_state_fw, initial_state_bw)
    steps = checked_steps(inputs, cells, "bidirectional_dynamic_rnn")
    with jax.named_scope(arguments.as_scope(scope, "bidirectional_rnn")):
        return run_both_ways(cells, steps, states, dtype, sequence_length)


def run_both_ways(
    cells: tuple[RNNCellLike, RNNCellLike],
    steps: list[PyTree],
    states: tuple[PyTree, PyTree],
    dtype: DType | None,
    sequence_length: Lengths | None,
) -> tuple[list[PyTree], PyTree, PyTree]:
    """Runs `static_bidirectional_rnn` on checked steps."""
    check_states_of_both(*states, dtype)
    first = stacked(steps[:1])
    lengths = lengths_for(sequence_length, first, len(steps), batch_axis=1)

    def run(cell: Any, steps: list[PyTree], state: PyTree, scope: str) -> Any:
        with error_note(f"`cell` in this message is `cell_{scope}`."):
            return run_steps(cell, steps, state, dtype, lengths, scope)

    (cell_fw, cell_bw), (state_fw, state_bw) = cells, states
    output_fw, state_fw, _ = run(cell_fw, steps, state_fw, "fw")
    reversed_steps = _reversed("inputs", steps, lengths)
    output_bw, state_bw, _ = run(cell_bw, reversed_steps, state_bw, "bw")
    output_bw = _reversed("outputs", output_bw, lengths)
    pairs = zip(output_fw, output_bw, strict=True)
    return [joined(fw, bw, 1) for fw, bw in pairs], state_fw, state_bw


def joined(fw: PyTree, bw: PyTree, axis: int) -> PyTree:
    """Concatenates the leaves of two outputs along `axis`.

    Raises:
        ValueError: If the structures differ, or if sizes along other axes differ.
    """
    trees.check_structure("the output of `cell_bw`", fw, bw, strict=False)
    join = lambda *pair: jnp.concatenate(pair, axis)
    with error_note(f"Raised while concatenating outputs along axis {axis}."):
        return jax.tree.map(join, fw, trees.with_structure(fw, bw))


def _reversed(name: str, steps: list[PyTree], lengths: Array | None) -> list[PyTree]:
    """Reverses the order of the first `length` steps of each row."""
    if lengths is None:
        return steps[::-1]
    what = f"with lengths, each step of `{name}`"
    for step in steps[1:]:
        trees.check_structure(what, steps[0], step, strict=True)
    with error_note(f"With lengths, all `{name}` must have the same shapes."):
        xs = stacked(steps)
    xs = masking.reverse_sequence(xs, lengths, time_major=True)
    return unstacked(xs, len(steps))
