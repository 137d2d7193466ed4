"""Cells of other libraries, run as they are."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from .._bound import BoundCell
from .._cells._base import RNNCell
from .._errors import describe, is_array, noting
from .._tensor_shape import TensorShape
from .._trees import size_shapes
from .._typing import DType, Key, Params, PyTree, Size


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class TransformedCell(RNNCell):
    """A function of Haiku, `hk.transform(...)`, of `(inputs, state)`."""

    transformed: Any
    state_size: Size
    output_size: Size

    def init(self, key: Key, inputs: PyTree, dtype: DType = None) -> Params:
        """What Haiku makes for such inputs; it decides on the dtype."""
        del dtype
        zeros = lambda x: jnp.zeros(x.shape, x.dtype)
        inputs = jax.tree.map(zeros, inputs)
        leaf = jax.tree.leaves(inputs)[0]
        state = self.zero_state(leaf.shape[0], leaf.dtype)
        return self.transformed.init(key, inputs, state)

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step."""
        return self.transformed.apply(params, key, inputs, state)


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class ModuleCell(RNNCell):
    """A callable pytree, as Equinox's: `state = module(inputs, state)` of one row."""

    tree: Any
    fixed: tuple
    state_size: Size

    @property
    def output_size(self) -> Size:
        """That of the state's first leaf."""
        return TensorShape(size_shapes(self.state_size)[0])

    @classmethod
    def split(cls, module: PyTree, state_size: Size) -> tuple["ModuleCell", Params]:
        """The cell, and the module's arrays under their paths."""
        named, tree = jax.tree_util.tree_flatten_with_path(module)
        names = [jax.tree_util.keystr(p, simple=True, separator=".") for p, _ in named]
        params = {n: x for n, (_, x) in zip(names, named, strict=True) if is_array(x)}
        fixed = tuple(
            (n, None if is_array(x) else x)
            for n, (_, x) in zip(names, named, strict=True)
        )
        return cls(tree, fixed, state_size), params

    def init(self, key: Key, inputs: PyTree, dtype: DType = None) -> Params:
        """Refused: such a module is made with its parameters."""
        raise ValueError(
            "init: this cell has its parameters already, those that `as_cell` bound it "
            "with."
        )

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step of all rows; the first leaf of the state is the output."""
        del key
        leaves = [params.get(name, value) for name, value in self.fixed]
        module = jax.tree.unflatten(self.tree, leaves)
        state = jax.vmap(module)(inputs, state)
        return jax.tree.leaves(state)[0], state


def of_haiku(transformed: Any, state_size: Size, output_size: Size) -> RNNCell:
    """A core of Haiku as a cell, for any driver.

    Args:
        transformed: `hk.transform` of a function of `(inputs, state)` that gives
            `(output, new_state)`, as Haiku's cores do.
        state_size: The sizes of the state: an int or a nest of ints, without the batch
            axis, of the structure that Haiku's state has.
        output_size: The size of the output, likewise.

    Raises:
        TypeError: If it is no such pair of functions, or a size is none.

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
    _check_sizes(state_size, output_size)
    return TransformedCell(transformed, state_size, output_size)


def of_equinox(module: PyTree, state_size: Size) -> BoundCell:
    """A cell of Equinox with its arrays as a bound cell, for any driver.

    Args:
        module: What is called with inputs and state of one row, `[depth]` and
            `[units]`, and gives the new state.
        state_size: The sizes of the state: an int or a nest of ints, of the structure
            that Equinox's state has: `(8, 8)` for the (h, c) of an LSTM.

    Returns:
        A cell whose output is the first leaf of the state. Its `params` are the arrays
        under their paths, "weight_ih" for one.

    Raises:
        TypeError: If it is not callable, or a size is none.

    Example:
        cell = as_cell(eqx.nn.GRUCell(3, 8, key=key), 8)
        outputs, state = jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)
    """
    if not callable(module):
        raise TypeError(
            f"as_cell: `module` must be a cell of Equinox, got {describe(module)}."
        )
    _check_sizes(state_size)
    cell, params = ModuleCell.split(module, state_size)
    return cell.bind(params)


def _check_sizes(*sizes: Size) -> None:
    with noting("as_cell: raised by `state_size` or `output_size`."):
        for size in sizes:
            size_shapes(size)
