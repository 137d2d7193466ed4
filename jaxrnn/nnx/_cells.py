"""Adapters that wrap jaxrnn cells as nnx cells, and nnx cells as jaxrnn cells."""

import dataclasses
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from .._base.cell_keys import run_key
from .._base.errors import is_key
from .._base.math import is_float
from .._base.typing import Array, DType, Initializer, Key, Params, PyTree, Size
from .._cells.base import RNNCell
from .._cells.bound import BoundCell
from .._cells.function import BoundOnlyCell
from .._layers import flax_cells
from ._modules import FieldsModule, Rngs, as_pure, draw_key, make_params


@dataclasses.dataclass(eq=False, repr=False)
class Cell(FieldsModule, nnx.RNNCellBase):
    """A jaxrnn cell as an nnx cell, for `nnx.RNN` and `nnx.Bidirectional`.

    Cells that draw random numbers are rejected, because Flax's RNN has no key for each
    step. Use such cells in `jaxrnn.nnx.RNN`, which is usually faster and ignores
    padding.

    Args:
        cell: The cell; it must accept inputs `[batch, features]`.
        in_features: The size of the inputs.
        dtype: The dtype of the initial carry, and of real inputs and parameters, which
            are cast to `dtype`. Complex arrays stay complex in the precision of
            `dtype`. None for `param_dtype`.
        param_dtype: The dtype of the parameters, real or complex floating-point.
        rngs: The streams for the parameters.

    Raises:
        TypeError: If `cell` is not an `RNNCell`; if `in_features` is not an int; if
            `rngs` is not `nnx.Rngs`.
        ValueError: If the cell draws random numbers, or if `in_features` is below 1.

    Example:
        >>> import jax.numpy as jnp, jaxrnn, jaxrnn.nnx
        >>> from flax import nnx
        >>> cell = jaxrnn.nnx.Cell(jaxrnn.LSTMCell(8), 3, rngs=nnx.Rngs(0))
        >>> nnx.RNN(cell)(jnp.ones((2, 5, 3), jnp.float32)).shape
        (2, 5, 8)
    """

    cell: RNNCell
    in_features: dataclasses.InitVar[int]
    _: dataclasses.KW_ONLY
    dtype: DType | None = None
    param_dtype: DType = jnp.float32
    rngs: dataclasses.InitVar[nnx.Rngs]

    def __post_init__(self, in_features: int, rngs: nnx.Rngs) -> None:
        cell = flax_cells.check_no_noise(self.cell)
        self.params = make_params(cell, in_features, rngs, self.param_dtype)

    @property
    def num_feature_axes(self) -> int:
        """Always 1, because the inputs of one row at one step are a vector."""
        return 1

    def __call__(self, carry: PyTree, inputs: Array) -> tuple[PyTree, PyTree]:
        """Runs one step; returns `(carry, output)`, each leaf `[*batch, ...]`.

        Args:
            carry: The cell's state, each leaf `[*batch, ...]`.
            inputs: `[*batch, features]`.
        """
        (params,) = as_pure(self.params).values()
        return flax_cells.run_step(self, params, carry, inputs)

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: Rngs | None = None,
        carry_init: Initializer | None = None,
    ) -> PyTree:
        """The initial state for inputs `[*batch, features]`, each leaf `[*batch, ...]`.

        Args:
            input_shape: The shape of the inputs.
            rngs: The source of keys for `carry_init`: `nnx.Rngs`, a stream or a key.
            carry_init: `carry_init(key, shape, dtype)`, for example an initializer from
                `jax.nn.initializers`, called for each floating-point leaf. None for
                zeros.

        Raises:
            TypeError: If `carry_init` is given but `rngs` is not `nnx.Rngs`, a stream
                or a key.
        """
        state = flax_cells.zero_carry(self, input_shape)
        if carry_init is None:
            return state
        leaves, tree = jax.tree.flatten(state)
        key = draw_key(rngs, "carry")
        keys = jax.random.split(key, len(leaves))
        return tree.unflatten(
            carry_init(key, x.shape, x.dtype) if is_float(x) else x
            for x, key in zip(leaves, keys, strict=True)
        )


def as_cell(
    module: Any,
    in_features: int | tuple[int, ...],
    broadcast_rngs: str | Sequence[str] = (),
) -> BoundCell:
    """Wraps an nnx cell, with its parameters, as a jaxrnn cell.

    The state is nnx's carry. `dynamic_rnn` starts from zeros by default. If the module
    has a different initial carry, pass `initial_state=module.initialize_carry(...)`.

    Args:
        module: The cell: a callable module with `initialize_carry`.
        in_features: The size of the inputs, or their shape without the batch axis.
        broadcast_rngs: The names of random streams that are the same at all steps of a
            run, for example for recurrent dropout; as in `nnx.RNN`.

    Returns:
        A bound cell, whose `params` are nested dicts of arrays. After training,
        `nnx.update(module, params)` writes new parameters back to the module. For
        dropout, bind a key with `cell.cell.bind(cell.params, key)`.

    Raises:
        TypeError: If `module` is not an nnx cell; if `in_features` is neither an int
            nor a tuple of ints; if a stream's name is not a string.
        ValueError: If `module` has variables other than parameters and streams, or if a
            size in `in_features` is below 1.

    Example:
        >>> import jax.numpy as jnp, jaxrnn, jaxrnn.nnx
        >>> from flax import nnx
        >>> cell = jaxrnn.nnx.as_cell(nnx.GRUCell(3, 8, rngs=nnx.Rngs(0)), 3)
        >>> x = jnp.ones((2, 5, 3), jnp.float32)
        >>> jaxrnn.dynamic_rnn(cell, x, dtype=jnp.float32)[0].shape
        (2, 5, 8)
    """
    example = "a cell of nnx, such as nnx.LSTMCell(3, 8, rngs=rngs)"
    flax_cells.check_is_flax_cell(module, nnx.RNNCellBase, example)
    is_one = isinstance(broadcast_rngs, str)
    names = (broadcast_rngs,) if is_one else tuple(broadcast_rngs)
    graph, params, streams, others = nnx.split(module, nnx.Param, nnx.RngState, ...)
    if jax.tree.leaves(others):
        flax_cells.check_no_variables(nnx.to_pure_dict(others))

    def step(shape: tuple[int, ...]) -> tuple[PyTree, PyTree]:
        copy = nnx.merge(graph, params, streams, copy=True)
        carry = copy.initialize_carry(shape, nnx.Rngs(0))
        return copy(carry, jnp.zeros(shape, jnp.float32))

    leaves, tree = jax.tree.flatten(streams)
    variables = jax.tree.leaves(streams, is_leaf=lambda x: hasattr(x, "tag"))
    sources = tuple(
        ("run" if variable.tag in names else "step") if is_key(leaf) else "counter"
        for variable, leaf in zip(variables, leaves, strict=True)
    )
    state_size, output_size = flax_cells.sizes_of_cell(step, in_features)
    cell = NnxCell(graph, tree, sources, state_size, output_size)
    return cell.bind(nnx.to_pure_dict(params))


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class NnxCell(BoundOnlyCell):
    graph: Any
    streams: Any  # The structure of the module's random streams.
    # The kind of each leaf of the streams: a "counter", a key that changes at each
    # "step", or a key of the whole "run".
    sources: tuple[str, ...]
    state_size: Size
    output_size: Size

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """Runs one step, with random numbers from the key.

        Raises:
            ValueError: If the module draws random numbers and `key` is None.
        """
        own_key = jax.random.key(0) if key is None else key
        keys = {"step": own_key, "run": run_key(own_key)}
        leaves = [
            jax.random.fold_in(keys[source], i) if source in keys else jnp.uint32(0)
            for i, source in enumerate(self.sources)
        ]
        streams = jax.tree.unflatten(self.streams, leaves)
        module = nnx.merge(self.graph, nnx.State(params), streams, copy=True)
        counts = _counts(module)
        state, output = module(state, inputs)
        if key is None and any(map(operator.is_not, _counts(module), counts)):
            raise ValueError(
                "a key must be bound if the module draws random numbers, got none. "
                "Pass `cell.cell.bind(cell.params, key)`, or call `module.eval()` "
                "before `as_cell`."
            )
        return output, state


def _counts(module: nnx.Module) -> list[Array]:
    """The arrays of the random streams' counters; each draw replaces one of them."""
    return jax.tree.leaves(nnx.state(module, nnx.RngCount))
