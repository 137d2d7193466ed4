"""Recurrent layers as modules."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from .._base.typing import ArrayLike, DType, Key, Params, PyTree
from .._cells.base import RNNCell
from .._layers.axis_names import check_axis_names, name_axes
from .._layers.cells import check_cells
from .._layers.inputs import LayerInputs, check_unknown
from .._layers.layer import Layer, OneWay, Way, concatenate, pair, stack
from ._holds_cells import HoldsCells


class Recurrent(HoldsCells, nn.Module, kw_only=True):
    """What the modules share; `RNN` says what the attributes are."""

    time_major: bool = False
    return_carry: bool = False
    swap_memory: Any = False
    parallel_iterations: int | None = None
    implementation: Any = None
    dtype: DType | None = None
    param_dtype: DType = jnp.float32
    axis_names: Mapping[str, tuple[str | None, ...]] | None = None
    rng_collection: str = "dropout"
    deterministic: bool | None = None

    @nn.compact
    def __call__(
        self,
        inputs: PyTree,
        sequence_length: ArrayLike | None = None,
        *,
        initial_state: PyTree = None,
        deterministic: bool | None = None,
        return_carry: bool | None = None,
        **unknown: Any,
    ) -> Any:
        """Runs over sequences.

        Args:
            inputs: `[*batch, time, ...]`, `[time, *batch, ...]` if `time_major`, or a
                nest of such arrays; with any number of batch axes, also none.
            sequence_length: `[*batch]`, integers; None: all steps count. What the
                inputs hold past the length changes nothing; outputs there are zero.
                What Flax calls `seq_lengths`.
            initial_state: The state before the first step, each leaf `[*batch, ...]`;
                None for zeros. What Flax calls `initial_carry`.
            deterministic: True switches all noise off; None for the attribute.
            return_carry: In place of the attribute.
            **unknown: Refused; Flax's names are told ours.

        Returns:
            The outputs, `[*batch, time, ...]`; with `return_carry` the pair of final
            state and outputs, in the order of Flax.

        Raises:
            TypeError: As `jaxrnn.dynamic_rnn`.
            ValueError: As `jaxrnn.dynamic_rnn`.
            flax.errors.InvalidRngError: If a cell draws noise and there is no such
                stream, as of `nn.Dropout`.
        """
        layer, where = self._layer(), type(self).__name__
        check_unknown(where, unknown)
        given = LayerInputs.make(where, layer, inputs, sequence_length, self.time_major)
        params = self._params(layer, given.step(self.param_dtype))
        dtype = given.compute_dtype(self.dtype, params)
        key = None
        if deterministic is None:
            deterministic = self.deterministic
        if not deterministic and layer.is_random(params, given.step(dtype), dtype):
            key = self.make_rng(self.rng_collection)
        way = Way(
            dtype,
            key,
            self.time_major,
            self.parallel_iterations,
            self.swap_memory,
            # Parameters can be made where no kernel can run.
            None if self.is_initializing() else self.implementation,
        )
        outputs, state = given.run(layer, params, initial_state, way)
        if self.return_carry if return_carry is None else return_carry:
            return state, outputs
        return outputs

    def _params(self, layer: Layer, step: PyTree) -> Params:
        def init(key: Key, name: str) -> PyTree:
            params = layer.init_part(name, key, step, self.param_dtype)
            return name_axes(self.axis_names, params, nn.LogicallyPartitioned)

        def of_part(name: str) -> PyTree:
            # Not by `param` each time, which would trace `init` to compare shapes: the
            # cell compares them too, and says more.
            if self.has_variable("params", name):
                return nn.meta.unbox(self.get_variable("params", name))
            return self.param(name, init, name)

        params = {name: of_part(name) for name in layer.names()}
        check_axis_names(type(self).__name__, self.axis_names, params)
        return params


class RNN(Recurrent):
    """A cell of jaxrnn over sequences: `jaxrnn.dynamic_rnn` as a module.

    Attributes:
        cell: The cell; a `MultiRNNCell` for several layers.
        reverse: Whether it reads each row from its last step to its first.
        keep_order: Whether the outputs of a reversed run stand beside their inputs.
        time_major: Whether time is the first axis of inputs and outputs.
        return_carry: Whether a call returns `(state, outputs)`.
        swap_memory: As in `jaxrnn.dynamic_rnn`.
        parallel_iterations: As in `jaxrnn.dynamic_rnn`.
        implementation: As in `jaxrnn.dynamic_rnn`.
        dtype: The dtype to compute in; None for the widest of inputs and parameters.
        param_dtype: The dtype of the parameters.
        axis_names: Names of the parameters' axes, for partitioning: for each last part
            of a name ("kernel", "bias") a tuple with a name or None for each axis.
        rng_collection: The name of the stream that noise is drawn from.
        deterministic: Whether noise is off where a call does not say. An attribute is
            static under `nn.jit` and `nn.remat`, an argument of a call is not.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn, jaxrnn.linen
        >>> rnn = jaxrnn.linen.RNN(jaxrnn.LSTMCell(8))
        >>> x = jnp.ones((2, 5, 3), jnp.float32)
        >>> variables = rnn.init(jax.random.key(0), x)
        >>> rnn.apply(variables, x, [5, 3]).shape
        (2, 5, 8)
    """

    cell: RNNCell
    reverse: bool = False
    keep_order: bool = False

    @nn.nowrap
    def _layer(self) -> Layer:
        check_cells(type(self).__name__, cell=self.cell)
        return OneWay(self.cell, self.reverse, self.keep_order)


class Bidirectional(Recurrent):
    """A cell forwards and one backwards: `jaxrnn.bidirectional_dynamic_rnn`.

    The state is the pair of both states. The other attributes are those of `RNN`.

    Attributes:
        cell_fw: The cell forwards.
        cell_bw: The cell backwards, with parameters of its own.
        merge: `merge(outputs_fw, outputs_bw)`: by default side by side.
    """

    cell_fw: RNNCell
    cell_bw: RNNCell
    merge: Callable[[PyTree, PyTree], PyTree] = concatenate

    @nn.nowrap
    def _layer(self) -> Layer:
        return pair(type(self).__name__, self.cell_fw, self.cell_bw, self.merge)


class StackBidirectional(Recurrent):
    """Layers of two directions: `jaxrnn.stack_bidirectional_dynamic_rnn`.

    The state is a tuple with a pair for each layer, the lowest first. The other
    attributes are those of `RNN`.

    Attributes:
        cells_fw: The cells forwards, one for each layer from the lowest.
        cells_bw: As many backwards.
    """

    cells_fw: Sequence[RNNCell]
    cells_bw: Sequence[RNNCell]

    @nn.nowrap
    def _layer(self) -> Layer:
        return stack(type(self).__name__, self.cells_fw, self.cells_bw)
