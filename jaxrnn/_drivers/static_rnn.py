"""Runs a cell over a list of steps, in a loop or unrolled, also with saved states."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from .._base.arguments import as_bool, as_lengths, as_scope, check_instance, check_shape
from .._base.cell_keys import cell_at_step
from .._base.derivatives import summed_in_float32
from .._base.errors import counted, describe, error_note, expect, warn
from .._base.inputs import as_arrays, check_structure, output_dtype
from .._base.sharding import lay_out
from .._base.trees import (
    is_pytree_of_arrays,
    with_read_only,
    without_read_only,
)
from .._base.typing import Array, ArrayLike, DType, Lengths, PyTree, RNNCellLike, Size
from .._batching.packing import check_not_packed
from .._hints import with_hints
from .._run import masking
from .._run.arguments import as_initial_state, as_pair, fix_of_rows, fix_of_zeros
from .._run.first_step import call_start, one_step, probe, rows_interact, zero_state
from .._run.masking import Steps
from .._run.run import Run
from .._run.run_cell import Options, run_cell
from .._tensor_array.carried import with_capacity_for
from .arguments import as_steps, check_is_cell

# On a CPU, compiling the gradient of an unrolled LSTM (batch 32, 128 units) takes 2 s
# for 20 steps, 15 s for 50 steps (44 s with lengths) and minutes for 100 steps.
UNREASONABLE_STEPS = 50


@with_hints
def static_rnn(
    cell: RNNCellLike,
    inputs: list[PyTree] | tuple[PyTree, ...],
    initial_state: PyTree = None,
    dtype: DType | None = None,
    sequence_length: Lengths | None = None,
    scope: str | None = None,
    *,
    return_states: bool = False,
) -> tuple[PyTree, ...]:
    """Runs `cell` over a list of steps, which may differ in shape and type.

    If all steps have the same type, and the cell is bound and keeps the type of its
    state, the cell runs in the loop of `dynamic_rnn`, which compiles only one step.
    Otherwise, the program contains a copy of the cell for each step. In both cases,
    values and gradients equal the results of `dynamic_rnn` up to rounding.

    Args:
        cell: A bound cell (`cell.bind(params)`), or any object that implements the
            RNNCell protocol.
        inputs: A list or tuple with the inputs of each step, `[batch, ...]` or a nest
            of such arrays. For a time-major array `x`, pass `list(x)`.
        initial_state: The state before the first step, with the structure of
            `cell.state_size`, each leaf `[batch, ...]` or a scalar; None for the cell's
            zero state, which requires `dtype`.
        dtype: The dtype of the zero state and, with lengths, of the outputs, as in
            `dynamic_rnn`. Without lengths, outputs may have any dtypes.
        sequence_length: The length of each row, `[batch]`, integers, clamped to
            `[0, len(inputs)]`; None for all steps. Past its length, a row outputs zeros
            and keeps its state; inputs past the length, even NaN, do not affect
            outputs, states or gradients. Scalar leaves of the state are updated until
            the longest row ends. If all lengths are 0, scalar leaves are never updated,
            whereas `dynamic_rnn` updates these leaves once. If there are no lengths, a
            step may change the structure, shapes and dtypes of the state.
        scope: The name of the steps in profiles; "rnn" by default.
        return_states: Whether to also return the state after every step.

    Returns:
        `(outputs, state)`. `outputs` is a list with the output of each step, each leaf
        `[batch, ...]`. `state` is the state after each row's last valid step. With
        `return_states`, the result is `(outputs, state, states)`. `states` is a list
        with the state after each step; past its length, a row keeps its last state.

    Raises:
        TypeError: If `cell` is not a cell; if `inputs` is not a sequence; with lengths,
            if the cell changes the dtypes of its state.
        ValueError: If `inputs` is empty, or if batch sizes disagree; if neither
            `initial_state` nor `dtype` is given.

    Warns:
        UserWarning: If 50 or more steps are unrolled, because compilation may take
            minutes; if a plain pair replaces an `LSTMStateTuple`; see `dynamic_rnn`.

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
    check_is_cell("cell", cell)
    as_bool("return_states", return_states)
    check_not_packed(inputs)
    steps = as_steps(inputs)
    time = len(steps)
    batch_size = jax.tree.leaves(steps)[0].shape[0]
    is_ragged = sequence_length is not None
    state = as_initial_state(cell, initial_state, time, strict=is_ragged)
    # With an initial state but neither lengths nor `dtype`, outputs may have any dtype.
    if is_ragged or state is None or dtype is not None:
        dtype = output_dtype(state, dtype)
    lengths = as_lengths(sequence_length, batch_size, time=time)
    with jax.named_scope(as_scope(scope, "rnn")):
        if state is None:
            state = with_capacity_for(zero_state(cell, batch_size, dtype), time)
            fix = fix_of_zeros(steps[0], dtype)
        else:
            fix = fix_of_rows(cell, state, batch_size)
        loop_dtype = _dtype_in_loop(cell, steps, state, dtype, fix)
        if loop_dtype is None:
            outputs, state, states = _unrolled(cell, steps, state, lengths, dtype)
        else:
            all_steps = Steps(lengths, time=time, axis=0, returns_states=return_states)
            run = Run(stacked(steps), state, all_steps)
            outputs, state, states = run_cell(cell, run, Options(dtype=loop_dtype))
            outputs = unstacked(outputs, time)
            states = unstacked(states, time)
    return (outputs, state, states) if return_states else (outputs, state)


def stacked(steps: list[PyTree]) -> PyTree:
    """Stacks the steps into one nest of arrays `[time, batch, ...]`."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *steps)


def unstacked(xs: PyTree, time: int) -> list[PyTree]:
    """Splits a nest of arrays `[time, batch, ...]` into its steps."""
    # The backward pass of a split is one concatenation. The backward pass of `x[t]` for
    # each t would pad each step's cotangent with zeros to all steps, and sum the padded
    # arrays.
    leaves, structure = jax.tree.flatten(xs)
    columns = [[x[0] for x in jax.lax.split(leaf, [1] * time)] for leaf in leaves]
    return [structure.unflatten(column[t] for column in columns) for t in range(time)]


def _dtype_in_loop(
    cell: RNNCellLike,
    steps: list[PyTree],
    state: PyTree,
    dtype: DType | None,
    fix: str,
) -> DType | None:
    """Returns the dtype of all outputs if a loop can run the cell, otherwise None.

    A loop cannot run steps of different types. If a state has scalar leaves, a loop
    would update these leaves once even if all lengths are 0.
    """
    are_alike = len(set(map(_types, steps))) == 1
    if not (are_alike and is_pytree_of_arrays(cell) and masking.is_of_rows(state)):
        return None

    def step(inputs: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        laid_out, _, state = lay_out(cell, inputs, None, state)
        state = call_start(cell, state)
        return cell_at_step(laid_out, jnp.int32(0))(inputs, state)

    with error_note("Raised at step 0, with `inputs[0]`."):
        output, new_state = one_step(step, steps[0], state, fix)
    state, new_state = without_read_only((state, new_state))
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(output)}
    if _types(new_state) != _types(state) or len(dtypes) != 1:
        return None
    found = dtypes.pop()
    return found if dtype in (None, found) else None


def _unrolled(
    cell: RNNCellLike,
    steps: list[PyTree],
    initial_state: PyTree,
    lengths: Array | None,
    dtype: DType | None,
) -> tuple[list[PyTree], PyTree, list[PyTree]]:
    """Runs the steps one after another, with a copy of the cell for each step.

    Without lengths, a step may change the structure and the types of the state.
    """
    if len(steps) >= UNREASONABLE_STEPS:
        warn(
            f"{len(steps)} copies of the cell, one for each step, may take minutes to "
            "compile. Use `dynamic_rnn` or, for outputs of several dtypes, `raw_rnn`."
        )
    cell, lengths, state = lay_out(cell, steps[0], lengths, initial_state)
    state = call_start(cell, state)
    all_masks = Steps(time=len(steps), axis=0)
    if lengths is not None:
        state, all_masks = _masked(cell, steps, state, lengths, dtype)
    cell_in_loop = summed_in_float32(cell)
    outputs = []
    states = []
    for t, inputs in enumerate(steps):
        masks = all_masks
        if _types(inputs) != _types(steps[0]):
            # Finished rows would read the first step's inputs, but these have other
            # types here, so finished rows read zeros.
            masks = all_masks.map_stand_in_inputs(
                lambda _, inputs=inputs: jax.tree.map(jnp.zeros_like, inputs)
            )
        number = jnp.int32(t)
        arguments = masks.step_inputs(number, inputs, state)
        with error_note(f"Raised at step {t}, with `inputs[{t}]`."):
            output, new_state = as_pair(
                cell_at_step(cell_in_loop(), number)(*arguments)
            )
        if lengths is not None:
            new_state, output = masks.mask_step(number, state, new_state, output)
        state = new_state
        outputs.append(output)
        states.append(without_read_only(state))
    return outputs, with_read_only(state, initial_state), states


def _masked(
    cell: RNNCellLike,
    steps: list[PyTree],
    state: PyTree,
    lengths: Array,
    dtype: DType | None,
) -> tuple[PyTree, Steps]:
    """Checks one step of each input type; returns the checked state and the masks."""
    for t, inputs in enumerate(steps):
        if t == 0 or _types(inputs) != _types(steps[t - 1]):
            with error_note(f"Raised at step {t}, with `inputs[{t}]`."):
                fix = fix_of_rows(cell, state, lengths.shape[0])
                state = probe(cell, inputs, state, dtype, strict=True, fix=fix)
    # No step runs if all lengths are 0, whereas `dynamic_rnn` then runs one step.
    steps_to_run = jnp.max(lengths, initial=0)
    stand_in = masking.stand_in(lengths > 0, steps[0], state)
    at = {"time": len(steps), "axis": 0, "rows_interact": rows_interact(cell)}
    return state, Steps(lengths, steps_to_run, stand_in, **at)


def _types(inputs: PyTree) -> tuple:
    """The structure, shapes and dtypes for which a step of the cell is compiled."""
    leaves, treedef = jax.tree.flatten(inputs)
    return treedef, tuple((leaf.shape, leaf.dtype) for leaf in leaves)


@runtime_checkable
class StateSaverLike(Protocol):
    """TensorFlow's protocol of a state saver."""

    def state(self, name: str) -> ArrayLike: ...

    def save_state(self, name: str, value: Array) -> object: ...


@with_hints
def static_state_saving_rnn(
    cell: RNNCellLike,
    inputs: list[PyTree] | tuple[PyTree, ...],
    state_saver: StateSaverLike,
    state_name: str | PyTree,
    sequence_length: Lengths | None = None,
    scope: str | None = None,
) -> tuple[list[PyTree], PyTree]:
    """Runs `static_rnn` from a state in `state_saver`, and saves the final state.

    Use this function to run a long sequence window by window. Gradients flow through
    all windows. To stop gradients between windows, apply `jax.lax.stop_gradient` to the
    saved states.

    Args:
        cell: A bound cell, or any object that implements the RNNCell protocol.
        inputs: A list or tuple with the inputs of each step, as in `static_rnn`.
        state_saver: A `StateSaver`, or any object with `state(name)`, which returns a
            leaf of the state, and `save_state(name, leaf)`, which replaces the leaf.
        state_name: The name of the state: a string if `cell.state_size` is one leaf,
            otherwise a tuple with a name for each leaf, in order.
        sequence_length: `[batch]`, integers, as in `static_rnn`.
        scope: The name of the steps in profiles; "rnn" by default.

    Returns:
        `(outputs, state)`, as in `static_rnn`. The state is also saved in
        `state_saver`.

    Raises:
        TypeError: If `state_saver` has no `state` or no `save_state` method; see also
            `static_rnn`.
        ValueError: If `state_name` does not fit `cell.state_size`; see also
            `static_rnn`.

    Warns:
        UserWarning: See `static_rnn`.

    Source: `tf.compat.v1.nn.static_state_saving_rnn`.
    """
    check_is_cell("cell", cell)
    what = "an object with the methods `state` and `save_state`"
    check_instance(
        "state_saver", state_saver, StateSaverLike, what, "Pass a `jaxrnn.StateSaver`."
    )
    size = cell.state_size
    names = _state_names(state_name, size)
    leaves = [as_arrays(f"state({n!r})", state_saver.state(n)) for n in names]
    state = jax.tree.unflatten(jax.tree.structure(size), leaves)
    outputs, state = static_rnn(cell, inputs, state, None, sequence_length, scope)
    fix = "Return a state with the structure of `cell.state_size`."
    check_structure("the new state of `cell`", size, state, strict=False, fix=fix)
    for name, leaf in zip(names, jax.tree.leaves(state), strict=True):
        state_saver.save_state(name, leaf)
    return outputs, state


class StateSaver:
    """Named states, which `static_state_saving_rnn` reads and replaces.

    A `StateSaver` is mutable and not a pytree. In a function, create a `StateSaver`
    from one of the function's arguments, and return `saver.states`. The function is
    then pure, and can be compiled, differentiated and scanned.

    Attributes:
        states: A dict of arrays, each `[batch, ...]`. The dict is a copy; the dict that
            you pass does not change.

    Raises:
        TypeError: If `states` is not a dict of arrays.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn
        >>> cell = jaxrnn.LSTMCell(5)
        >>> x = jnp.ones((12, 4, 2), jnp.float32)  # [time, batch, depth]
        >>> params = cell.init(jax.random.key(0), x[0])
        >>> def window(states, steps):
        ...     saver = jaxrnn.StateSaver(states)
        ...     outputs, _ = jaxrnn.static_state_saving_rnn(
        ...         cell.bind(params), list(steps), saver, ("c", "h")
        ...     )
        ...     return saver.states, jnp.stack(outputs)
        >>> zeros = jnp.zeros((4, 5), jnp.float32)
        >>> windows = x.reshape(3, 4, 4, 2)  # Three windows of four steps.
        >>> states, outputs = jax.lax.scan(window, {"c": zeros, "h": zeros}, windows)
        >>> states["c"].shape, outputs.shape
        ((4, 5), (3, 4, 4, 5))

    Source: the protocol of `state_saver` in `tf.compat.v1.nn.static_state_saving_rnn`.
    """

    def __init__(self, states: Mapping[str, ArrayLike]) -> None:
        check_instance("states", states, Mapping, "a dict of arrays")
        self.states = as_arrays("states", dict(states))

    def state(self, name: str) -> Array:
        """Returns the state with this name.

        Raises:
            KeyError: If there is no state with this name.
        """
        return self.states[name]

    def save_state(self, name: str, value: Array) -> None:
        """Saves `value` as the state with this name.

        Raises:
            KeyError: If there is no state with this name.
            TypeError: If `value` is not an array.
            ValueError: If `value` does not have the shape of the saved state.
        """
        old = self.state(name)
        value = as_arrays("value", value)
        must = f"have the shape of state {name!r}, {describe(old)}"
        check_shape("value", value, old.shape, must)
        self.states[name] = value

    def __repr__(self) -> str:
        states = [f"{name}: {describe(leaf)}" for name, leaf in self.states.items()]
        return f"StateSaver({', '.join(states)})"


def _state_names(state_name: str | PyTree, size: Size) -> list[str]:
    """Returns a name for each leaf of the state, in flat order."""
    names = jax.tree.leaves(state_name)
    count = len(jax.tree.leaves(size))
    is_one = jax.tree_util.all_leaves([size])
    must = f"be a tuple of {counted(count, 'different string')}"
    must = f"{'be a string' if is_one else must} for `cell.state_size`, {size}"
    fits = len(set(names)) == len(names) == count
    fits = fits and isinstance(state_name, str) == is_one
    expect(fits, "state_name", must, state_name)
    return names
