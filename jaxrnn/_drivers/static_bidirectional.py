"""`static_bidirectional_rnn`: two cells, forwards and backwards over a step list."""

import jax
import jax.numpy as jnp

from .._base.arguments import as_scope, check_cell
from .._base.errors import noting
from .._base.inputs import as_steps, check_states_of_both
from .._base.lengths import lengths_for
from .._base.trees import check_structure, with_structure
from .._base.typing import Array, ArrayLike, DType, PyTree, RNNCellLike
from .._time import masking
from .static_rnn import stacked, unrolled, warn_of_compile_time


def static_bidirectional_rnn(
    cell_fw: RNNCellLike,
    cell_bw: RNNCellLike,
    inputs: list[PyTree] | tuple[PyTree, ...],
    initial_state_fw: PyTree = None,
    initial_state_bw: PyTree = None,
    dtype: DType | None = None,
    sequence_length: ArrayLike | None = None,
    scope: str | None = None,
) -> tuple[list[PyTree], PyTree, PyTree]:
    """Runs `cell_fw` forwards and `cell_bw` backwards over a list of steps.

    The backward cell reads each row from its last valid step to its first, as in
    `bidirectional_dynamic_rnn`. That compiles one step, however many there are.

    Args:
        cell_fw: A bound cell, or any object that keeps the RNNCell protocol.
        cell_bw: The same for the backward direction, with separate parameters.
        inputs: A list or tuple with the inputs of each step, `[batch, ...]` or a nest
            of such arrays; with lengths, all steps have the same shapes.
        initial_state_fw: The forward state before the first step, or None for zeros.
        initial_state_bw: The backward state before the last step, or None for zeros.
        dtype: The dtype of the zero states and of the outputs; needed unless both
            states are given.
        sequence_length: `[batch]`, integers, clamped to `[0, time]`; None for `time`.
        scope: The name of the steps in profiles; "bidirectional_rnn" by default.

    Returns:
        `(outputs, state_fw, state_bw)`: a list with the output of each step, in each
        leaf the forward and the backward output concatenated along axis 1; the two
        final states, as `static_rnn` returns them.

    Raises:
        TypeError: If one of the cells is not a cell; as `static_rnn`.
        ValueError: If the outputs of the cells cannot be concatenated; as `static_rnn`.

    Warns:
        UserWarning: As `static_rnn`.

    Source: arXiv:1303.5778; `tf.compat.v1.nn.static_bidirectional_rnn`.
    """
    where = "static_bidirectional_rnn"
    check_cell(where, "cell_fw", cell_fw)
    check_cell(where, "cell_bw", cell_bw)
    steps = as_steps(where, inputs)
    warn_of_compile_time(where, steps, "bidirectional_dynamic_rnn")
    with jax.named_scope(as_scope(where, scope, "bidirectional_rnn")):
        return unrolled_both_ways(
            where,
            (cell_fw, cell_bw),
            steps,
            (initial_state_fw, initial_state_bw),
            dtype,
            sequence_length,
        )


def unrolled_both_ways(
    where: str,
    cells: tuple[RNNCellLike, RNNCellLike],
    steps: list[PyTree],
    states: tuple[PyTree, PyTree],
    dtype: DType | None,
    sequence_length: ArrayLike | None,
) -> tuple[list[PyTree], PyTree, PyTree]:
    """`static_bidirectional_rnn` on checked steps, without its warning."""
    check_states_of_both(where, *states, dtype)
    first = stacked(steps[:1])
    lengths = lengths_for(where, sequence_length, first, len(steps), batch_axis=1)

    def run(
        cell: RNNCellLike, steps: list[PyTree], state: PyTree, scope: str
    ) -> tuple[list[PyTree], PyTree]:
        with noting(f"{where}: `cell` is `cell_{scope}`."):
            return unrolled(where, cell, steps, state, dtype, lengths, scope)

    (cell_fw, cell_bw), (state_fw, state_bw) = cells, states
    output_fw, state_fw = run(cell_fw, steps, state_fw, "fw")
    reversed_steps = _reversed(where, "inputs", steps, lengths)
    output_bw, state_bw = run(cell_bw, reversed_steps, state_bw, "bw")
    output_bw = _reversed(where, "outputs", output_bw, lengths)
    pairs = zip(output_fw, output_bw, strict=True)
    return [joined(where, fw, bw, 1) for fw, bw in pairs], state_fw, state_bw


def joined(where: str, fw: PyTree, bw: PyTree, axis: int) -> PyTree:
    """The leaves of two outputs concatenated along `axis`.

    Raises:
        ValueError: If the structures differ, or axes other than `axis`.
    """
    check_structure(f"{where}: the output of `cell_bw`", fw, bw, strict=False)
    join = lambda *pair: jnp.concatenate(pair, axis)
    with noting(f"{where}: raised as outputs were joined along axis {axis}."):
        return jax.tree.map(join, fw, with_structure(fw, bw))


def _reversed(
    where: str, name: str, steps: list[PyTree], lengths: Array | None
) -> list[PyTree]:
    """The steps with the first `length` steps of each row in reverse."""
    if lengths is None:
        return steps[::-1]
    for step in steps[1:]:
        check_structure(
            f"{where}: with lengths each step of `{name}`", steps[0], step, True
        )
    with noting(f"{where}: with lengths the shapes of all `{name}` must agree."):
        xs = stacked(steps)
    xs = masking.reverse_sequence(xs, lengths, time_major=True)
    return [jax.tree.map(lambda x, t=t: x[t], xs) for t in range(len(steps))]
