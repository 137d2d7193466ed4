"""`dynamic_rnn`, its bidirectional variants and `raw_rnn` as nnx modules."""

from collections.abc import Callable, Sequence
from typing import Any

from flax import nnx

from .._base.typing import ArrayLike, DType, Lengths, PyTree
from .._cells.base import RNNCell
from .._drivers.raw_rnn import raw_rnn
from .._layers import layer as layers
from .._layers.checks import check_options
from .._layers.inputs import run_layer
from .._tensor_array.tensor_array import TensorArray
from ._parameters import HoldsLayer, Rngs, as_pure


class Recurrent(HoldsLayer):
    """The base class of `RNN` and its bidirectional variants; see `RNN`."""

    defaults = HoldsLayer.defaults | {
        "time_major": False,
        "return_carry": False,
        "return_states": False,
        "swap_memory": False,
        "parallel_iterations": None,
        "implementation": None,
        "dtype": None,
    }
    time_major: bool
    return_carry: bool
    return_states: bool
    swap_memory: Any
    parallel_iterations: int | None
    implementation: Any
    dtype: DType | None

    def __call__(
        self,
        inputs: PyTree,
        sequence_length: Lengths | None = None,
        *,
        initial_state: PyTree = None,
        resets: ArrayLike | None = None,
        reset_state: PyTree = None,
        mask: ArrayLike | None = None,
        deterministic: bool | None = None,
        return_carry: bool | None = None,
        return_states: bool | None = None,
        rngs: Rngs | None = None,
    ) -> PyTree:
        """Runs the module over sequences.

        Args:
            inputs: `[*batch, time, ...]`, or `[time, *batch, ...]` if `time_major`; or
                a nest of such arrays, with any number of batch axes, including none.
            sequence_length: `[*batch]`, integers, clamped to `[0, time]`; None for all
                steps. Inputs past the length of a row have no effect, and outputs there
                are zero. Flax's name is `seq_lengths`.
            initial_state: The state before the first step, each leaf `[*batch, ...]`;
                None for the zero state. With two directions, either state of the pair
                may be None. The state is cast to `dtype`. Flax's name is
                `initial_carry`.
            resets: Bool `[*batch, time]`, or `[time, *batch]` if `time_major`: True
                where the state of a row is reset before the step, for example at the
                start of an episode. See `jaxrnn.dynamic_rnn` and
                `jaxrnn.bidirectional_dynamic_rnn`.
            reset_state: The state after a reset, in the form of `initial_state`; None
                for the zero state. Only `RNN` supports this argument; bidirectional
                modules always reset to zeros.
            mask: Bool `[*batch, time]`, or `[time, *batch]` if `time_major`; an
                alternative to `sequence_length`. True at valid steps, False at masked
                steps; gaps are allowed. See `jaxrnn.dynamic_rnn`. A reversed run
                reverses all steps, including masked steps.
            deterministic: Whether to run without random numbers; None to use the value
                set by the constructor, `train()` or `eval()`.
            return_carry: Whether to also return the state; None to use the
                constructor's value.
            return_states: Whether to also return the states after all steps; None to
                use the constructor's value.
            rngs: A stream or a key for random numbers, instead of the module's stream.
                If a function under `jax.jit` closes over the module, pass a key: the
                module's stream cannot advance in such a function and raises
                `TraceContextError`.

        Returns:
            The outputs, `[*batch, time, ...]`. With `return_carry`, the pair `(state,
            outputs)`, in Flax's order. With `return_states`, `(outputs, state,
            states)`, as in `jaxrnn.dynamic_rnn`, regardless of `return_carry`. With two
            directions, `states` is a pair, as in `jaxrnn.bidirectional_dynamic_rnn`.

        Raises:
            TypeError: If an option has the wrong type, or if `rngs` is neither a stream
                nor a key; also as in `jaxrnn.dynamic_rnn`.
            ValueError: As in `jaxrnn.dynamic_rnn`.
        """
        params = as_pure(self.params)
        return run_layer(
            self,
            self.layer,
            lambda step_in: params,
            lambda *_: self._draw_key(deterministic, rngs),
            inputs,
            sequence_length,
            initial_state=initial_state,
            return_carry=return_carry,
            return_states=return_states,
            resets=resets,
            reset_state=reset_state,
            mask=mask,
            implementation=self.implementation,
        )


class RNN(Recurrent):
    """A jaxrnn cell that runs over sequences: `jaxrnn.dynamic_rnn` as a module.

    Args:
        cell: The cell, or a `MultiRNNCell` for several layers.
        in_features: The size of the inputs, or an example of one step of inputs:
            `[batch, ...]` or a nest, as arrays or `jax.ShapeDtypeStruct`s.
        reverse: Whether each row is read from its last step to its first; by default
            False.
        keep_order: Whether a reversed run returns its outputs in the order of the
            inputs. False, the default as in Flax, returns them in the order in which
            they are computed: the output of a row's last step comes first.
        rngs: The streams for parameters and for random numbers.
        **kwargs: Any of these options, shown with their defaults:

            - `time_major=False`: Whether time is the first axis of inputs and outputs.
            - `return_carry=False`: Whether a call returns `(state, outputs)`.
            - `return_states=False`: Whether a call returns `(outputs, state, states)`.
            - `swap_memory=False`: As in `jaxrnn.dynamic_rnn`.
            - `parallel_iterations=None`: As in `jaxrnn.dynamic_rnn`.
            - `implementation=None`: As in `jaxrnn.dynamic_rnn`.
            - `dtype=None`: The dtype of the computation; None for the widest dtype of
              inputs and parameters.
            - `param_dtype=float32`: The dtype of the parameters.
            - `axis_names=None`: Names of the parameters' axes, for partitioning. Maps
              the last part of a parameter's name ("kernel", "bias") to a tuple with a
              name or None for each axis.
            - `deterministic=False`: Whether calls draw no random numbers; `train()` and
              `eval()` change it.
            - `rng_collection="dropout"`: The name of the stream for random numbers.

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
        check_options(reverse=reverse, keep_order=keep_order)
        layer = layers.make_one_direction(cell, reverse, keep_order)
        super().__init__(layer, in_features, rngs=rngs, **kwargs)


class Bidirectional(Recurrent):
    """A forward and a backward cell: `jaxrnn.bidirectional_dynamic_rnn` as a module.

    The state is a pair `(state_fw, state_bw)`.

    Args:
        cell_fw: The forward cell.
        cell_bw: The backward cell; its parameters are separate.
        in_features: As in `RNN`.
        merge: `merge(outputs_fw, outputs_bw)` returns the outputs of the module; the
            default concatenates along the last axis.
        rngs: As in `RNN`.
        **kwargs: As in `RNN`.
    """

    def __init__(
        self,
        cell_fw: RNNCell,
        cell_bw: RNNCell,
        in_features: int | PyTree,
        *,
        rngs: nnx.Rngs,
        merge: layers.Merge = layers.concatenate,
        **kwargs: Any,
    ) -> None:
        layer = layers.make_two_directions(cell_fw, cell_bw, merge)
        super().__init__(layer, in_features, rngs=rngs, **kwargs)


class StackBidirectional(Recurrent):
    """Bidirectional layers: `jaxrnn.stack_bidirectional_dynamic_rnn` as a module.

    The state is a pair `(states_fw, states_bw)`, as in that driver. Each element of the
    pair holds one state for each layer, lowest layer first.

    Args:
        cells_fw: The forward cells, one for each layer, lowest layer first.
        cells_bw: The backward cells, in the same order.
        in_features: As in `RNN`.
        rngs: As in `RNN`.
        **kwargs: As in `RNN`.
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
        layer = layers.make_stack(cells_fw, cells_bw)
        super().__init__(layer, in_features, rngs=rngs, **kwargs)


class RawRNN(HoldsLayer):
    """`jaxrnn.raw_rnn` with a cell whose parameters belong to this module.

    A loop function may call other modules, such as an embedding or an output layer, if
    the calls do not change these modules.

    Args:
        cell: The cell.
        in_features: The size of the inputs, or an example of one step of inputs:
            `[batch, ...]` or a nest, as arrays or `jax.ShapeDtypeStruct`s.
        max_time: The bound on the number of steps; required under `jit`.
        swap_memory: As in `jaxrnn.raw_rnn`.
        rngs: The streams for parameters and for random numbers.
        **kwargs: `param_dtype`, `axis_names`, `deterministic` and `rng_collection`, as
            in `RNN`.

    Example:
        >>> import jax.numpy as jnp, jaxrnn, jaxrnn.nnx
        >>> from flax import nnx
        >>> rngs = nnx.Rngs(0)
        >>> rnn = jaxrnn.nnx.RawRNN(jaxrnn.GRUCell(8), 4, max_time=6, rngs=rngs)
        >>> embed, logits = nnx.Embed(10, 4, rngs=rngs), nnx.Linear(8, 10, rngs=rngs)
        >>> def loop_fn(time, output, cell_state, loop_state):
        ...     if output is None:  # Before the first step.
        ...         ids, state = jnp.zeros(2, jnp.int32), jnp.ones((2, 8), jnp.float32)
        ...         return jnp.zeros(2, bool), embed(ids), state, ids[0], None
        ...     ids = jnp.argmax(logits(output), -1).astype(jnp.int32)
        ...     return ids == 1, embed(ids), cell_state, ids, None
        >>> emit_ta, _, _ = rnn(loop_fn)
        >>> emit_ta.stack().shape
        (6, 2)
    """

    def __init__(
        self,
        cell: RNNCell,
        in_features: int | PyTree,
        *,
        max_time: int | None = None,
        swap_memory: Any = False,
        rngs: nnx.Rngs,
        **kwargs: Any,
    ) -> None:
        layer = layers.make_one_direction(cell)
        super().__init__(layer, in_features, rngs=rngs, **kwargs)
        self.max_time = max_time
        self.swap_memory = swap_memory

    def __call__(
        self,
        loop_fn: Callable,
        *,
        deterministic: bool | None = None,
        rngs: Rngs | None = None,
    ) -> tuple[TensorArray, PyTree, PyTree]:
        """Returns `(emit_ta, final_state, final_loop_state)`, as `jaxrnn.raw_rnn` does.

        Args:
            loop_fn: The loop function of `jaxrnn.raw_rnn`.
            deterministic: Whether to run without random numbers; None to use the value
                set by the constructor, `train()` or `eval()`.
            rngs: A stream or a key for random numbers, instead of the module's stream.

        Raises:
            TypeError: If `rngs` is neither a stream nor a key; also as in
                `jaxrnn.raw_rnn`.
            ValueError: As in `jaxrnn.raw_rnn`.
        """
        key = self._draw_key(deterministic, rngs)
        cell = self.layer.bind(as_pure(self.params), key)
        return raw_rnn(
            cell, loop_fn, swap_memory=self.swap_memory, max_time=self.max_time
        )
