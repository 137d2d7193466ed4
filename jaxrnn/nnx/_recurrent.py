"""Recurrent layers as modules."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx

from .._base.typing import ArrayLike, DType, PyTree
from .._cells.base import RNNCell
from .._layers.axis_names import AxisNames
from .._layers.cells import check_cells
from .._layers.inputs import LayerInputs, check_unknown
from .._layers.layer import Layer, OneWay, Way, concatenate, pair, stack
from ._parameters import HoldsLayer, Rngs


class Recurrent(HoldsLayer):
    """What the modules share."""

    def __init__(
        self,
        layer: Layer,
        in_features: int | PyTree,
        *,
        rngs: nnx.Rngs,
        time_major: bool = False,
        return_carry: bool = False,
        swap_memory: Any = False,
        parallel_iterations: int | None = None,
        implementation: Any = None,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        axis_names: AxisNames | None = None,
        deterministic: bool = False,
        rng_collection: str = "dropout",
    ) -> None:
        super().__init__(
            layer,
            in_features,
            rngs,
            param_dtype,
            deterministic,
            rng_collection,
            axis_names,
        )
        self.time_major, self.return_carry = time_major, return_carry
        self.swap_memory = swap_memory
        self.parallel_iterations = parallel_iterations
        self.implementation = implementation
        self.dtype = dtype

    def __call__(
        self,
        inputs: PyTree,
        sequence_length: ArrayLike | None = None,
        *,
        initial_state: PyTree = None,
        deterministic: bool | None = None,
        return_carry: bool | None = None,
        rngs: Rngs | None = None,
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
            deterministic: True switches all noise off; None for what `train()` and
                `eval()` have set.
            return_carry: In place of that given to the constructor.
            rngs: Where noise is drawn from, in place of the module's own stream: a
                stream, or a key. A closure of `jax.jit` needs a key: the count of the
                module's own stream cannot go on there, a `TraceContextError`.
            **unknown: Refused; Flax's names are told ours.

        Returns:
            The outputs, `[*batch, time, ...]`; with `return_carry` the pair of final
            state and outputs, in the order of Flax.

        Raises:
            TypeError: As `jaxrnn.dynamic_rnn`; if `rngs` is none.
            ValueError: As `jaxrnn.dynamic_rnn`.
        """
        where, params = type(self).__name__, nnx.as_pure(self.params)
        check_unknown(where, unknown)
        given = LayerInputs.make(
            where, self.layer, inputs, sequence_length, self.time_major
        )
        way = Way(
            given.compute_dtype(self.dtype, params),
            self._draw_key(deterministic, rngs),
            self.time_major,
            self.parallel_iterations,
            self.swap_memory,
            self.implementation,
        )
        outputs, state = given.run(self.layer, params, initial_state, way)
        if self.return_carry if return_carry is None else return_carry:
            return state, outputs
        return outputs


class RNN(Recurrent):
    """A cell of jaxrnn over sequences: `jaxrnn.dynamic_rnn` as a module.

    Args:
        cell: The cell; a `MultiRNNCell` for several layers.
        in_features: The size of the inputs; or one step of them, `[batch, ...]` or a
            nest, of arrays or `jax.ShapeDtypeStruct`s.
        reverse: Whether it reads each row from its last step to its first.
        keep_order: Whether the outputs of a reversed run stand beside their inputs.
        rngs: What the parameters are made from, and noise is drawn from.
        **kwargs: `time_major`, `swap_memory`, `parallel_iterations`, `implementation`
            as in `jaxrnn.dynamic_rnn`; `return_carry`, whether a call returns
            `(state, outputs)`; `dtype` to compute in, None for the widest of inputs and
            parameters; `param_dtype`, float32; `axis_names` for partitioning, for each
            last part of a parameter's name ("kernel", "bias") a tuple with a name or
            None for each axis; `deterministic`; `rng_collection`, "dropout".

    Example:
        >>> import jax.numpy as jnp, jaxrnn, jaxrnn.nnx
        >>> from flax import nnx
        >>> rnn = jaxrnn.nnx.RNN(jaxrnn.LSTMCell(8), 3, rngs=nnx.Rngs(0))
        >>> rnn(jnp.ones((2, 5, 3), jnp.float32), [5, 3]).shape
        (2, 5, 8)
    """

    def __init__(
        self,
        cell: RNNCell,
        in_features: int | PyTree,
        *,
        rngs: nnx.Rngs,
        reverse: bool = False,
        keep_order: bool = False,
        **kwargs: Any,
    ) -> None:
        check_cells(type(self).__name__, cell=cell)
        layer = OneWay(cell, reverse, keep_order)
        super().__init__(layer, in_features, rngs=rngs, **kwargs)


class Bidirectional(Recurrent):
    """A cell forwards and one backwards: `jaxrnn.bidirectional_dynamic_rnn`.

    The state is the pair of both states.

    Args:
        cell_fw: The cell forwards.
        cell_bw: The cell backwards, with parameters of its own.
        in_features: As of `RNN`.
        merge: `merge(outputs_fw, outputs_bw)`: by default side by side.
        rngs: As of `RNN`.
        **kwargs: As of `RNN`.
    """

    def __init__(
        self,
        cell_fw: RNNCell,
        cell_bw: RNNCell,
        in_features: int | PyTree,
        *,
        rngs: nnx.Rngs,
        merge: Callable[[PyTree, PyTree], PyTree] = concatenate,
        **kwargs: Any,
    ) -> None:
        layer = pair(type(self).__name__, cell_fw, cell_bw, merge)
        super().__init__(layer, in_features, rngs=rngs, **kwargs)


class StackBidirectional(Recurrent):
    """Layers of two directions: `jaxrnn.stack_bidirectional_dynamic_rnn`.

    The state is a tuple with a pair for each layer.

    Args:
        cells_fw: The cells forwards, one for each layer from the lowest.
        cells_bw: As many backwards.
        in_features: As of `RNN`.
        rngs: As of `RNN`.
        **kwargs: As of `RNN`.
    """

    def __init__(
        self,
        cells_fw: Sequence[RNNCell],
        cells_bw: Sequence[RNNCell],
        in_features: int | PyTree,
        *,
        rngs: nnx.Rngs,
        **kwargs: Any,
    ) -> None:
        layer = stack(type(self).__name__, cells_fw, cells_bw)
        super().__init__(layer, in_features, rngs=rngs, **kwargs)
