"""Names for types in public signatures."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

import jax
import numpy as np

Array: TypeAlias = jax.Array
"""JAX's array, `jax.Array`."""

ArrayLike: TypeAlias = jax.typing.ArrayLike
"""JAX's type for arguments that a function converts to an array."""

Lengths: TypeAlias = jax.Array | np.ndarray | Sequence[int]
"""One integer for each row."""

PyTree: TypeAlias = Any
"""A nest of arrays: tuples, named tuples, lists, dicts, registered classes."""

Params: TypeAlias = dict[str, Any]
"""Nested dicts of arrays under TensorFlow's variable names, split at '/'."""

DType: TypeAlias = Any
"""Anything that names a dtype: `jnp.float32`, `np.dtype("float32")`, `"float32"`."""

Size: TypeAlias = Any
"""An int (the size of a vector), a `TensorShape`, or a nest of these."""

AxisSize: TypeAlias = Any
"""An int, or a symbolic dimension under `jax.export`."""

Key: TypeAlias = Any
"""A JAX random key, typed (`jax.random.key`) or raw (`jax.random.PRNGKey`)."""

Implementation: TypeAlias = Literal["scan", "xla", "native", "jla", "deltanet_tpu"]
"""The loop that runs a cell, or the package whose kernels run it."""

AxisName: TypeAlias = str | tuple[str, ...]
"""One or several axes of a mesh."""

Shaped: TypeAlias = jax.Array | np.ndarray | jax.ShapeDtypeStruct
"""An array, or only its shape and dtype (`jax.ShapeDtypeStruct`)."""

Activation: TypeAlias = Callable[[jax.Array], jax.Array]
"""A function of an array."""

Initializer: TypeAlias = Callable[..., jax.Array]
"""A function `initializer(key, shape, dtype)`, as in `jax.nn.initializers`."""

# The types of what a step returns: its output and the new state.
Output = TypeVar("Output", covariant=True)
State = TypeVar("State", covariant=True)

Leaf = TypeVar("Leaf")
"""The leaves of a state: arrays, or their sizes or dtypes."""


@runtime_checkable
class RNNCellLike(Protocol[Output, State]):
    """The protocol of a cell: its sizes, its zero state, and one step.

    A cell may have the method `get_initial_state` instead of `zero_state`.

    `RNNCellLike[Array, LSTMStateTuple[Array]]` is a cell whose outputs are arrays, and
    whose state is an `LSTMStateTuple` of arrays.

    A cell may have three further attributes:

    * `at_step(t)` lets random numbers depend on time. `dynamic_rnn` calls the method
      with the step `t`, a traced int32 scalar, and runs the cell that the method
      returns.
    * `start(state)` is required if the state holds the memory of an
      `AttentionWrapper`. `dynamic_rnn` calls the method once per run; see
      `RNNCell.start`.
    * `rows_interact = True` is required if a row's results depend on other rows; see
      `RNNCell.rows_interact`.
    """

    @property
    def state_size(self) -> Size:
        """The sizes of the state, without the batch axis."""
        ...

    @property
    def output_size(self) -> Size:
        """The sizes of the output, without the batch axis."""
        ...

    def zero_state(self, batch_size: int, dtype: DType) -> State:
        """The zero state, each leaf `[batch_size, ...]` of type `dtype`."""
        ...

    def __call__(self, inputs: PyTree, state: PyTree) -> tuple[Output, State]:
        """Runs one step; returns `(output, new_state)`.

        All leaves of `inputs`, `state` and the results are `[batch, ...]`.
        """
        ...


@runtime_checkable
class UnboundCellLike(Protocol):
    """An unbound cell: `init` creates parameters, and `bind` returns a bound cell."""

    def init(self, key: Key, inputs: PyTree, dtype: DType = None) -> Params: ...

    def bind(self, params: Params, key: Key | None = None) -> RNNCellLike: ...


class Bound:
    """The base class of `BoundCell`, for code that cannot import `BoundCell`."""


def bound_or_none(cell: object) -> Any:
    """Returns `cell` if it is a `BoundCell`, otherwise None.

    The attributes of `cell` are not a safe test, because a user's cell may also have an
    attribute `cell`, or forward all attributes to another cell.
    """
    return cell if isinstance(cell, Bound) else None
