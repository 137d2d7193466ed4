"""Cells of jaxrnn as cells of nnx, and cells of nnx as cells of jaxrnn."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from .._base.errors import describe, is_key
from .._base.typing import Array, DType, Key, Params, PyTree, Size
from .._cells.base import RNNCell
from .._cells.bound import BoundCell
from .._layers.batch_axes import BatchAxes
from .._layers.cells import check_are_cells, sizes_of_cell
from .._layers.directions import OneDirection
from .._layers.layer import in_dtype
from ._parameters import as_pure, make_params


class Cell(nnx.RNNCellBase):
    """A cell of jaxrnn as a cell of nnx, for `nnx.RNN` and `nnx.Bidirectional`.

    A cell that draws random numbers is refused, as Flax's RNN has no key for each step.
    `jaxrnn.nnx.RNN` has one; it is also faster, and ignores padding.

    Args:
        cell: The cell, of inputs `[batch, features]`.
        in_features: The size of the inputs.
        dtype: The dtype of the computation and of the initial carry; None for
            `param_dtype`.
        param_dtype: The dtype of the parameters.
        rngs: The streams for the parameters.

    Raises:
        TypeError: If `cell` is not an RNNCell, `in_features` is not an int, or `rngs`
            is not `nnx.Rngs`.
        ValueError: If the cell draws random numbers, or `in_features` is below 1.

    Example:
        >>> import jax.numpy as jnp, jaxrnn, jaxrnn.nnx
        >>> from flax import nnx
        >>> cell = jaxrnn.nnx.Cell(jaxrnn.LSTMCell(8), 3, rngs=nnx.Rngs(0))
        >>> nnx.RNN(cell)(jnp.ones((2, 5, 3), jnp.float32)).shape
        (2, 5, 8)
    """

    def __init__(
        self,
        cell: RNNCell,
        in_features: int,
        *,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        self.layer, self.dtype = OneDirection(cell), dtype or param_dtype
        where = type(self).__name__
        check_are_cells(where, cell=cell)
        self.params, step = make_params(
            where, self.layer, in_features, rngs, param_dtype
        )
        params = as_pure(self.params)
        self.layer.check_not_random(where, params, step, param_dtype)

    def __call__(self, carry: PyTree, inputs: Array) -> tuple[PyTree, PyTree]:
        """One step: `(carry, output)`, each leaf `[*batch, ...]`."""
        axes = BatchAxes(inputs.shape[:-1])
        inputs, state = axes.merge((inputs, carry))
        params = as_pure(self.params)
        params, inputs = in_dtype(self.dtype, (params, inputs))
        output, state = self.layer.bind(params)(inputs, state)
        return axes.split((state, output))

    def initialize_carry(
        self, input_shape: tuple[int, ...], rngs: Any = None, carry_init: Any = None
    ) -> PyTree:
        """The zero state for inputs `[*batch, features]`, each leaf `[*batch, ...]`."""
        del rngs, carry_init
        axes = BatchAxes(input_shape[:-1])
        return axes.split(self.layer.cell.zero_state(axes.rows, self.dtype))

    @property
    def num_feature_axes(self) -> int:
        """1: one step of one row is a vector."""
        return 1


def as_cell(module: nnx.RNNCellBase, in_features: int | tuple[int, ...]) -> BoundCell:
    """Wraps a cell of nnx, with its parameters, as a cell of jaxrnn for any driver.

    Its state is nnx's carry. Drivers start from zeros: for a module with another
    initial carry, pass them `initial_state=module.initialize_carry(...)`.

    Args:
        module: The cell.
        in_features: The size of its inputs or their shape, without the batch axis.

    Returns:
        A bound cell, whose `params` are a pure dict: once they are trained,
        `nnx.update(module, params)` writes them back. A module with dropout draws from
        the bound key: `cell.cell.bind(cell.params, key)`.

    Raises:
        TypeError: If it is not a cell of nnx.
        ValueError: If it has other variables than parameters and streams.

    Example:
        >>> import jax.numpy as jnp, jaxrnn, jaxrnn.nnx
        >>> from flax import nnx
        >>> cell = jaxrnn.nnx.as_cell(nnx.GRUCell(3, 8, rngs=nnx.Rngs(0)), 3)
        >>> x = jnp.ones((2, 5, 3), jnp.float32)
        >>> jaxrnn.dynamic_rnn(cell, x, dtype=jnp.float32)[0].shape
        (2, 5, 8)
    """
    if not isinstance(module, nnx.RNNCellBase):
        raise TypeError(
            "as_cell: `module` must be a cell of nnx, such as nnx.LSTMCell, got "
            f"{describe(module)}."
        )
    graph, params, streams, others = nnx.split(module, nnx.Param, nnx.RngState, ...)
    if jax.tree.leaves(others):
        raise ValueError(
            "as_cell: `module` must have parameters alone, got "
            f"{sorted(nnx.to_pure_dict(others))} too. What changes from step to step "
            "belongs in the state."
        )

    def step(shape: tuple[int, ...]) -> tuple[PyTree, PyTree]:
        copy = nnx.merge(graph, params, streams, copy=True)
        carry = copy.initialize_carry(shape, nnx.Rngs(0))
        return copy(carry, jnp.zeros(shape, jnp.float32))

    leaves, tree = jax.tree.flatten(streams)
    are_keys = tuple(map(is_key, leaves))
    cell = NnxCell(graph, tree, are_keys, *sizes_of_cell(step, in_features))
    return cell.bind(nnx.to_pure_dict(params))


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class NnxCell(RNNCell):
    graph: Any
    streams: Any  # The structure of the module's random streams.
    are_keys: tuple[bool, ...]  # Which of its leaves are keys; the others are counters.
    state_size: Size
    output_size: Size

    def init(self, key: Key, inputs: PyTree, dtype: DType = None) -> Params:
        """Refused: a module of nnx is constructed with its parameters.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "init: a cell of nnx has its parameters already, those that `as_cell` "
            "bound. In your own module, call `jaxrnn.dynamic_rnn` on it."
        )

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step, with random numbers from the key.

        Raises:
            ValueError: If the module draws random numbers and there is no key.
        """
        own_key, count = jax.random.key(0) if key is None else key, jnp.uint32(0)
        streams = [
            jax.random.fold_in(own_key, i) if is_key else count
            for i, is_key in enumerate(self.are_keys)
        ]
        streams = jax.tree.unflatten(self.streams, streams)
        module = nnx.merge(self.graph, nnx.State(params), streams, copy=True)
        counts = _counts(module)
        state, output = module(state, inputs)
        if key is None and any(
            new is not old for new, old in zip(_counts(module), counts, strict=True)
        ):
            raise ValueError(
                "as_cell: the module draws random numbers and there is no key. Bind "
                "one, `cell.cell.bind(cell.params, key)`, or call `module.eval()` "
                "before `as_cell`."
            )
        return output, state


def _counts(module: nnx.Module) -> list[Array]:
    """The counter of each random stream: an array that each draw replaces."""
    return jax.tree.leaves(nnx.state(module, nnx.RngCount))
