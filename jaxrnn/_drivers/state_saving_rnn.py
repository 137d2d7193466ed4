"""`static_state_saving_rnn`: runs windows of a long sequence, with a saved state."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import jax

from .._base.arguments import check_instance, check_is_cell, check_shape
from .._base.errors import counted, describe
from .._base.expect import expect
from .._base.hints import with_hints
from .._base.inputs import as_arrays
from .._base.like import check_structure
from .._base.typing import Array, ArrayLike, Lengths, PyTree, RNNCellLike, Size
from .static_rnn import static_rnn


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
        must = "hold one array under each name"
        are_arrays = jax.tree_util.all_leaves(states.values())
        expect(are_arrays, "states", must, states, error=TypeError)
        self.states = as_arrays("states", dict(states))

    def state(self, name: str) -> Array:
        """Returns the state with this name.

        Raises:
            KeyError: If there is no state with this name.
        """
        must = f"be the name of a state ({', '.join(map(repr, self.states))})"
        expect(name in self.states, "name", must, name, error=KeyError)
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
    are_different = len(set(names)) == len(names) == count
    fits = are_different and isinstance(state_name, str) == is_one
    expect(fits, "state_name", must, state_name)
    return names
