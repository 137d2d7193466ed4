"""`dynamic_rnn`: a cell over the steps of padded sequences, one compiled loop."""

from typing import Any

import jax

from .._base.arguments import as_scope, as_unroll, check_cell, check_time_major
from .._base.inputs import as_sequences, as_state
from .._base.lengths import as_lengths
from .._base.typing import ArrayLike, DType, PyTree, RNNCellLike
from .._kernels.api import as_implementation
from ..memory._resolve import as_strategy
from ..memory._strategy import Strategy
from .initial_state import output_dtype
from .run import over_time


def dynamic_rnn(
    cell: RNNCellLike,
    inputs: PyTree,
    sequence_length: ArrayLike | None = None,
    initial_state: PyTree = None,
    dtype: DType | None = None,
    parallel_iterations: int | None = None,
    swap_memory: bool | Strategy = False,
    time_major: bool = False,
    scope: str | None = None,
    *,
    implementation: Any = None,
) -> tuple[PyTree, PyTree]:
    """Runs `cell` over the time axis of `inputs`.

    Cells that are products and elementwise updates (`AffineCell`: all of the core), and
    stacks, residuals and dropout around them, are run over whole sequences at once: the
    gradients of their kernels are made in large products, and the loop ends at the
    longest row. Any other cell is run step by step over all of the time axis; the
    logger "jaxrnn" says so, and why, at level DEBUG.

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
        swap_memory: What derivatives keep of the steps: False for all that they read,
            True or a strategy of `jaxrnn.memory` for long sequences. True runs chunks
            of about sqrt(time) steps again going backward, from states that are kept in
            the memory of the host, where there is a separate one. Never changes values
            beyond rounding.
        time_major: Whether time is the first axis of inputs and outputs, which saves
            two transposes.
        scope: The name of the loop in profiles; "rnn" by default.
        implementation: What runs the loop of an `AffineCell`: None or "xla" for a loop
            that XLA compiles; "pallas_mosaic_tpu" (TPU) or "pallas_triton" (CUDA) for a
            kernel that keeps the recurrent matrices on the chip for the whole sequence;
            "cudnn" (CUDA) for the LSTM of cuDNN, which runs all steps of a plain one in
            float32, and has to be traced where the GPU is. They compile for that
            platform alone, and have not been measured there yet, so that they are not
            chosen by themselves. A program that is compiled on another machine names
            the one it is for, "pallas_mosaic_tpu:v4" say; "v5e" and "h100" are taken
            otherwise. `jaxrnn.explain` says which can serve.

    Returns:
        `(outputs, state)`: the outputs in the structure of `cell.output_size`, each
        leaf `[batch, time, ...]` (`[time, batch, ...]` if `time_major`); the state
        after each row's last step, in the structure of the state that went in.

    Raises:
        TypeError: If `cell` is not a cell, or does not keep the dtypes of its state; if
            an argument is of the wrong kind.
        ValueError: If `inputs` are missing or of rank below 3; if shapes disagree; if
            neither `initial_state` nor `dtype` is given; if the kernel that is named
            cannot serve.

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
    strategy = as_strategy(where, "swap_memory", swap_memory)
    check_time_major(where, time_major)
    inputs = as_sequences(where, inputs, time_major)
    batch_size = jax.tree.leaves(inputs)[0].shape[1 if time_major else 0]
    lengths = as_lengths(where, sequence_length, batch_size)
    if initial_state is not None:
        initial_state = as_state(where, "initial_state", initial_state)
    dtype = output_dtype(where, initial_state, dtype)
    with jax.named_scope(as_scope(where, scope, "rnn")):
        return over_time(
            where,
            cell,
            inputs,
            lengths,
            initial_state,
            dtype=dtype,
            unroll=unroll,
            time_major=bool(time_major),
            strategy=strategy,
            implementation=as_implementation(where, implementation),
        )
