"""Runs a cell over a list of steps, in one compiled loop, also with saved states."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax

from .._base.arguments import as_bool, check_instance, check_shape
from .._base.errors import counted, describe, expect
from .._base.hints import with_hints
from .._base.inputs import as_arrays
from .._base.typing import (
    Array,
    ArrayLike,
    DType,
    Implementation,
    Lengths,
    PyTree,
    RNNCellLike,
    Size,
)
from .._run.arguments import (
    as_implementation,
    as_initial_state,
    as_lengths,
    output_dtype,
)
from .._run.given import Given
from .._run.run_cell import run_cell
from .arguments import as_scope, as_steps, check_is_cell


@with_hints
def static_rnn(
    cell: RNNCellLike,
    inputs: list[PyTree] | tuple[PyTree, ...],
    initial_state: PyTree = None,
    dtype: DType | None = None,
    sequence_length: Lengths | None = None,
    scope: str | None = None,
    *,
    implementation: Implementation | None = None,
    return_states: bool = False,
) -> tuple[PyTree, ...]:
    """Runs `cell` over a list of steps, in the loop of `dynamic_rnn`.

    TensorFlow's program contains a copy of the cell for each step. This function stacks
    the steps, so only one step is compiled.

    Args:
        cell: A bound cell (`cell.bind(params)`), or any object that implements the
            RNNCell protocol.
        inputs: A list or tuple with the inputs of each step, `[batch, ...]` or a nest
            of such arrays. All steps must have the same structure, shapes and dtypes.
            For a time-major array `x`, pass `list(x)`.
        initial_state: The state before the first step, with the structure of
            `cell.state_size`, each leaf `[batch, ...]` or a scalar. Default: the cell's
            zero state, which requires `dtype`. For a plain tuple instead of an
            `LSTMStateTuple`, see `dynamic_rnn`.
        dtype: The dtype of the zero state and of the outputs, as in `dynamic_rnn`.
        sequence_length: The length of each row, `[batch]`, integers, clamped to
            `[0, len(inputs)]`. Default: all steps. Past its length, a row outputs zeros
            and keeps its state. Inputs past the length, even NaN, do not affect
            outputs, states or gradients. Scalar leaves of the state are updated until
            the longest row ends. If all lengths are 0, scalar leaves are never updated,
            whereas `dynamic_rnn` updates them once.
        scope: The name of the loop in profiles; "rnn" by default.
        implementation: As in `dynamic_rnn`.
        return_states: Whether to also return the state after every step.

    Returns:
        `(outputs, state)`. `outputs` is a list with the output of each step, each leaf
        `[batch, ...]`. `state` is the state after each row's last valid step. With
        `return_states`, the result is `(outputs, state, states)`. `states` is a list
        with the state after each step. Past its length, a row keeps its last state.

    Raises:
        TypeError: If `cell` is not a cell, `inputs` is not a sequence, the dtypes of
            two steps differ, or the cell changes the dtypes of its state.
        ValueError: If `inputs` is empty, the shapes of two steps differ, or neither
            `initial_state` nor `dtype` is given; see also `dynamic_rnn`.

    Warns:
        UserWarning: If a plain pair replaces an `LSTMStateTuple`; see `dynamic_rnn`.

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
    xs = as_steps(inputs)
    keeps_states = as_bool("return_states", return_states)
    outputs, state, states = run_stacked(
        cell,
        xs,
        initial_state,
        dtype,
        sequence_length,
        scope,
        implementation,
        keeps_states,
    )
    outputs = unstacked(outputs, len(inputs))
    if not return_states:
        return outputs, state
    return outputs, state, unstacked(states, len(inputs))


def run_stacked(
    cell: RNNCellLike,
    xs: PyTree,
    initial_state: PyTree,
    dtype: DType | None,
    sequence_length: Lengths | None,
    scope: str | None,
    implementation: Implementation | None,
    return_states: bool = False,
) -> tuple[PyTree, PyTree, PyTree]:
    """Runs `static_rnn` over stacked steps, each leaf `[time, batch, ...]`."""
    time, rows = jax.tree.leaves(xs)[0].shape[:2]
    is_ragged = sequence_length is not None
    state = as_initial_state(cell, initial_state, time, strict=is_ragged)
    given = Given(
        inputs=xs,
        state=state,
        lengths=as_lengths(sequence_length, rows, time=time),
        axis=0,
        dtype=output_dtype(state, dtype),
        implementation=as_implementation(implementation),
        returns_states=return_states,
        needs_rows=return_states,
        least_steps=0,
    )
    with jax.named_scope(as_scope(scope, "rnn")):
        return run_cell(cell, given)


def unstacked(xs: PyTree, time: int) -> list[PyTree]:
    """Splits a nest of arrays `[time, batch, ...]` into its steps."""
    # The backward pass of a split is one concatenation. The backward pass of `x[t]` for
    # each t would pad each step's cotangent with zeros to all steps, and sum the padded
    # arrays.
    leaves, structure = jax.tree.flatten(xs)
    columns = [[x[0] for x in jax.lax.split(leaf, [1] * time)] for leaf in leaves]
    return [structure.unflatten(column[t] for column in columns) for t in range(time)]


@runtime_checkable
class StateSaverLike(Protocol):
    """The methods that `static_state_saving_rnn` calls, as in TensorFlow."""

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
    *,
    implementation: Implementation | None = None,
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
        sequence_length: The length of each row, `[batch]`, integers, as in
            `static_rnn`. Default: all steps.
        scope: The name of the steps in profiles; "rnn" by default.
        implementation: As in `dynamic_rnn`.

    Returns:
        `(outputs, state)`, as in `static_rnn`. The state is also saved in
        `state_saver`.

    Raises:
        TypeError: If `state_saver` has no `state` or no `save_state` method; see also
            `static_rnn`.
        ValueError: If `state_name` does not fit `cell.state_size`; see also
            `static_rnn`.

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
    options: Any = {"scope": scope, "implementation": implementation}
    outputs, state = static_rnn(cell, inputs, state, None, sequence_length, **options)
    for name, leaf in zip(names, jax.tree.leaves(state), strict=True):
        state_saver.save_state(name, leaf)
    return outputs, state


class StateSaver:
    """Named states, which `static_state_saving_rnn` reads and replaces.

    A `StateSaver` is mutable and not a pytree. In a function, create a `StateSaver`
    from one of the function's arguments, and return `saver.states`. The function is
    then pure, and can be compiled, differentiated and scanned.

    Attributes:
        states: A dict of arrays, each `[batch, ...]`. `states` is a copy, so the dict
            that you pass does not change.

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
        """Returns the state `name`.

        Raises:
            KeyError: If there is no state with this name.
        """
        must = f"be one of {', '.join(map(repr, self.states))}"
        expect(name in self.states, "name", must, name, error=KeyError)
        return self.states[name]

    def save_state(self, name: str, value: Array) -> None:
        """Saves `value` as the state `name`.

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
