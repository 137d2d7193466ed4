"""`dynamic_rnn`: runs a cell over padded sequences, in one compiled loop."""

import contextlib
from typing import Literal, overload

import jax
import numpy as np

from .._base.arguments import as_bool
from .._base.errors import error_note
from .._base.hints import with_hints
from .._base.sharding import parts_of_time, spec_of_divided_time
from .._base.typing import (
    ArrayLike,
    AxisName,
    DType,
    Implementation,
    Lengths,
    Output,
    PyTree,
    RNNCellLike,
    State,
)
from .._run.arguments import (
    as_implementation,
    as_initial_state,
    as_lengths,
    as_mask,
    as_resets,
    divided_time_of,
    output_dtype,
)
from .._run.first_step import rows_interact
from .._run.given import Given
from .._run.memory import Strategy, as_strategy, plan_of
from .._run.reorder import lengths_of_mask
from .._run.run_cell import run_cell
from .arguments import as_padded, as_scope, as_unroll, check_is_cell

_OF_PART = (
    "With `axis_name`, each device passes only its own steps of inputs, masks and "
    "resets, but the lengths and states of the whole sequences."
)


@overload
def dynamic_rnn(
    cell: RNNCellLike[Output, State],
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
    implementation: Implementation | None = None,
    mask: ArrayLike | None = None,
    return_states: Literal[False] = False,
    axis_name: AxisName | None = None,
) -> tuple[Output, State]: ...


@overload
def dynamic_rnn(
    cell: RNNCellLike[Output, State],
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
    implementation: Implementation | None = None,
    mask: ArrayLike | None = None,
    return_states: Literal[True],
    axis_name: AxisName | None = None,
) -> tuple[Output, State, State]: ...


@overload
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
    implementation: Implementation | None = None,
    mask: ArrayLike | None = None,
    return_states: bool,
    axis_name: AxisName | None = None,
) -> tuple[PyTree, ...]: ...


@with_hints
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
    implementation: Implementation | None = None,
    mask: ArrayLike | None = None,
    return_states: bool = False,
    axis_name: AxisName | None = None,
) -> tuple[PyTree, ...]:
    """Runs `cell` over all time steps of `inputs`.

    Past its length, a row outputs zeros and keeps its state, so the final state is the
    state after each row's last valid step.

    A cell built from matrix products and element-wise updates (an `AffineCell`, such as
    an LSTM or a GRU) runs in a specialized loop, also inside `MultiRNNCell` and in
    wrappers for residual connections and dropout. Weight gradients are computed in
    large matrix products. On CPUs, the loop ends near the longest length; on TPUs and
    GPUs, the loop runs over the whole time axis. Linear recurrences
    (`LinearRecurrenceCell`) and cells whose state is a matrix, such as `MLSTMCell` and
    `DeltaMemoryCell`, compute many steps at once, over the whole time axis. Any other
    cell runs step by step over the whole time axis. A run of one step costs as much as
    a call of the cell. `explain` says which loop runs a cell, and why no faster loop
    does. The logger "jaxrnn" reports the same at level DEBUG, when the loop is
    compiled.

    Args:
        cell: A bound cell (`cell.bind(params)`), or any object with `state_size`,
            `output_size`, `zero_state` and a call `(inputs, state) -> (output,
            new_state)`.
        inputs: `[batch, time, ...]`, or `[time, batch, ...]` if `time_major`; or a nest
            of such arrays with equal time and batch sizes. In each step, the cell
            receives a nest with the same structure, each leaf `[batch, ...]`.
        sequence_length: The length of each row, `[batch]`, integers, clamped to
            `[0, time]`. Default: all steps. A length above `time` in a list or NumPy
            array raises a warning; the values of JAX arrays are not checked. Inputs
            past a row's length, even NaN, do not affect outputs, states or gradients.
            For rows of length 0, the cell is evaluated on zeros, and must return finite
            results.
        initial_state: The state before the first step, with the structure of
            `cell.state_size`, each leaf `[batch, ...]`. Default: the cell's zero state,
            which requires `dtype`. Scalar leaves are shared by all rows and are updated
            until the longest row ends. Without lengths, a plain tuple `(c, h)` may
            replace an `LSTMStateTuple`, as in TensorFlow. The plain tuple causes a
            warning, and the final state is then also a plain tuple. With lengths, a
            plain tuple raises a TypeError.
        dtype: The dtype of the zero state and of the outputs, real, complex or integer.
            Default: the dtype that all leaves of `initial_state` share. Nothing is
            cast: inputs, parameters and `initial_state` may be complex even if `dtype`
            is real.
        parallel_iterations: The number of steps to unroll per loop iteration, at most
            4, for cells that run step by step. Other cells ignore the argument.
            Unrolling may change results by rounding.
        swap_memory: Selects the arrays that the forward pass saves for the backward
            pass. False saves everything that the backward pass reads. For long
            sequences, pass True or a strategy from `jaxrnn.memory`. True saves the
            state about every sqrt(time) steps, and recomputes the steps between. If the
            device has separate memory, True saves these states in host memory. A
            different value of `swap_memory` may change results by rounding.
        time_major: Whether time is the first axis of inputs and outputs. True saves two
            transposes.
        scope: The name of the loop in profiles; "rnn" by default.
        resets: Bool `[batch, time]`, or `[time, batch]` if `time_major`. At steps where
            `resets` is true, the row's state is set to `reset_state` before the step.
            Mark the first step of each episode, for example with `resets_of_done`.
            Values from before a reset, even NaN, do not affect later outputs, later
            states or the gradients of later inputs. Gradients of parameters are sums
            over all steps, so NaN in any episode makes these gradients NaN. Resets past
            a row's length are ignored.
        reset_state: The state that rows are reset to, with the structure of
            `initial_state`, each leaf `[batch, ...]`. Default: the cell's zero state,
            even if `initial_state` is given. Scalar leaves and read-only parts are not
            reset.
        implementation: The loop that runs the cell. All loops give the same results, up
            to rounding. If there are no rows or no steps, the choice has no effect.

            - `None`, the default, selects a loop for the cell. For an `AffineCell`,
              this is "native" on a single CPU device or in a CPU `shard_map`, if the
              native loop was built, supports the cell, and is faster for this number of
              steps. Otherwise, it is "xla".
            - `"scan"` is a scan of single steps, for every cell. If a result or a
              gradient looks wrong, first compare it with this loop. If time is divided
              over devices, "scan" raises an error.
            - `"xla"` is a loop compiled by XLA, for an `AffineCell`. A single step runs
              without a loop.
            - `"native"` is the package's own C++ loop, in float32 on CPUs, for LSTMs,
              GRUs and basic RNNs with tanh, relu or sigmoid.
            - `"jla"` is a kernel of the package `jax-linear-attention`, for matrix
              memories on Hopper GPUs.
            - `"deltanet_tpu"` is a kernel of the package `deltanet-tpu`, for matrix
              memories on TPUs.

            The kernels "jla" and "deltanet_tpu" support reverse mode only, in float32
            or narrower dtypes. They reset states only to zeros, and require all values
            to be finite.
        mask: Bool `[batch, time]`, or `[time, batch]` if `time_major`; true at valid
            steps. Default: no mask. Use `mask` instead of `sequence_length`. At masked
            steps, where `mask` is false, a row keeps its state and outputs zeros, and
            its inputs, even NaN, have no effect. A reset at a masked step takes effect.
            Random keys are numbered by valid steps: a row's first valid step uses the
            key of step 0, unless the rows of the cell interact
            (`RNNCell.rows_interact`). Each leaf of the state must have a batch axis,
            even if the mask has no gaps. For a state with scalar leaves or
            TensorArrays, pass `sequence_length` instead.
        return_states: Whether to also return the state after every step. The state
            before a step is the state after the previous step or, for the first step,
            the initial state.
        axis_name: In `jax.shard_map`, the name of the mesh axis that divides time, or a
            tuple of names. For its rows, each device passes its own steps of `inputs`,
            `mask` and `resets`, and the lengths and states of the whole sequences.
            Without `axis_name`, each device runs its steps as a separate sequence.
            Supported for linear recurrences, matrix memories and `ShortConvCell`. On an
            explicit mesh, omit the name, because the sharding of the inputs shows how
            time is divided.

    Returns:
        `(outputs, state)`. `outputs` has the structure of `cell.output_size`, each leaf
        `[batch, time, ...]`, or `[time, batch, ...]` if `time_major`. `state` is the
        state after each row's last valid step, with the structure of the initial state.
        With `return_states`, the result is `(outputs, state, states)`. `states` has the
        structure of `state`, and its leaves have the batch and time axes of the
        outputs. At masked steps and past a row's length, `states` holds the state that
        the row keeps. A reset at a masked step replaces this state by the reset state.

    Raises:
        TypeError: If `cell` is not a cell, the cell changes the dtypes of its state, or
            an argument has the wrong type.
        ValueError: If `inputs` is None or has rank less than 3, or the shapes of two
            arguments disagree. If `inputs` holds no array, the error is also an
            IndexError, as in TensorFlow.
        ValueError: If neither `initial_state` nor `dtype` is given, `reset_state` is
            given without `resets`, or both `mask` and `sequence_length` are given.
        ValueError: If `implementation` cannot run this cell.
        ValueError: If `mask` or `return_states` is given, and a leaf of the state has
            no batch axis.

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
    with contextlib.nullcontext() if axis_name is None else error_note(_OF_PART):
        given = given_to(
            cell,
            inputs,
            sequence_length=sequence_length,
            initial_state=initial_state,
            dtype=dtype,
            parallel_iterations=parallel_iterations,
            swap_memory=swap_memory,
            time_major=time_major,
            resets=resets,
            reset_state=reset_state,
            implementation=implementation,
            mask=mask,
            return_states=return_states,
            axis_name=axis_name,
        )
    with jax.named_scope(as_scope(scope, "rnn")):
        if axis_name is not None:
            divided = divided_time_of(cell, implementation)
            results = divided.on_device(cell, given, axis_name)
        elif (spec := spec_of_divided_time(given.inputs, given.axis)) is not None:
            divided = divided_time_of(cell, implementation)
            results = divided.on_mesh(cell, given, spec)
        else:
            results = run_cell(cell, given)
    return results if return_states else results[:2]


def given_to(
    cell: RNNCellLike,
    inputs: PyTree,
    *,
    sequence_length: Lengths | None,
    initial_state: PyTree,
    dtype: DType | None,
    parallel_iterations: int | None,
    swap_memory: bool | Strategy,
    time_major: bool,
    resets: ArrayLike | None,
    reset_state: PyTree,
    implementation: Implementation | None,
    mask: ArrayLike | None,
    return_states: bool,
    axis_name: AxisName | None,
) -> Given:
    """Checks the arguments of `dynamic_rnn`."""
    # The cell and the inputs.
    check_is_cell("cell", cell)
    inputs, shape, axis = as_padded(inputs, time_major)
    time = shape[axis]

    # The lengths or the mask. With `axis_name`, a mask covers the steps of one device,
    # but lengths count the steps of all devices.
    longest = None if axis_name else time
    valid, lengths = as_mask(mask, sequence_length, shape, axis), sequence_length
    if valid is not None and axis_name is None:
        lengths = lengths_of_mask(mask if isinstance(mask, np.ndarray) else valid, axis)
    is_ragged = valid is not None or lengths is not None

    state = as_initial_state(cell, initial_state, time, strict=is_ragged)
    resets, reset_state = as_resets(resets, reset_state, shape, axis)
    lengths = as_lengths(lengths, shape[1 - axis], time=longest)
    keeps_states = as_bool("return_states", return_states)
    strategy = as_strategy("swap_memory", swap_memory, (cell, inputs, state))
    # If there are lengths, only resets and cells whose rows interact need the mask too.
    reads_mask = lengths is None or resets is not None or rows_interact(cell)
    return Given(
        inputs=inputs,
        state=state,
        lengths=lengths,
        mask=valid if reads_mask else None,
        resets=resets,
        reset_state=reset_state,
        axis=axis,
        dtype=output_dtype(state, dtype),
        plan=plan_of(strategy, time // parts_of_time(inputs, axis)),
        unroll=as_unroll(parallel_iterations),
        implementation=as_implementation(implementation),
        returns_states=keeps_states,
        needs_rows=keeps_states or valid is not None,
    )
