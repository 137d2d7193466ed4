"""Cells of Haiku and Equinox as cells of jaxrnn: `haiku.as_cell`, `equinox.as_cell`."""

import contextlib
import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from .._base.arguments import check_function
from .._base.errors import describe, describe_leaves, error_note, is_array
from .._base.tensor_shape import TensorShape
from .._base.trees import check_structure, size_shapes
from .._base.typing import DType, Key, Params, PyTree, Size
from .._cells.base import BoundOnlyCell, RNNCell
from .._cells.bound import BoundCell

_OF_HAIKU = "`hk.LSTMState(8, 8)` for an hk.LSTM(8), 8 for an hk.GRU(8)"
_OF_EQUINOX = "(8, 8) for the (h, c) of an LSTMCell, 8 for a GRUCell"


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class TransformedCell(RNNCell):
    """A core of Haiku as a cell.

    Attributes:
        transformed: `hk.transform` of a function of `(inputs, state)`.
        state_size: The sizes of the state, without the batch axis.
    """

    transformed: Any
    state_size: Size
    output_size: Size

    def init(self, key: Key, inputs: PyTree, dtype: DType = None) -> Params:
        """Haiku's parameters, in the dtype that Haiku chooses."""
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
        """One step."""
        keys = (key,) if _after_params(self.transformed.apply)[:1] == ["rng"] else ()
        with _step("transformed", inputs, state, _OF_HAIKU):
            result = self.transformed.apply(params, *keys, inputs, state)
        if not isinstance(result, tuple | list) or len(result) != 2:
            raise ValueError(
                "as_cell: `transformed` must give (output, new_state), got "
                f"{describe_leaves(result)}."
            )
        output, new_state = result
        _check_size("output_size", self.output_size, output)
        _check_size("state_size", self.state_size, new_state)
        return output, new_state


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class ModuleCell(BoundOnlyCell):
    """A callable pytree, such as a cell of Equinox: `(inputs, state) -> state`.

    Attributes:
        tree: The structure of the module.
        fixed: `(name, value)` of every leaf, with None as the value of an array.
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
        """False: the module gets no key."""
        return False

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step of all rows; the first leaf of the state is the output."""
        del key
        leaves = [params.get(name, value) for name, value in self.fixed]
        module = jax.tree.unflatten(self.tree, leaves)
        with _step("module", inputs, state, _OF_EQUINOX):
            state = jax.vmap(module)(inputs, state)
        _check_size("state_size", self.state_size, state)
        return jax.tree.leaves(state)[0], state


def of_haiku(transformed: Any, state_size: Size, output_size: Size) -> RNNCell:
    """Wraps a core of Haiku as a cell of jaxrnn, for any driver.

    Args:
        transformed: `hk.transform` of a function `(inputs, state) -> (output,
            new_state)`, as Haiku's cores are; or `hk.without_apply_rng` of it, for a
            function that draws no random numbers.
        state_size: The sizes of the state: an int or a nest of ints, without the batch
            axis, with the structure of Haiku's state.
        output_size: The size of the output, likewise.

    Raises:
        TypeError: If `transformed` does not come from `hk.transform`, or a size is not
            an int. (`init` and a step raise ValueError if a step returns other sizes.)

    Example:
        core = hk.transform(lambda x, state: hk.LSTM(8)(x, state))
        cell = as_cell(core, hk.LSTMState(8, 8), 8)
        params = cell.init(key, x[:, 0])
    """
    if not all(callable(getattr(transformed, f, None)) for f in ("init", "apply")):
        raise TypeError(
            "as_cell: `transformed` must be made by hk.transform, got "
            f"{describe(transformed)}. `hk.transform(lambda x, s: hk.GRU(8)(x, s))`."
        )
    if _after_params(transformed.apply)[:2] == ["state", "rng"]:
        raise TypeError(
            "as_cell: `transformed` must be made by hk.transform, got one made by "
            "hk.transform_with_state. What changes from step to step belongs in the "
            "state of the cell."
        )
    _check_takes("transformed.init", transformed.init, "key", "inputs", "state")
    _check_sizes(state_size, output_size)
    return TransformedCell(transformed, state_size, output_size)


def of_equinox(module: PyTree, state_size: Size) -> BoundCell:
    """Wraps a cell of Equinox, with its arrays, as a bound cell for any driver.

    Args:
        module: `module(inputs, state) -> new_state` for one row, `[depth]` and
            `[units]`.
        state_size: The sizes of the state: an int or a nest of ints, with the structure
            of Equinox's state: `(8, 8)` for the (h, c) of an LSTM.

    Returns:
        A cell whose output is the first leaf of the state. Its `params` are the arrays
        under their paths, such as "weight_ih".

    Raises:
        TypeError: If `module` does not take inputs and state, or a size is not an int.
            (A step raises ValueError if it returns a state of another size.)

    Example:
        cell = as_cell(eqx.nn.GRUCell(3, 8, key=key), 8)
        outputs, state = jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)
    """
    what, fix = "a cell of Equinox", "`eqx.nn.GRUCell(3, 8, key=key)` is one."
    check_function("as_cell", "module", module, what, fix)
    _check_takes("module", module, "inputs", "state")
    _check_sizes(state_size)
    named, tree = jax.tree_util.tree_flatten_with_path(module)
    names = [jax.tree_util.keystr(p, simple=True, separator=".") for p, _ in named]
    if len(set(names)) < len(names):  # A key has a dot in it.
        names = [jax.tree_util.keystr(path) for path, _ in named]
    leaves = list(zip(names, (leaf for _, leaf in named), strict=True))
    params = {name: leaf for name, leaf in leaves if is_array(leaf)}
    fixed = tuple((n, None if n in params else leaf) for n, leaf in leaves)
    return ModuleCell(tree, fixed, state_size).bind(params)


def _after_params(apply: Any) -> list[str]:
    """The names of the arguments of Haiku's `apply` after the parameters."""
    return list(inspect.signature(apply).parameters)[1:]


def _check_takes(name: str, function: Any, *wanted: str) -> None:
    """Raises TypeError for a function that cannot be called with such arguments."""
    signature = inspect.signature(function)
    try:
        signature.bind(*wanted)
    except TypeError:
        raise TypeError(
            f"as_cell: `{name}` must take ({', '.join(wanted)}), as that of a cell "
            f"does, got {describe(function)} of ({', '.join(signature.parameters)})."
        ) from None


@contextlib.contextmanager
def _step(name: str, inputs: PyTree, state: PyTree, fix: str) -> Iterator[None]:
    """Names a step's arguments in errors, which arise deep inside a library's cell."""
    try:
        yield
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}".rstrip(".")
        raise ValueError(
            f"as_cell: `{name}` must take (inputs, state) of "
            f"{describe_leaves((inputs, state))}, got {reason}. `state_size` must have "
            f"the structure and the sizes of its state: {fix}."
        ) from error


def _check_size(name: str, size: Size, got: PyTree) -> None:
    """Raises ValueError unless `got`, leaves `[batch, ...]`, has that size."""
    caller, fix = f"as_cell: `{name}`", "That is what a step gives."
    check_structure(caller, got, size, False, fix)
    given = jax.tree.map(lambda leaf: TensorShape(jnp.shape(leaf)[1:]), got)
    if size_shapes(given) != size_shapes(size):
        raise ValueError(f"{caller} must be {given}, got {size}. {fix}")


def _check_sizes(*sizes: Size) -> None:
    with error_note("as_cell: raised by `state_size` or `output_size`."):
        for size in sizes:
            size_shapes(size)
