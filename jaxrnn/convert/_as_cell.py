"""Haiku and Equinox cells as jaxrnn cells: `haiku.as_cell`, `equinox.as_cell`."""

import contextlib
import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from .._base.arguments import check_function
from .._base.errors import (
    InvalidType,
    InvalidValue,
    describe,
    describe_leaves,
    error_note,
    is_array,
)
from .._base.tensor_shape import TensorShape
from .._base.trees import check_structure, size_shapes
from .._base.typing import DType, Key, Params, PyTree, Size
from .._cells.base import RNNCell
from .._cells.bound import BoundCell
from .._cells.function import BoundOnlyCell

_OF_HAIKU = "`hk.LSTMState(8, 8)` for an hk.LSTM(8), 8 for an hk.GRU(8)"
_OF_EQUINOX = "(8, 8) for the (h, c) of an LSTMCell, 8 for a GRUCell"


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
        with _step("transformed", inputs, state, _OF_HAIKU):
            params = self.transformed.init(key, inputs, state)
        jax.eval_shape(lambda p: self.apply(p, inputs, state, key), params)
        return params

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """Runs one step."""
        keys = (key,) if _after_params(self.transformed.apply)[:1] == ["rng"] else ()
        with _step("transformed", inputs, state, _OF_HAIKU):
            result = self.transformed.apply(params, *keys, inputs, state)
        if not isinstance(result, tuple | list) or len(result) != 2:
            raise InvalidValue(
                "`transformed` must return a pair (output, new_state), got "
                f"{describe_leaves(result)}."
            )
        output, new_state = result
        _check_size("output_size", self.output_size, output)
        _check_size("state_size", self.state_size, new_state)
        return output, new_state


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class ModuleCell(BoundOnlyCell):
    """Wraps a callable pytree `(inputs, state) -> new_state`, e.g. an Equinox cell.

    Attributes:
        tree: The pytree structure of the module.
        fixed: `(name, value)` for each leaf; the value of an array leaf is None.
        state_size: The sizes of the state, without the batch axis.
    """

    tree: Any
    fixed: tuple
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
        with _step("module", inputs, state, _OF_EQUINOX):
            state = jax.vmap(module)(inputs, state)
        _check_size("state_size", self.state_size, state)
        return jax.tree.leaves(state)[0], state


def of_haiku(transformed: Any, state_size: Size, output_size: Size) -> RNNCell:
    """Wraps a Haiku core as a jaxrnn cell, for any driver.

    Args:
        transformed: The result of `hk.transform` for a function
            `(inputs, state) -> (output, new_state)`, which is the signature of Haiku's
            cores. For a function that draws no random numbers, you can also apply
            `hk.without_apply_rng`.
        state_size: The sizes of the state without the batch axis: an int, or a nest of
            ints with the structure of Haiku's state.
        output_size: The size of the output without the batch axis: an int, or a nest of
            ints.

    Raises:
        TypeError: If `transformed` does not come from `hk.transform`, or a size is not
            an int.
        ValueError: In `init` or a step, if the sizes of the output or the new state
            differ from `output_size` or `state_size`.

    Example:
        core = hk.transform(lambda x, state: hk.LSTM(8)(x, state))
        cell = as_cell(core, hk.LSTMState(8, 8), 8)
        params = cell.init(key, x[:, 0])
    """
    if not all(callable(getattr(transformed, f, None)) for f in ("init", "apply")):
        raise InvalidType(
            "`transformed` must be made by hk.transform, got "
            f"{describe(transformed)}. Example: "
            "`hk.transform(lambda x, s: hk.GRU(8)(x, s))`."
        )
    if _after_params(transformed.apply)[:2] == ["state", "rng"]:
        raise InvalidType(
            "`transformed` must be made by hk.transform, got one made by "
            "hk.transform_with_state. Keep values that change from step to step in the "
            "cell's state."
        )
    _check_takes("transformed.init", transformed.init, "key", "inputs", "state")
    _check_sizes(state_size, output_size)
    return TransformedCell(transformed, state_size, output_size)


def of_equinox(module: PyTree, state_size: Size) -> BoundCell:
    """Wraps an Equinox cell and its arrays as a bound cell, for any driver.

    Args:
        module: A function `module(inputs, state) -> new_state` for a single row, with
            inputs `[depth]` and state leaves `[units]`.
        state_size: The sizes of the state: an int, or a nest of ints with the structure
            of Equinox's state, e.g. `(8, 8)` for the (h, c) of an LSTM.

    Returns:
        A bound cell whose output is the first leaf of the state. Its `params` map
        paths, e.g. "weight_ih", to the module's arrays.

    Raises:
        TypeError: If `module` does not accept inputs and state, or a size is not an
            int.
        ValueError: In a step, if the sizes of the returned state differ from
            `state_size`.

    Example:
        cell = as_cell(eqx.nn.GRUCell(3, 8, key=key), 8)
        outputs, state = jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)
    """
    what, fix = "a cell of Equinox", "Example: `eqx.nn.GRUCell(3, 8, key=key)`."
    check_function("module", module, what, fix)
    _check_takes("module", module, "inputs", "state")
    _check_sizes(state_size)
    named, tree = jax.tree_util.tree_flatten_with_path(module)
    names = [jax.tree_util.keystr(p, simple=True, separator=".") for p, _ in named]
    if len(set(names)) < len(names):  # Dots in keys can cause equal names.
        names = [jax.tree_util.keystr(path) for path, _ in named]
    leaves = list(zip(names, (leaf for _, leaf in named), strict=True))
    params = {name: leaf for name, leaf in leaves if is_array(leaf)}
    fixed = tuple((n, None if n in params else leaf) for n, leaf in leaves)
    return ModuleCell(tree, fixed, state_size).bind(params)


def _after_params(apply: Any) -> list[str]:
    """The names of the arguments that follow the parameters in Haiku's `apply`."""
    return list(inspect.signature(apply).parameters)[1:]


def _check_takes(name: str, function: Any, *wanted: str) -> None:
    """Raises TypeError unless `function` accepts the positional arguments `wanted`."""
    signature = inspect.signature(function)
    try:
        signature.bind(*wanted)
    except TypeError:
        raise InvalidType(
            f"`{name}` must accept ({', '.join(wanted)}), got "
            f"{describe(function)} with parameters ({', '.join(signature.parameters)})."
        ) from None


@contextlib.contextmanager
def _step(name: str, inputs: PyTree, state: PyTree, fix: str) -> Iterator[None]:
    """Adds a step's arguments to errors that the other library raises."""
    try:
        yield
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        reason = f"{error}".rstrip(".")
        raise InvalidValue(
            f"`{name}` must accept (inputs, state) of "
            f"{describe_leaves((inputs, state))}, but it raised {reason}. `state_size` "
            f"must have the structure and the sizes of the cell's state, e.g. {fix}."
        ) from error


def _check_size(name: str, size: Size, got: PyTree) -> None:
    """Raises ValueError unless the leaves `[batch, ...]` of `got` match `size`."""
    fix = "Pass the size that a step returns."
    check_structure(f"`{name}`", got, size, False, fix)
    given = jax.tree.map(lambda leaf: TensorShape(jnp.shape(leaf)[1:]), got)
    if size_shapes(given) != size_shapes(size):
        raise InvalidValue(f"`{name}` must be {given}, got {size}. {fix}")


def _check_sizes(*sizes: Size) -> None:
    with error_note("Raised for `state_size` or `output_size`."):
        for size in sizes:
            size_shapes(size)
