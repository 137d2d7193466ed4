"""A cell whose step is any pure function."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, final

import jax

from .._base.cell_keys import check_key, check_key_or_none
from .._base.errors import error_note
from .._base.trees import size_shapes
from .._base.typing import DType, Key, Params, PyTree, Shaped, Size
from .base import RNNCell
from .hyperparameters import set_field, set_functions


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class FunctionCell(RNNCell):
    """A cell whose step is a given function.

    Attributes:
        fn: `fn(params, inputs, state, key=None) -> (output, new_state)`, pure and
            defined at module level (a new lambda is a new cell, compiled again). Pass
            the arrays that it needs in `params`, as `cell.bind({..., "memory": m})`:
            outside of jit, a cell whose function reads arrays, or attributes of an
            object, is compiled on every call, since those may have changed. If it
            reads `self` of an `nnx.Module`, make the cell in `__call__`: one that is
            made in `__init__` reads the original module, while nnx differentiates a
            copy, and all gradients are zero.
        state_size: The sizes of the state: an int, a `TensorShape` or a nest of those.
        init_fn: `init_fn(key, inputs, dtype) -> params`, a nest of arrays: dicts, lists
            or tuples of them, or one array; None for no parameters.

    Raises:
        TypeError: If `fn` or `init_fn` is not a function, or a size is of the wrong
            kind; if `fn` does not take three arguments and `key`.
        ValueError: If a size is None or negative.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn
        >>> def running_sum(params, inputs, state, key=None):
        ...     total = state + inputs
        ...     return total, total
        >>> cell = jaxrnn.FunctionCell(running_sum, state_size=2, output_size=2)
        >>> x = jnp.ones((1, 3, 2), jnp.float32)
        >>> outputs, _ = jaxrnn.dynamic_rnn(cell.bind({}), x, dtype=jnp.float32)
        >>> outputs[0, :, 0].tolist()
        [1.0, 2.0, 3.0]
    """

    fn: Callable[..., tuple[PyTree, PyTree]]
    state_size: Size
    output_size: Size
    init_fn: Callable[[Key, Any, DType], Params] | None = None

    def __post_init__(self) -> None:
        set_functions(self, "fn", "init_fn")
        for name in ("state_size", "output_size"):
            with error_note(f"FunctionCell: raised by `{name}`."):
                size_shapes(size := getattr(self, name), name)
            copied = jax.tree.map(lambda n: n, size)  # What was given may change.
            set_field(self, **{name: copied})
        _check_takes_key(self.fn)

    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """The parameters that `init_fn` returns; without one, none.

        Raises:
            TypeError: If `key` is not a random key.
            ValueError: If `key` is an array of keys.
        """
        check_key("FunctionCell", key)
        return {} if self.init_fn is None else self.init_fn(key, inputs, dtype)

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step: the result of `fn`.

        Raises:
            TypeError: If `key` is not a random key.
        """
        check_key_or_none("FunctionCell", key)
        try:
            return self.fn(params, inputs, state, key=key)
        except KeyError as error:
            if self.init_fn is None and not params:
                error.add_note("FunctionCell: `params` is empty, as `init_fn` is None.")
            raise


def _check_takes_key(fn: Callable[..., Any]) -> None:
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):  # Not known for every callable object.
        return
    try:
        signature.bind(None, None, None, key=None)
    except TypeError as error:
        raise TypeError(
            "FunctionCell: `fn` must take (params, inputs, state, key=None), got a "
            f"function of {signature}: {error}. Give it a `key`, used or not."
        ) from None
