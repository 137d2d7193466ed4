"""Bidirectional RNNs, over arrays or over lists of steps."""

import functools
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp

from .._base.errors import error_note, expect
from .._base.hints import with_hints
from .._base.inputs import check_structure
from .._base.sharding import as_rows_of, spec_of_divided_time
from .._base.trees import with_structure
from .._base.typing import (
    ArrayLike,
    DType,
    Implementation,
    Lengths,
    PyTree,
    RNNCellLike,
)
from .._run import reorder
from .._run.arguments import as_lengths, as_mask, as_resets
from .._run.memory import Strategy
from .arguments import as_dtype_or_none, as_padded, as_scope, as_steps, check_is_cell
from .dynamic_rnn import dynamic_rnn
from .static_rnn import run_stacked, unstacked


@with_hints
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
    implementation: Implementation | None = None,
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
            `[0, time]`. Default: all steps.
        initial_state_fw: The forward state before each row's first step, with the
            structure of `cell_fw.state_size`, each leaf `[batch, ...]`. Default: the
            zero state.
        initial_state_bw: The backward state before each row's last step, with the
            structure of `cell_bw.state_size`, each leaf `[batch, ...]`. Default: the
            zero state.
        dtype: The dtype of the zero states and of the outputs, as in `dynamic_rnn`;
            required unless both initial states are given.
        parallel_iterations: As in `dynamic_rnn`.
        swap_memory: As in `dynamic_rnn`.
        time_major: Whether time is the first axis of inputs and outputs.
        scope: The name of the loops in profiles; "bidirectional_rnn" by default.
        resets: Bool `[batch, time]`, or `[time, batch]` if `time_major`; true at the
            first step of each episode. Each direction starts the first episode that it
            reads from its initial state, and all later episodes from the zero state.
            The backward direction starts an episode at the episode's last step. If
            `resets` is true at a row's first step, the forward direction ignores
            `initial_state_fw`.
        implementation: As in `dynamic_rnn`.
        mask: As in `dynamic_rnn`.
        return_states: Whether to also return the states after every step.

    Returns:
        `((output_fw, output_bw), (state_fw, state_bw))`, with outputs and states as in
        `dynamic_rnn`. To concatenate the outputs, use
        `jnp.concatenate(outputs, axis=-1)`. With `return_states`, the result has a
        third pair, `(states_fw, states_bw)`, in the order of the inputs: step t of
        `states_bw` is the backward state after the backward cell has read `x[t]`. Past
        a row's length, `states_bw` holds the final backward state. At a masked step,
        `states_bw` holds the state after the row's next valid step. If no valid step
        follows, `states_bw` holds the initial backward state. If an episode begins
        after the masked step, but not after this valid step, `states_bw` holds zeros
        instead. In padding, `states_bw` with a `mask` therefore differs from
        `states_bw` with lengths for the same steps.

    Raises:
        TypeError: If `cell_fw` or `cell_bw` is not a cell; see also `dynamic_rnn`.
        ValueError: See `dynamic_rnn`.

    Source: Schuster and Paliwal 1997, doi:10.1109/78.650093; arXiv:1303.5778;
    `tf.compat.v1.nn.bidirectional_dynamic_rnn`. Unlike TensorFlow, which packs nested
    outputs into one array, the function reverses nested outputs leaf by leaf.
    """
    check_is_cell("cell_fw", cell_fw)
    check_is_cell("cell_bw", cell_bw)
    inputs, *_ = as_padded(inputs, time_major)
    options: dict[str, Any] = {
        "sequence_length": sequence_length,
        "dtype": as_dtype_or_none(dtype),
        "parallel_iterations": parallel_iterations,
        "swap_memory": swap_memory,
        "time_major": time_major,
        "resets": resets,
        "implementation": implementation,
        "mask": mask,
        "return_states": return_states,
    }
    with jax.named_scope(as_scope(scope, "bidirectional_rnn")):
        with _direction("fw"):
            options["initial_state"] = initial_state_fw
            forward = dynamic_rnn(cell_fw, inputs, scope="fw", **options)
        with _direction("bw"):
            options["initial_state"] = initial_state_bw
            backward = run_backward(cell_bw, inputs, scope="bw", **options)
    return tuple(zip(forward, backward, strict=True))


def run_backward(
    cell: RNNCellLike,
    inputs: PyTree,
    *,
    sequence_length: Lengths | None = None,
    mask: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    time_major: bool = False,
    keep_order: bool = True,
    **options: Any,
) -> tuple[PyTree, ...]:
    """Runs `dynamic_rnn` from the last valid step of each row to the first.

    With a mask, all steps are reversed, including the padding. With `keep_order`, the
    outputs are returned in the order of the inputs. Otherwise, the output of a row's
    last step comes first.
    """
    inputs, shape, axis = as_padded(inputs, time_major)
    mask = as_mask(mask, sequence_length, shape, axis)
    must = "be None if a mesh divides time and rows are reversed"
    fix = "Pass a `mask` instead, which is true at the valid steps of each row."
    is_whole = spec_of_divided_time(inputs, axis) is None or sequence_length is None
    expect(is_whole, "sequence_length", must, sequence_length, fix)
    lengths = as_lengths(sequence_length, shape[1 - axis], time=shape[axis])
    lengths = as_rows_of(inputs, lengths, 1 - axis)
    resets, _ = as_resets(resets, None, shape, axis)

    def reverse(tree: PyTree) -> PyTree:
        return reorder.reverse_sequence(tree, lengths, time_major)

    results = dynamic_rnn(
        cell,
        reverse(inputs),
        sequence_length=lengths,
        mask=reverse(mask),
        resets=reorder.reverse_resets(resets, lengths, mask, time_major),
        time_major=time_major,
        **options,
    )
    if not keep_order:
        return results
    output, state, *states = results
    return reverse(output), state, *reverse(states)


def _direction(name: str) -> AbstractContextManager[None]:
    """Adds a note with the public argument names to errors of one direction."""
    note = f"Here, `cell` is `cell_{name}`, and `initial_state` is "
    note += f"`initial_state_{name}`."
    return error_note(note)


@with_hints
def static_bidirectional_rnn(
    cell_fw: RNNCellLike,
    cell_bw: RNNCellLike,
    inputs: list[PyTree] | tuple[PyTree, ...],
    initial_state_fw: PyTree = None,
    initial_state_bw: PyTree = None,
    dtype: DType | None = None,
    sequence_length: Lengths | None = None,
    scope: str | None = None,
    *,
    implementation: Implementation | None = None,
) -> tuple[list[PyTree], PyTree, PyTree]:
    """Runs `cell_fw` forward and `cell_bw` backward over a list of steps.

    The backward cell reads each row from its last valid step to its first, as in
    `bidirectional_dynamic_rnn`.

    Args:
        cell_fw: A bound cell, or any object that implements the RNNCell protocol.
        cell_bw: The cell of the backward direction, with separate parameters.
        inputs: A list or tuple with the inputs of each step, as in `static_rnn`.
        initial_state_fw: The forward state before each row's first step, with the
            structure of `cell_fw.state_size`, each leaf `[batch, ...]`. Default: the
            zero state.
        initial_state_bw: The backward state before each row's last step, with the
            structure of `cell_bw.state_size`, each leaf `[batch, ...]`. Default: the
            zero state.
        dtype: The dtype of the zero states and of the outputs, as in `dynamic_rnn`;
            required unless both initial states are given.
        sequence_length: The length of each row, `[batch]`, integers, clamped to
            `[0, time]`. Default: all steps.
        scope: The name of the loops in profiles; "bidirectional_rnn" by default.
        implementation: As in `dynamic_rnn`.

    Returns:
        `(outputs, state_fw, state_bw)`. `outputs` is a list with the output of each
        step, in which the forward and backward outputs are concatenated along axis 1,
        leaf by leaf. The two final states are as in `static_rnn`.

    Raises:
        TypeError: If `cell_fw` or `cell_bw` is not a cell; see also `static_rnn`.
        ValueError: If the outputs of the cells cannot be concatenated; see also
            `static_rnn`.

    Source: arXiv:1303.5778; `tf.compat.v1.nn.static_bidirectional_rnn`.
    """
    check_is_cell("cell_fw", cell_fw)
    check_is_cell("cell_bw", cell_bw)
    xs = as_steps(inputs)
    dtype = as_dtype_or_none(dtype)
    time, rows = jax.tree.leaves(xs)[0].shape[:2]
    lengths = as_lengths(sequence_length, rows, time=time)
    reverse = functools.partial(
        reorder.reverse_sequence, lengths=lengths, time_major=True
    )
    with jax.named_scope(as_scope(scope, "bidirectional_rnn")):
        with _direction("fw"):
            given = initial_state_fw, dtype, lengths, "fw", implementation
            fw, state_fw, _ = run_stacked(cell_fw, xs, *given)
        with _direction("bw"):
            given = initial_state_bw, dtype, lengths, "bw", implementation
            bw, state_bw, _ = run_stacked(cell_bw, reverse(xs), *given)
        outputs = joined(fw, reverse(bw), axis=2)
        return unstacked(outputs, time), state_fw, state_bw


def joined(fw: PyTree, bw: PyTree, axis: int) -> PyTree:
    """Concatenates the leaves of two outputs along `axis`.

    Raises:
        ValueError: If the structures differ, or if sizes along other axes differ.
    """
    fix = "Both cells need outputs of one structure, to be concatenated leaf by leaf."
    check_structure("the output of `cell_bw`", fw, bw, strict=False, fix=fix)
    bw = with_structure(fw, bw)
    return jax.tree.map(lambda *pair: jnp.concatenate(pair, axis), fw, bw)
