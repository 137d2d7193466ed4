"""Cells whose step is a given function."""

import dataclasses
import inspect
import itertools
from collections.abc import Callable
from typing import Generic, TypeVar, final

import jax

from .._base.arguments import as_bool, check_rank, is_list_of
from .._base.cell_keys import check_key, check_key_or_none
from .._base.errors import Verbatim, expect
from .._base.inputs import check_like, check_same_size, check_shaped
from .._base.trees import TensorShape, map_named, named_leaves
from .._base.typing import DType, Key, Output, Params, PyTree, Shaped, Size, State
from . import fields
from .base import RNNCell

NewOutput = TypeVar("NewOutput")
NewState = TypeVar("NewState")


@final
@fields.dataclass
class FunctionCell(RNNCell[State], Generic[Output, State]):
    """A cell whose step is a given function.

    Attributes:
        fn: `fn(params, inputs, state, key=None) -> (output, new_state)`, pure and
            defined at module level (JAX compiles again for each new lambda). Pass the
            arrays that `fn` needs in `params`, for example
            `cell.bind({..., "memory": m})`. Outside jit, `fn` is compiled on every
            call, because the variables that `fn` reads may have changed. If `fn` reads
            `self` of an `nnx.Module`, create the cell in `__call__`. A cell created in
            `__init__` reads the original module while nnx differentiates a copy, so all
            gradients are zero.
        state_size: The sizes of the state: an int, a `TensorShape` or a nest of ints
            and shapes.
        output_size: The sizes of the output, in the same form as `state_size`.
        init_fn: `init_fn(key, inputs, dtype) -> params`, which returns one array or
            nested dicts, lists or tuples of arrays. If None, the cell has no
            parameters.
        is_random: Whether `fn` draws random numbers from its key; None if unknown. See
            `RNNCell.is_random`.
        rows_interact: Whether a row's results depend on other rows of the batch. See
            `RNNCell.rows_interact`.

    Raises:
        TypeError: If `fn` or `init_fn` is not a function, or a size or a bool has the
            wrong type.
        ValueError: If a size is None or negative.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn
        >>> def running_sum(params, inputs, state, key=None):
        ...     total = state + inputs
        ...     return total, total
        >>> x = jnp.ones((1, 3, 2), jnp.float32)
        >>> cell = jaxrnn.FunctionCell.like(running_sum, x[:, 0], x[:, 0])
        >>> cell == jaxrnn.FunctionCell(running_sum, state_size=2, output_size=2)
        True
        >>> outputs, _ = jaxrnn.dynamic_rnn(cell.bind({}), x, dtype=jnp.float32)
        >>> outputs[0, :, 0].tolist()
        [1.0, 2.0, 3.0]
    """

    fn: Callable[..., tuple[Output, State]] = fields.function()
    state_size: Size = fields.sizes()
    output_size: Size = fields.sizes()
    init_fn: Callable[[Key, PyTree, DType], Params] | None = fields.function(
        default=None
    )
    starts_from_zeros = property(lambda self: True)
    is_random: bool | None = fields.checked(as_bool, default=None)  # pyright: ignore[reportIncompatibleMethodOverride]
    rows_interact: bool = fields.flag(False)  # pyright: ignore[reportIncompatibleMethodOverride]

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            signature = inspect.signature(self.fn)
        except ValueError:  # Some functions written in C have no signature.
            return
        takes_key = _accepts(signature, None, None, None, key=None)
        is_step = takes_key or not any(_accepts(signature, *[None] * n) for n in (3, 4))
        must = "take the argument `key`, for random numbers"
        fix = "Write `def step(params, inputs, state, key=None)`."
        expect(is_step, "fn", must, Verbatim(signature), fix, error=TypeError)

    @classmethod
    def like(
        cls,
        fn: Callable[..., tuple[NewOutput, NewState]],
        inputs: PyTree,
        state: PyTree,
        init_fn: Callable[[Key, PyTree, DType], Params] | None = None,
        *,
        params: Params | None = None,
        is_random: bool | None = None,
        rows_interact: bool = False,
    ) -> "FunctionCell[NewOutput, NewState]":
        """Creates a cell with the sizes of `state` and of the output of `fn`.

        To find the size of the output, `fn` is traced for one step, but not run.

        Args:
            fn: See `FunctionCell`.
            inputs: One step of inputs, each leaf `[batch, ...]`. Only the shapes and
                dtypes of `inputs`, `state` and `params` are read, so
                `jax.ShapeDtypeStruct`s are accepted.
            state: A state, each leaf `[batch, ...]`.
            init_fn: See `FunctionCell`.
            params: Parameters for `fn`. Default: the parameters that `init_fn` returns
                with `dtype=None`.
            is_random: See `FunctionCell`.
            rows_interact: See `FunctionCell`.

        Raises:
            TypeError: If an argument of `FunctionCell` has the wrong type, or a leaf of
                `inputs` or `state` is not an array.
            ValueError: If `fn` does not return a pair, or changes the structure or a
                shape of the state; if a leaf is None or has no batch axis, or leaves
                differ in the number of rows.
        """
        cell = FunctionCell(
            fn, 0, 0, init_fn, is_random=is_random, rows_interact=rows_interact
        )
        check_shaped("inputs", inputs)
        check_shaped("state", state)
        state_size = map_named("state", size_of, state)
        if params is None:
            params = jax.eval_shape(lambda: cell.init(jax.random.key(0), inputs))
        result = jax.eval_shape(fn, params, inputs, state, key=None)
        must = "return a pair (output, new_state)"
        expect(is_list_of(result, 2), "fn", must, result)
        output, new_state = result
        output_size = map_named("output", size_of, output)
        trees = {"inputs": inputs, "state": state, "output": output}
        leaves = itertools.chain(*itertools.starmap(named_leaves, trees.items()))
        check_same_size([(name, leaf) for name, leaf in leaves if leaf.shape])
        fix = "A step must keep the structure and the shapes of its state."
        check_like("new_state", new_state, state, strict=False, any_dtype=True, fix=fix)
        sizes = {"state_size": state_size, "output_size": output_size}
        return dataclasses.replace(cell, **sizes)

    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """The parameters that `init_fn` returns; `{}` if `init_fn` is None.

        Raises:
            TypeError: If `key` is not a random key.
            ValueError: If `key` is an array of keys.
        """
        check_key(key)
        return {} if self.init_fn is None else self.init_fn(key, inputs, dtype)

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[Output, State]:
        """Runs one step by calling `fn`.

        Raises:
            TypeError: If `key` is not a random key.
        """
        check_key_or_none(key)
        return self.fn(params, inputs, state, key=key)


def size_of(name: str, leaf: Shaped) -> int | TensorShape:
    """Returns the size of an array `[batch, ...]`, an int if each row is a vector."""
    fix = "In the nest, leave None out, or use an array [batch, 0] instead."
    expect(leaf is not None, name, "be an array", leaf, fix)
    check_rank(name, leaf, 1, "[batch, ...]")
    return leaf.shape[1] if len(leaf.shape) == 2 else TensorShape(leaf.shape[1:])


def _accepts(signature: inspect.Signature, *args: object, **kwargs: object) -> bool:
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True
