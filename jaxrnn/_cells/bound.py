"""A cell with its parameters."""

import dataclasses
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, final

import jax
import jax.numpy as jnp

from .._base import cell_keys
from .._base.arguments import as_count, check_instance
from .._base.errors import describe_leaves, is_array
from .._base.trees import is_pytree_of_arrays
from .._base.typing import Array, Bound, DType, Key, Output, Params, PyTree, Size, State
from . import fields

if TYPE_CHECKING:
    from .base import RNNCell

CellT = TypeVar("CellT", covariant=True)


class Applies(Protocol[Output, State]):
    """What gives a bound cell the types of its outputs and states: `cell.apply`."""

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[Output, State]: ...


@final
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class BoundCell(Bound, Generic[CellT]):
    """A cell with its parameters: a pytree that is called like a TensorFlow cell.

    The leaves are the parameters (and the key if there is one); the cell is static. You
    can therefore pass a bound cell to `jax.jit`, `jax.vmap` and `jax.tree.map` and, if
    it has no key, to `jax.grad` and `optax`. Bound cells whose cells are equal share
    one compilation. Create a bound cell with `cell.bind(params, key)`.

    Attributes:
        cell: The hyperparameters.
        params: Nested dicts of arrays, as `cell.init` returns them.
        key: The random key of one run, or None for a deterministic run. Keys have no
            gradient, so differentiate with respect to `params` and call `bind` inside
            the loss function.
    """

    params: Params
    key: Key | None = None
    cell: CellT = dataclasses.field(metadata={"static": True}, kw_only=True)

    def __call__(
        self: "BoundCell[Applies[Output, State]]",
        inputs: PyTree,
        state: PyTree,
        scope: str | None = None,
    ) -> tuple[Output, State]:
        """Runs one step; returns `(output, new_state)`, each leaf `[batch, ...]`.

        Args:
            inputs: One step of inputs, `[batch, depth]` or a nest.
            state: A state with the structure of `state_size`.
            scope: A name for the step's operations in profiles.

        Raises:
            ValueError: If shapes do not match the cell or its parameters.
            TypeError: If structures or dtypes do not match the cell or its parameters,
                or `scope` is not a string.
        """
        if scope is None:
            return self.cell.apply(self.params, inputs, state, key=self.key)
        fix = "To bind a random key, call `cell.bind(params, key)`."
        check_instance("scope", scope, str, "a string", fix)
        with jax.named_scope(scope):
            return self(inputs, state)

    def start(self: "BoundCell[RNNCell]", state: PyTree) -> PyTree:
        """Prepares `state` for the first step; see `RNNCell.start`."""
        return self.cell.start(self.params, state)

    @property
    def shares_programs(self) -> bool:
        """Whether calls outside of jit with equal cells share compiled programs.

        They do if the cell is built in, and each function in it, except initializers,
        is a function of JAX or jaxrnn. Other functions may read what changes.
        """
        return is_pytree_of_arrays(self) and fields.is_constant(self.cell)

    def __repr__(self) -> str:
        key = "" if self.key is None else ", key=..."
        return f"BoundCell({self.cell!r}, params={describe_leaves(self.params)}{key})"

    def at_step(self, t: Array) -> "BoundCell[CellT]":
        """The cell with the random key that `dynamic_rnn` uses at step `t`.

        Call this cell, as in `cell.at_step(t)(inputs, state)`, to run step t alone with
        the random numbers of a run over all steps. Do not pass this cell to
        `dynamic_rnn`, which would count steps from 0.

        Raises:
            TypeError: If `t` is neither an integer nor an integer scalar array.
            ValueError: If `t` is an int outside `[0, 2**31)`.
        """
        is_scalar = is_array(t) and not t.shape and jnp.issubdtype(t.dtype, jnp.integer)
        if not is_scalar:
            as_count("t", t, 0, "Pass the index of one step, which jit may trace.")
        return dataclasses.replace(self, key=cell_keys.at_step(self.key, t))

    @property
    def state_size(self: "BoundCell[RNNCell]") -> Size:
        """The sizes of the state's leaves, without the batch axis."""
        return self.cell.state_size

    @property
    def output_size(self: "BoundCell[RNNCell]") -> Size:
        """The sizes of the output's leaves, without the batch axis."""
        return self.cell.output_size

    def zero_state(
        self: "BoundCell[RNNCell[State]]", batch_size: int, dtype: DType
    ) -> State:
        """A state of zeros, each leaf `[batch_size, ...]` with dtype `dtype`.

        Raises:
            TypeError: See `RNNCell.zero_state`.
            ValueError: See `RNNCell.zero_state`.
        """
        return self.cell.zero_state(batch_size, dtype)

    @property
    def rows_interact(self: "BoundCell[RNNCell]") -> bool:
        """See `RNNCell.rows_interact`."""
        return self.cell.rows_interact

    def get_initial_state(
        self: "BoundCell[RNNCell[State]]",
        inputs: PyTree = None,
        batch_size: int | None = None,
        dtype: DType | None = None,
    ) -> State:
        """The zero state for `inputs`, or for a `batch_size` and a `dtype`.

        Raises:
            TypeError: See `RNNCell.get_initial_state`.
            ValueError: See `RNNCell.get_initial_state`.
        """
        return self.cell.get_initial_state(inputs, batch_size, dtype)
