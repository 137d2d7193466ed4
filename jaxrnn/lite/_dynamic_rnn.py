"""TensorFlow Lite's time-major `dynamic_rnn`."""

import jax

from .._base.arguments import check_time_major
from .._base.errors import InvalidKind, InvalidValue, describe_structure
from .._base.typing import ArrayLike, DType, Lengths, PyTree, RNNCellLike
from .._drivers.dynamic_rnn import dynamic_rnn as core_dynamic_rnn
from ..memory._strategy import Strategy


def dynamic_rnn(
    cell: RNNCellLike,
    inputs: ArrayLike,
    sequence_length: Lengths | None = None,
    initial_state: PyTree = None,
    dtype: DType | None = None,
    parallel_iterations: int | None = None,
    swap_memory: bool | Strategy = False,
    time_major: bool = True,
    scope: str | None = None,
) -> tuple[PyTree, PyTree]:
    """Runs `cell` over the time axis of one time-major array.

    This driver is equivalent to `jaxrnn.dynamic_rnn(..., time_major=True)` for one
    input array.

    Args:
        cell: A bound cell (`cell.bind(params)`) of this module or of `jaxrnn`, or any
            object that implements the RNNCell protocol.
        inputs: One array `[time, batch, ...]`.
        sequence_length: The length of each row, `[batch]`, integers; None for all
            steps.
        initial_state: A state with the structure of `cell.state_size`, each leaf
            `[batch, ...]`; None for the cell's zero state, which requires `dtype`.
        dtype: The dtype of the zero state and of the outputs; None for the dtype of
            `initial_state`.
        parallel_iterations: As in `jaxrnn.dynamic_rnn`.
        swap_memory: As in `jaxrnn.dynamic_rnn`.
        time_major: Must be True.
        scope: The name of the loop in profiles; "rnn" by default.

    Returns:
        `(outputs, state)` as in `jaxrnn.dynamic_rnn`, with outputs
        `[time, batch, ...]`.

    Raises:
        AssertionError: If `time_major` is False. The error is also a TypeError.
        TypeError: See `jaxrnn.dynamic_rnn`.
        ValueError: If `inputs` is a nest; see also `jaxrnn.dynamic_rnn`.

    Source: `tf.compat.v1.lite.experimental.nn.dynamic_rnn`.
    """
    check_time_major(time_major)
    if not time_major:
        raise InvalidKind(
            "`time_major` must be True, got False. Swap the first two axes of the "
            "inputs and of the outputs."
        )
    if inputs is not None and not jax.tree_util.all_leaves([inputs]):
        raise InvalidValue(
            "`inputs` must be one array [time, batch, ...], got "
            f"{describe_structure(inputs)}. `jaxrnn.dynamic_rnn` accepts nests."
        )
    return core_dynamic_rnn(
        cell,
        inputs,
        sequence_length,
        initial_state,
        dtype,
        parallel_iterations,
        swap_memory,
        time_major=True,
        scope=scope,
    )
