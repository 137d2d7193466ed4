"""Cells that run a cell of another library, for the functions `as_cell`.

The cells add notes to errors of the other library. `dynamic_rnn` checks the results of
a step.
"""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._base.errors import error_note
from .._base.trees import TensorShape, size_shapes
from .._base.typing import DType, Key, Params, PyTree, Size
from .._cells.base import RNNCell
from .._cells.function import BoundOnlyCell

_NOTE = "Check that `state_size` has the structure and sizes of the cell's state, e.g. "
_OF_HAIKU = f"{_NOTE}`hk.LSTMState(8, 8)` for an hk.LSTM(8) or 8 for an hk.GRU(8)."
_OF_EQUINOX = f"{_NOTE}(8, 8) for the (h, c) of an LSTMCell or 8 for a GRUCell."


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class TransformedCell(RNNCell):
    """A Haiku core as a jaxrnn cell.

    Attributes:
        transformed: The result of `hk.transform` for a function `(inputs, state) ->
            (output, new_state)`.
        state_size: The sizes of the state, without the batch axis.
        output_size: The size of the output, without the batch axis.
    """

    transformed: Any
    state_size: Size
    output_size: Size

    def init(self, key: Key, inputs: PyTree, dtype: DType = None) -> Params:
        """Initializes Haiku's parameters, in the dtype that Haiku chooses."""
        del dtype
        inputs = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), inputs)
        leaf = jax.tree.leaves(inputs)[0]
        state = self.zero_state(leaf.shape[0], leaf.dtype)
        with error_note(_OF_HAIKU):
            return self.transformed.init(key, inputs, state)

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """Runs one step."""
        takes_key = after_params(self.transformed.apply)[:1] == ["rng"]
        keys = [key] if takes_key else []
        with error_note(_OF_HAIKU):
            return self.transformed.apply(params, *keys, inputs, state)


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class ModuleCell(BoundOnlyCell):
    """Wraps a callable pytree `(inputs, state) -> new_state`, e.g. an Equinox cell.

    Attributes:
        tree: The pytree structure of the module.
        fixed: `(name, value)` for each leaf; the value of an array leaf is None.
        state_size: The sizes of the state, without the batch axis.
    """

    tree: Any
    fixed: tuple[tuple[str, PyTree], ...]
    state_size: Size

    @property
    def output_size(self) -> Size:
        """The size of the state's first leaf."""
        return TensorShape(size_shapes(self.state_size)[0])

    @property
    def is_random(self) -> bool:
        """Always False, because the module receives no random key."""
        return False

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """Runs one step for all rows; the output is the first leaf of the new state."""
        del key
        leaves = [params.get(name, value) for name, value in self.fixed]
        module = jax.tree.unflatten(self.tree, leaves)
        with error_note(_OF_EQUINOX):
            state = jax.vmap(module)(inputs, state)
            return jax.tree.leaves(state)[0], state


def after_params(apply: Callable) -> list[str]:
    """The names of the arguments that follow the parameters in Haiku's `apply`."""
    return list(inspect.signature(apply).parameters)[1:]


def check_takes(name: str, function: Callable, *wanted: str) -> None:
    """Raises TypeError unless `function` accepts the positional arguments `wanted`."""
    signature = inspect.signature(function)
    try:
        signature.bind(*wanted)
    except TypeError:
        got = f"parameters {signature}"
        must = f"accept ({', '.join(wanted)})"
        raise TypeError(f"`{name}` must {must}, got {got}.") from None
