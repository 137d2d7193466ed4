"""`bidirectional_dynamic_rnn`: one cell forwards and one backwards in time."""

import functools
from typing import Any

import jax

from .._base.arguments import as_scope, check_cell, check_time_major
from .._base.errors import noting
from .._base.inputs import as_sequences, check_states_of_both
from .._base.lengths import lengths_for
from .._base.typing import ArrayLike, DType, PyTree, RNNCellLike
from .._time import masking
from ..memory._strategy import Strategy
from .dynamic_rnn import dynamic_rnn


def bidirectional_dynamic_rnn(
    cell_fw: RNNCellLike,
    cell_bw: RNNCellLike,
    inputs: PyTree,
    sequence_length: ArrayLike | None = None,
    initial_state_fw: PyTree = None,
    initial_state_bw: PyTree = None,
    dtype: DType | None = None,
    parallel_iterations: int | None = None,
    swap_memory: bool | Strategy = False,
    time_major: bool = False,
    scope: str | None = None,
    *,
    implementation: Any = None,
) -> tuple[tuple[PyTree, PyTree], tuple[PyTree, PyTree]]:
    """Runs `cell_fw` forwards and `cell_bw` backwards over the length of each row.

    The backward cell reads a row of length n as `x[n-1], ..., x[0]`. Its outputs are
    returned in the order of the inputs, zeros past the length; its final state is that
    after `x[0]`. The inputs past the length affect nothing.

    Args:
        cell_fw: A bound cell, or any object that keeps the RNNCell protocol.
        cell_bw: The same for the backward direction, with separate parameters.
        inputs: `[batch, time, ...]`, or `[time, batch, ...]` if `time_major`; or a nest
            of such arrays that agree in time and batch.
        sequence_length: `[batch]`, integers, clamped to `[0, time]`; None for `time`.
        initial_state_fw: The forward state before the first step, or None for zeros.
        initial_state_bw: The backward state before the last step, or None for zeros.
        dtype: The dtype of the zero states and of the outputs; needed unless both
            states are given.
        parallel_iterations: As in `dynamic_rnn`.
        swap_memory: As in `dynamic_rnn`.
        time_major: Whether time is the first axis of inputs and outputs.
        scope: The name of the loops in profiles; "bidirectional_rnn" by default.
        implementation: As in `dynamic_rnn`.

    Returns:
        `((output_fw, output_bw), (state_fw, state_bw))`, outputs and states as
        `dynamic_rnn` returns them. To concatenate the outputs, use
        `jnp.concatenate(outputs, axis=-1)`.

    Raises:
        TypeError: If one of the cells is not a cell; as `dynamic_rnn`.
        ValueError: As `dynamic_rnn`.

    Source: Schuster and Paliwal 1997, doi:10.1109/78.650093; arXiv:1303.5778;
    `tf.compat.v1.nn.bidirectional_dynamic_rnn`. Nested outputs are reversed leaf by
    leaf, where TensorFlow packs them into one array.
    """
    where = "bidirectional_dynamic_rnn"
    check_cell(where, "cell_fw", cell_fw)
    check_cell(where, "cell_bw", cell_bw)
    check_time_major(where, time_major)
    inputs = as_sequences(where, inputs, time_major)
    check_states_of_both(where, initial_state_fw, initial_state_bw, dtype)
    batch_axis = 1 if time_major else 0
    time = jax.tree.leaves(inputs)[0].shape[1 - batch_axis]
    lengths = lengths_for(where, sequence_length, inputs, time, batch_axis)

    options = dtype, parallel_iterations, swap_memory, time_major
    dynamic = functools.partial(dynamic_rnn, implementation=implementation)

    def run(
        cell: RNNCellLike, inputs: PyTree, state: PyTree, scope: str
    ) -> tuple[PyTree, PyTree]:
        with noting(f"{where}: `cell` is `cell_{scope}`."):
            return dynamic(cell, inputs, lengths, state, *options, scope)

    def reverse(tree: PyTree) -> PyTree:
        return masking.reverse_sequence(tree, lengths, time_major)

    with jax.named_scope(as_scope(where, scope, "bidirectional_rnn")):
        output_fw, state_fw = run(cell_fw, inputs, initial_state_fw, "fw")
        output_bw, state_bw = run(cell_bw, reverse(inputs), initial_state_bw, "bw")
        return (output_fw, reverse(output_bw)), (state_fw, state_bw)
