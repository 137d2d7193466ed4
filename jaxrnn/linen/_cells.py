"""Adapters that wrap jaxrnn cells as linen cells, and linen cells as jaxrnn cells."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from .._base.cell_keys import run_key
from .._base.typing import Array, DType, Key, Params, PyTree, Size
from .._cells.base import RNNCell
from .._layers import flax_cells
from .._layers.modules import in_dtype, named_cells
from ._modules import dataclass


@dataclass
class Cell(nn.RNNCellBase):
    """A jaxrnn cell as a linen cell, for `nn.RNN` and `nn.Bidirectional`.

    Cells that draw random numbers are rejected, because Flax's RNN has no key for each
    step. Use such cells in `jaxrnn.linen.RNN`, which is usually faster and ignores
    padding.

    Attributes:
        cell: The cell; it must accept inputs `[batch, features]`.
        dtype: The dtype of the initial carry, and of real inputs and parameters, which
            are cast to `dtype`. Complex arrays stay complex in the precision of
            `dtype`. None for `param_dtype`.
        param_dtype: The dtype of the parameters, real or complex floating-point.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp, jaxrnn, jaxrnn.linen
        >>> rnn = nn.RNN(jaxrnn.linen.Cell(jaxrnn.LSTMCell(8)))
        >>> x = jnp.ones((2, 5, 3), jnp.float32)
        >>> rnn.init_with_output(jax.random.key(0), x)[0].shape
        (2, 5, 8)
    """

    cell: RNNCell
    dtype: DType | None = dataclasses.field(default=None, kw_only=True)
    param_dtype: DType = dataclasses.field(default=jnp.float32, kw_only=True)

    @property
    def num_feature_axes(self) -> int:
        """Always 1, because the inputs of one row at one step are a vector."""
        return 1

    @nn.compact
    def __call__(self, carry: PyTree, inputs: Array) -> tuple[PyTree, PyTree]:
        """Runs one step; returns `(carry, output)`, each leaf `[*batch, ...]`.

        Args:
            carry: The cell's state, each leaf `[*batch, ...]`.
            inputs: `[*batch, features]`.
        """
        cell = flax_cells.check_no_noise(self.cell)
        (scope,) = named_cells(cell)
        step = flax_cells.as_step(self, inputs)
        params = self.param(scope, cell.init, step, self.param_dtype)
        return flax_cells.run_step(self, params, carry, inputs)

    @nn.nowrap
    def initialize_carry(self, rng: Key, input_shape: tuple[int, ...]) -> PyTree:
        """The zero state for inputs `[*batch, features]`, each leaf `[*batch, ...]`."""
        del rng
        flax_cells.check_no_noise(self.cell)
        return flax_cells.zero_carry(self, input_shape)


def as_cell(
    module: nn.Module,
    in_features: int | tuple[int, ...] = 1,
    broadcast_rngs: str | Sequence[str] = (),
) -> RNNCell:
    """Wraps a linen cell as a jaxrnn cell.

    The state is linen's carry, and the parameters are the module's parameters.
    `dynamic_rnn` starts from zeros by default. If the module has a different initial
    carry, pass `initial_state=module.initialize_carry(...)`. All random streams are
    derived from the bound key; `jaxrnn.linen.RNN` draws this key from the stream
    `rng_collection`.

    Args:
        module: The unbound cell: a callable module with `initialize_carry`.
        in_features: The size of the inputs, or their shape without the batch axis.
            Required only for cells whose state has the shape of their inputs, such as
            `nn.ConvLSTMCell`.
        broadcast_rngs: The names of random streams that are the same at all steps of a
            run, for example for recurrent dropout. In `nn.RNN`, these are the streams
            that `split_rngs` maps to False.

    Raises:
        TypeError: If `module` is not a linen cell; if `in_features` is neither an int
            nor a tuple of ints; if a stream's name is not a string.
        ValueError: If a size in `in_features` is below 1.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp, jaxrnn, jaxrnn.linen
        >>> cell = jaxrnn.linen.as_cell(nn.OptimizedLSTMCell(8))
        >>> x = jnp.ones((2, 5, 3), jnp.float32)
        >>> params = cell.init(jax.random.key(0), x[:, 0])
        >>> outputs, _ = jaxrnn.dynamic_rnn(cell.bind(params), x, dtype=jnp.float32)
        >>> outputs.shape
        (2, 5, 8)
    """
    example = "a cell of linen, such as nn.LSTMCell(8)"
    flax_cells.check_is_flax_cell(module, nn.RNNCellBase, example)
    is_one = isinstance(broadcast_rngs, str)
    streams = (broadcast_rngs,) if is_one else tuple(broadcast_rngs)
    # Without a copy, a cell constructed inside a linen module would become a submodule
    # of that module.
    module = module.clone(parent=None)

    def step(shape: tuple[int, ...]) -> tuple[PyTree, PyTree]:
        key = jax.random.key(0)
        inputs = jnp.zeros(shape, jnp.float32)
        carry = module.initialize_carry(key, shape)
        return module.init_with_output(key, carry, inputs)[0]

    try:
        axes = module.num_feature_axes
    # A cell need not define `num_feature_axes`. The property of the base class raises
    # NotImplementedError.
    except (AttributeError, NotImplementedError):
        axes = None
    state_size, output_size = flax_cells.sizes_of_cell(step, in_features)
    return LinenCell(module, state_size, output_size, axes, streams)


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class LinenCell(RNNCell):
    module: Any
    state_size: Size
    output_size: Size
    feature_axes: int | None
    broadcast_rngs: tuple[str, ...]

    def init(self, key: Key, inputs: PyTree, dtype: DType = None) -> Params:
        """The parameters of the module: its collection "params".

        Raises:
            ValueError: If the module has other collections.
        """
        inputs = jnp.zeros(inputs.shape, inputs.dtype)
        carry = self.module.initialize_carry(key, inputs.shape)
        keys = {"params": key, "dropout": key}
        # The carry may have another dtype than the inputs. Strict promotion would then
        # raise an error.
        with jax.numpy_dtype_promotion("standard"):
            variables = self.module.init(keys, carry, inputs)
        flax_cells.check_no_variables(variables.keys() - {"params"})
        params = nn.meta.unbox(variables.get("params", {}))
        return params if dtype is None else in_dtype(dtype, params)

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """Runs one step, with all random streams derived from the key."""
        rngs = None if key is None else self._streams(key)
        state, output = self.module.apply({"params": params}, state, inputs, rngs=rngs)
        return output, state

    def _streams(self, key: Key) -> dict[str, Key]:
        # Linen falls back to the stream "params" if a stream is missing.
        streams = {"dropout": key, "params": jax.random.fold_in(key, 0)}
        for i, name in enumerate(self.broadcast_rngs):
            streams[name] = jax.random.fold_in(run_key(key), i)
        return streams
