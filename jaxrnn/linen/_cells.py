"""Cells of jaxrnn as cells of linen, and cells of linen as cells of jaxrnn."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from .._base.errors import describe
from .._base.typing import Array, DType, Key, Params, PyTree, Size
from .._cells.base import RNNCell
from .._layers.batch_axes import BatchAxes
from .._layers.cells import check_are_cells, sizes_of_cell
from .._layers.directions import OneDirection
from .._layers.layer import in_dtype


class Cell(nn.RNNCellBase):
    """A cell of jaxrnn as a cell of linen, for `nn.RNN` and `nn.Bidirectional`.

    A cell that draws random numbers is refused, as Flax's RNN has no key for each step.
    `jaxrnn.linen.RNN` has one; it is also faster, and ignores padding.

    Attributes:
        cell: The cell, of inputs `[batch, features]`.
        dtype: The dtype of the computation and of the initial carry; None for
            `param_dtype`.
        param_dtype: The dtype of the parameters.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp, jaxrnn, jaxrnn.linen
        >>> rnn = nn.RNN(jaxrnn.linen.Cell(jaxrnn.LSTMCell(8)))
        >>> x = jnp.ones((2, 5, 3), jnp.float32)
        >>> rnn.init_with_output(jax.random.key(0), x)[0].shape
        (2, 5, 8)
    """

    cell: RNNCell
    dtype: DType | None = None
    param_dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, carry: PyTree, inputs: Array) -> tuple[PyTree, PyTree]:
        """One step: `(carry, output)`, each leaf `[*batch, ...]`."""
        axes = BatchAxes(inputs.shape[:-1])
        inputs, state = axes.merge((inputs, carry))
        where = type(self).__name__
        check_are_cells(where, cell=self.cell)
        layer = OneDirection(self.cell)
        init = lambda key: self.cell.init(key, inputs, self.param_dtype)
        params, inputs = in_dtype(
            self.dtype or self.param_dtype, (self.param(layer.name, init), inputs)
        )
        layer.check_not_random(where, {layer.name: params}, inputs, inputs.dtype)
        output, state = self.cell.apply(params, inputs, state)
        return axes.split((state, output))

    @nn.nowrap
    def initialize_carry(self, rng: Key, input_shape: tuple[int, ...]) -> PyTree:
        """The zero state for inputs `[*batch, features]`, each leaf `[*batch, ...]`."""
        del rng
        check_are_cells(type(self).__name__, cell=self.cell)
        axes = BatchAxes(input_shape[:-1])
        return axes.split(
            self.cell.zero_state(axes.rows, self.dtype or self.param_dtype)
        )

    @property
    def num_feature_axes(self) -> int:
        """1: one step of one row is a vector."""
        return 1


def as_cell(module: nn.RNNCellBase, in_features: int | tuple[int, ...] = 1) -> RNNCell:
    """Wraps a cell of linen as a cell of jaxrnn, for any driver.

    Its state is linen's carry; its parameters are those of the module. Drivers start
    from zeros: for a module with another initial carry, pass them
    `initial_state=module.initialize_carry(...)`.

    Args:
        module: The cell, unbound.
        in_features: The size of its inputs or their shape, without the batch axis.
            Required only for cells whose state has the shape of their inputs, such as
            `nn.ConvLSTMCell`.

    Raises:
        TypeError: If it is not a cell of linen, or `in_features` is neither an int nor
            a tuple of ints.
        ValueError: If `in_features` is below 1.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp, jaxrnn, jaxrnn.linen
        >>> cell = jaxrnn.linen.as_cell(nn.OptimizedLSTMCell(8))
        >>> x = jnp.ones((2, 5, 3), jnp.float32)
        >>> params = cell.init(jax.random.key(0), x[:, 0])
        >>> outputs, _ = jaxrnn.dynamic_rnn(cell.bind(params), x, dtype=jnp.float32)
        >>> outputs.shape
        (2, 5, 8)
    """
    if not isinstance(module, nn.RNNCellBase):
        raise TypeError(
            "as_cell: `module` must be a cell of linen, such as nn.LSTMCell(8), got "
            f"{describe(module)}."
        )
    # A cell constructed within a module of linen would become its submodule.
    module = module.clone(parent=None)

    def step(shape: tuple[int, ...]) -> tuple[PyTree, PyTree]:
        key, inputs = jax.random.key(0), jnp.zeros(shape, jnp.float32)
        return module.init_with_output(
            key, module.initialize_carry(key, shape), inputs
        )[0]

    return LinenCell(module, *sizes_of_cell(step, in_features))


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class LinenCell(RNNCell):
    module: Any
    state_size: Size
    output_size: Size

    def init(self, key: Key, inputs: PyTree, dtype: DType = None) -> Params:
        """The module's collection "params".

        Raises:
            ValueError: If the module has other collections.
        """
        inputs = jnp.zeros(inputs.shape, inputs.dtype)
        carry = self.module.initialize_carry(key, inputs.shape)
        keys = {"params": key, "dropout": key}
        with jax.numpy_dtype_promotion("standard"):  # The carry has its own dtype.
            variables = self.module.init(keys, carry, inputs)
        others = sorted(variables.keys() - {"params"})
        if others:
            raise ValueError(
                f"as_cell: `module` must have parameters alone, got {others}. What "
                "changes from step to step belongs in the state."
            )
        params = nn.meta.unbox(variables["params"])
        return params if dtype is None else in_dtype(dtype, params)

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step, with the key as the stream "dropout"."""
        rngs = None if key is None else {"dropout": key}
        state, output = self.module.apply({"params": params}, state, inputs, rngs=rngs)
        return output, state
