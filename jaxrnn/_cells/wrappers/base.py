"""Base classes of wrappers around one cell, with or without their own parameters."""

import abc
from collections.abc import Mapping
from typing import Any, ClassVar

import jax

from ..._base.arguments import as_dtype, check_instance
from ..._base.cell_keys import check_key, check_key_or_none, fold_in
from ..._base.errors import Verbatim, expect
from ..._base.trees import size_shapes
from ..._base.typing import Array, DType, Key, Params, PyTree, Shaped, Size, State
from .. import fields
from ..base import RNNCell, check_rnn_cell, scope_name
from ..params import Specs, make_params
from ..step_checks import check_params


def vector_size(size: Size, name: str = "cell", must: str = "output one vector") -> int:
    """Returns the size of the vector that `size` describes.

    Args:
        size: The size of a state or of an output.
        name: The name of the cell, for messages.
        must: The requirement that the cell must meet, for messages.

    Raises:
        ValueError: If the size describes a nest or an array with several axes.
    """
    shapes = size_shapes(size)
    is_vector = jax.tree_util.all_leaves([size]) and len(shapes[0]) == 1
    expect(is_vector, name, must, Verbatim(f"the size {size}"))
    return shapes[0][0]


@fields.dataclass
class WrapperCell(RNNCell[State]):
    """A wrapper with the sizes, parameters and zero state of the wrapped cell.

    Attributes:
        cell: The wrapped cell.

    Raises:
        TypeError: If `cell` is not an RNNCell, or a field has the wrong type.
    """

    cell: RNNCell[State] = fields.checked(check_rnn_cell)

    inner = wrapped_cell = property(lambda self: self.cell, doc="The wrapped cell.")
    feature_axes: ClassVar[Any] = property(
        lambda self: getattr(self.cell, "feature_axes", None),
        doc="The number of axes in one row of the inputs; None if it is unknown.",
    )
    state_size = property(lambda self: self.cell.state_size)
    output_size = property(lambda self: self.cell.output_size)

    @property
    def is_random(self) -> bool | None:
        """Whether the wrapped cell draws random numbers; see `RNNCell.is_random`."""
        return self.cell.is_random

    @property
    def rows_interact(self) -> bool:
        """Whether the rows of the wrapped cell interact; see `RNNCell`."""
        return self.cell.rows_interact

    def zero_state(self, batch_size: int, dtype: DType) -> State:
        """The zero state of the wrapped cell; see `RNNCell.zero_state`."""
        return self.cell.zero_state(batch_size, dtype)

    def own_specs(self, depth: int) -> Specs:
        """Specs of the wrapper's own parameters; by default, `{}`.

        `depth` is the size of the last axis of the inputs.
        """
        return {}

    def split_params(self, params: Params) -> tuple[Params, Params]:
        """Returns `({}, params)`, because all parameters belong to the wrapped cell."""
        return {}, params

    def checked_params(
        self, params: Params, array: Array, key: Key | None
    ) -> tuple[Params, Params]:
        """Checks the key and the wrapper's own parameters, then calls `split_params`.

        Raises:
            ValueError: If a name or a shape of the wrapper's parameters does not match
                `own_specs(depth)`, for `array` `[batch, depth]`.
            TypeError: If a dtype is wrong, or `key` is not a random key.
        """
        check_key_or_none(key)
        own, inner = self.split_params(params)
        check_params(own, self.own_specs, array)
        return own, inner

    def checked_step(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None
    ) -> tuple[PyTree, PyTree]:
        """Checks the key; the wrapped cell checks `params`, `inputs` and `state`."""
        check_key_or_none(key)
        return inputs, state

    def start(self, params: Params, state: PyTree) -> PyTree:
        """Prepares the state of the wrapped cell; see `RNNCell.start`."""
        return self.cell.start(self.split_params(params)[1], state)

    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """Creates the parameters of the wrapped cell; see `RNNCell.init`."""
        return self.cell.init(key, inputs, dtype)


class MappedOutput(WrapperCell[State]):
    """A wrapper that maps the output of its cell, separately for each step."""

    starts_from_zeros = property(lambda self: self.cell.starts_from_zeros)

    @abc.abstractmethod
    def map_output(self, inputs: PyTree, output: PyTree) -> PyTree:
        """Computes the wrapper's output from one step's inputs and cell output."""

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, State]:
        """Runs one step; see `RNNCell.apply`."""
        output, state = self.cell.apply(params, inputs, state, key)
        return self.map_output(inputs, output), state


def unwrapped(cell: RNNCell) -> RNNCell:
    """Returns the cell inside wrappers that add neither parameters nor a scope."""
    while isinstance(cell, WrapperCell) and not isinstance(cell, ParamsWrapper):
        cell = cell.cell
    return cell


@fields.dataclass
class ParamsWrapper(WrapperCell[State]):
    """A wrapper that adds parameters to the parameters of its cell.

    A subclass defines `own_specs`, calls `init_params` in `init`, and `checked_params`
    in `apply`. The parameters of the wrapped cell are stored under the cell's scope,
    e.g. `gru_cell`. If `apply` draws random numbers, define `is_random` as True.
    Without a key, draw nothing, and pass None to the wrapped cell.

    Example:
        A dense layer with dropout before a cell, as in Tacotron.

        >>> import jax, jax.numpy as jnp, jaxrnn
        >>> from jaxrnn.extend import ParamsWrapper, affine, affine_specs, fields
        >>> @fields.dataclass
        ... class Prenet(ParamsWrapper):
        ...     units: int = fields.count(default=8)
        ...     is_random = property(lambda self: True)
        ...
        ...     def own_specs(self, depth):
        ...         return {"prenet": affine_specs(depth, self.units)}
        ...
        ...     def init(self, key, inputs, dtype=None):
        ...         batch, depth = inputs.shape
        ...         hidden = jax.ShapeDtypeStruct((batch, self.units), inputs.dtype)
        ...         return self.init_params(key, depth, hidden, dtype)
        ...
        ...     def apply(self, params, inputs, state, key=None):
        ...         own, inner = self.checked_params(params, inputs, key)
        ...         hidden = jax.nn.relu(affine(own["prenet"], [inputs], inputs.dtype))
        ...         if key is not None:  # In training.
        ...             key, own_key = jax.random.split(key)
        ...             keep = jax.random.bernoulli(own_key, 0.5, hidden.shape)
        ...             hidden = jnp.where(keep, hidden / 0.5, 0)
        ...         return self.cell.apply(inner, hidden, state, key)
        >>> cell, x = Prenet(jaxrnn.LSTMCell(4)), jnp.ones((2, 5, 3))
        >>> params = cell.init(jax.random.key(0), x[:, 0])
        >>> bound = cell.bind(params, jax.random.key(1))
        >>> outputs, _ = jaxrnn.dynamic_rnn(bound, x, dtype=x.dtype)
        >>> list(params), outputs.shape
        (['prenet', 'lstm_cell'], (2, 5, 4))
    """

    # The wrapper and the wrapped cell may read different inputs.
    feature_axes: ClassVar[Any] = None

    @property
    def cell_scope(self) -> str:
        """The key of the wrapped cell's parameters, which is the TensorFlow scope."""
        return scope_name(unwrapped(self.cell))

    def init_params(self, key: Key, depth: int, inputs: PyTree, dtype: DType) -> Params:
        """Creates the parameters of the wrapper and of the wrapped cell.

        Args:
            key: A random key.
            depth: The argument of `own_specs`.
            inputs: One step of inputs of the wrapped cell, as arrays or shapes.
            dtype: The dtype of the parameters. Default: the dtype that the wrapped cell
                chooses.

        Raises:
            TypeError: If `key` is not a random key, or `dtype` is not a dtype.
            ValueError: If `key` is an array of keys.
        """
        check_key(key)
        inner = self.cell.init(fold_in(key, 1), inputs, dtype)
        first = jax.tree.leaves((inner, inputs))[0]
        of_cell = jax.dtypes.canonicalize_dtype(first.dtype)
        dtype = of_cell if dtype is None else as_dtype(dtype)
        own = make_params(self.own_specs(depth), fold_in(key, 0), dtype)
        return own | {self.cell_scope: inner}

    def split_params(self, params: Params) -> tuple[Params, Params]:
        """Splits parameters into the wrapper's and the wrapped cell's parameters.

        Raises:
            TypeError: If `params` is not a dict.
            ValueError: If `params` lacks the parameters of the wrapped cell.
        """
        scope = self.cell_scope
        fix = "Pass the dict that `init` returned."
        check_instance("params", params, Mapping, "a dict of arrays", fix)
        must = f"have the key {scope!r}, for the parameters of the wrapped cell"
        expect(scope in params, "params", must, list(params), fix)
        return {k: v for k, v in params.items() if k != scope}, params[scope]
