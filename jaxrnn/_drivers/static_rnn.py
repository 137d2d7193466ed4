"""`static_rnn`: a cell over a list of steps, each a part of the program."""

import warnings

import jax
import jax.numpy as jnp

from .._base.arguments import as_scope, check_cell
from .._base.errors import describe_structure
from .._base.inputs import as_state, as_steps
from .._base.keys import cell_at_step
from .._base.lengths import as_lengths
from .._base.sharding import lay_out
from .._base.typing import Array, ArrayLike, DType, PyTree, RNNCellLike
from .._time import masking
from .initial_state import output_dtype, zero_state
from .probe import probe

# The gradient of an LSTM (batch 32, 128 units) over 20 steps takes 2 s to compile, over
# 50 it takes 15 s (44 s with lengths) and over 100 minutes: more than the square.
UNREASONABLE_STEPS = 50


def static_rnn(
    cell: RNNCellLike,
    inputs: list[PyTree] | tuple[PyTree, ...],
    initial_state: PyTree = None,
    dtype: DType | None = None,
    sequence_length: ArrayLike | None = None,
    scope: str | None = None,
) -> tuple[list[PyTree], PyTree]:
    """Runs `cell` over a list of steps: one copy of it in the program for each.

    Values and gradients are those of `dynamic_rnn`, which compiles one step, whatever
    their number. Copies are for a few steps, and for steps that differ in kind.

    Args:
        cell: A bound cell (`cell.bind(params)`), or any object that keeps the RNNCell
            protocol.
        inputs: A list or tuple with the inputs of each step, `[batch, ...]` or a nest
            of such arrays. `list(x)` has the steps of a time-major array.
        initial_state: A state of the structure of `cell.state_size`, each leaf
            `[batch, ...]` or without axes. None for the cell's zero state, which needs
            `dtype`.
        dtype: The dtype of the zero state and, with lengths, of the outputs; None for
            that of `initial_state`.
        sequence_length: `[batch]`, integers: how many steps of each row count. Past its
            length a row puts out zeros and keeps its state; what the inputs hold there
            (NaN included) changes no output, state or gradient. A leaf of the state
            without axes takes part in the steps up to the longest row, and in none if
            all lengths are 0 (`dynamic_rnn` takes one step then). None: all steps
            count, and a step may return a state of another kind than it got.
        scope: The name of the steps in profiles; "rnn" by default.

    Returns:
        `(outputs, state)`: a list with the output of each step, each leaf
        `[batch, ...]`; the state after each row's last step.

    Raises:
        TypeError: If `cell` is not a cell; if `inputs` are no sequence; with lengths,
            if the cell does not keep the dtypes of its state.
        ValueError: If `inputs` are empty or disagree in batch; if neither
            `initial_state` nor `dtype` is given.

    Warns:
        UserWarning: If there are so many steps that compiling them takes very long.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn
        >>> cell = jaxrnn.GRUCell(5)
        >>> x = jnp.ones((3, 4, 2), jnp.float32)  # [time, batch, depth]
        >>> bound = cell.bind(cell.init(jax.random.key(0), x[0]))
        >>> outputs, state = jaxrnn.static_rnn(bound, list(x), dtype=jnp.float32)
        >>> len(outputs), outputs[0].shape, state.shape
        (3, (4, 5), (4, 5))

    Source: `tf.compat.v1.nn.static_rnn`.
    """
    where = "static_rnn"
    check_cell(where, "cell", cell)
    steps = as_steps(where, inputs)
    warn_of_compile_time(where, steps)
    return unrolled(where, cell, steps, initial_state, dtype, sequence_length, scope)


def warn_of_compile_time(
    where: str, steps: list[PyTree], instead: str = "dynamic_rnn"
) -> None:
    """Warns the caller of the public function that calls this one."""
    if len(steps) < UNREASONABLE_STEPS:
        return
    warnings.warn(
        f"{where}: {len(steps)} steps are {len(steps)} copies of the cell in one "
        f"program; from {UNREASONABLE_STEPS} on, compiling it takes unreasonably long "
        "(the gradient of an LSTM: 15 to 45 s at 50 steps, minutes at 100). "
        f"`{instead}` gives the same values and compiles one step, in a second.",
        UserWarning,
        stacklevel=3,
    )


def stacked(steps: list[PyTree]) -> PyTree:
    """One nest of arrays `[time, batch, ...]`."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *steps)


def unrolled(
    where: str,
    cell: RNNCellLike,
    steps: list[PyTree],
    initial_state: PyTree,
    dtype: DType | None,
    sequence_length: ArrayLike | None,
    scope: str | None,
) -> tuple[list[PyTree], PyTree]:
    """`static_rnn` on steps as `as_steps` gives them, without its warning."""
    batch_size = jax.tree.leaves(steps)[0].shape[0]
    if initial_state is not None:
        initial_state = as_state(where, "initial_state", initial_state)
    # Without lengths nothing is made of the outputs' dtype, which may vary.
    if sequence_length is not None or initial_state is None or dtype is not None:
        dtype = output_dtype(where, initial_state, dtype)
    lengths = as_lengths(where, sequence_length, batch_size)
    with jax.named_scope(as_scope(where, scope, "rnn")):
        state = initial_state
        if state is None:
            state = zero_state(where, cell, batch_size, dtype)
        cell, lengths, state = lay_out(cell, stacked(steps[:1]), lengths, state, 1)
        if lengths is None:
            return _run(where, cell, steps, state)
        return _run_masked(where, cell, steps, state, lengths, dtype)


def _run(
    where: str, cell: RNNCellLike, steps: list[PyTree], state: PyTree
) -> tuple[list[PyTree], PyTree]:
    outputs = []
    for t, inputs in enumerate(steps):
        result = cell_at_step(cell, jnp.int32(t))(inputs, state)
        if not isinstance(result, tuple | list) or len(result) != 2:
            raise ValueError(
                f"{where}: `cell` must return (output, new_state), got "
                f"{describe_structure(result)}."
            )
        output, state = result
        outputs.append(output)
    return outputs, state


def _run_masked(
    where: str,
    cell: RNNCellLike,
    steps: list[PyTree],
    state: PyTree,
    lengths: Array,
    dtype: DType,
) -> tuple[list[PyTree], PyTree]:
    bound = jnp.max(lengths, initial=0)  # Where dynamic_rnn runs one step at least.
    first_inputs, first_state = masking.stand_in(lengths, steps[0], state)
    first, kind, outputs = (first_inputs, first_state), None, []
    for t, inputs in enumerate(steps):
        if _kind(inputs) != kind:
            kind = _kind(inputs)
            probe(where, cell, inputs, state, dtype, strict=True)
            # Dead rows cannot repeat inputs of another shape.
            alike = kind == _kind(first_inputs)
            zeros = jax.tree.map(jnp.zeros_like, inputs)
            first = first_inputs if alike else zeros, first_state
        alive, running = t < lengths, t < bound
        seen = masking.step_inputs(alive, running, inputs, state, first)
        output, new_state = cell_at_step(cell, jnp.int32(t))(*seen)
        state = masking.advance(alive, running, new_state, state)
        outputs.append(masking.zero_dead(alive, output))
    return outputs, state


def _kind(inputs: PyTree) -> tuple:
    """What a cell's step is compiled for: the nest, shapes and dtypes."""
    leaves, treedef = jax.tree.flatten(inputs)
    return treedef, [(leaf.shape, leaf.dtype) for leaf in leaves]
