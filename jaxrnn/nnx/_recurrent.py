"""`dynamic_rnn` and its bidirectional forms as modules."""

from collections.abc import Callable, Sequence
from typing import Any

from flax import nnx

from .._base.typing import ArrayLike, DType, Lengths, PyTree
from .._base.unknown_arguments import check_unknown
from .._cells.base import RNNCell
from .._layers import directions
from .._layers.inputs import LayerInputs
from .._layers.layer import RunOptions
from .._layers.options import check_options
from ._parameters import HoldsLayer, Rngs, as_pure


class Recurrent(HoldsLayer):
    """The base class of `RNN` and its bidirectional forms; for arguments see `RNN`."""

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
        **unknown: Any,
    ) -> Any:
        """Runs over sequences.

        Args:
            inputs: `[*batch, time, ...]`, or `[time, *batch, ...]` if `time_major`; or
                a nest of such arrays. Any number of batch axes, including none.
            sequence_length: `[*batch]`, integers, clamped to `[0, time]`; None for all
                steps. Inputs past the length of a row have no effect, and outputs there
                are zero. Flax calls it `seq_lengths`.
            initial_state: The state before the first step, each leaf `[*batch, ...]`;
                None for the zero state, also for a state within a pair of directions.
                It is cast to `dtype`. Flax calls it `initial_carry`.
            resets: Bool `[*batch, time]`, or `[time, *batch]` if `time_major`: where
                the state of a row is set back before the step, as at the start of an
                episode; see `jaxrnn.dynamic_rnn` and its form with two directions.
            reset_state: The state that resets go to, as `initial_state`; None for the
                zero state. Of `RNN` alone: two directions are reset to zeros, and
                refuse another state.
            mask: Bool `[*batch, time]`, or `[time, *batch]` if `time_major`, in place
                of `sequence_length`: the steps that count, which may have gaps; see
                `jaxrnn.dynamic_rnn`. A reversed run reverses all steps, those that do
                not count included.
            deterministic: True for a run without random numbers; None for what the
                constructor, `train()` or `eval()` has set.
            return_carry: Whether to return the state as well; None for what the
                constructor was given.
            return_states: Whether to return the states after all steps as well; None
                for what the constructor was given.
            rngs: A stream or a key for random numbers, instead of the module's stream.
                If a function under `jax.jit` closes over the module, pass a key: the
                module's stream cannot advance there and raises `TraceContextError`.
            **unknown: Refused; for a name of Flax's, the error gives ours.

        Returns:
            The outputs, `[*batch, time, ...]`; with `return_carry` the pair `(state,
            outputs)`, in the order of Flax; with `return_states` `(outputs, state,
            states)`, as `jaxrnn.dynamic_rnn`, whatever `return_carry` is.

        Raises:
            TypeError: If an option is not of its type, or `rngs` is neither a stream
                nor a key; as `jaxrnn.dynamic_rnn`.
            ValueError: As `jaxrnn.dynamic_rnn`.
        """
        caller, params = type(self).__name__, as_pure(self.params)
        check_unknown(caller, "a call", unknown)
        check_options(caller, return_carry=return_carry, return_states=return_states)
        sequences = LayerInputs.make(self, self.layer, inputs, sequence_length)
        dtype = sequences.compute_dtype(self.dtype, params)
        key = self._draw_key(deterministic, rngs)
        given = {"resets": resets, "reset_state": reset_state, "mask": mask}
        options = RunOptions.of(self, dtype, key, return_states=return_states, **given)
        outputs, state, *states = sequences.run(
            self.layer, params, initial_state, options
        )
        if options.return_states:
            return outputs, state, *states
        if self.return_carry if return_carry is None else return_carry:
            return state, outputs
        return outputs


class RNN(Recurrent):
    """A cell of jaxrnn over sequences: `jaxrnn.dynamic_rnn` as a module.

    Args:
        cell: The cell; a `MultiRNNCell` for several layers.
        in_features: The size of the inputs; or one step of them, `[batch, ...]` or a
            nest, of arrays or `jax.ShapeDtypeStruct`s.
        reverse: Whether each row is read from its last step to its first; by default
            False.
        keep_order: Whether a reversed run returns its outputs in the order of the
            inputs. False, the default as in Flax, returns them in the order in which
            they are computed, the output of a row's last step first.
        rngs: The streams for parameters and for random numbers.
        **kwargs: Any of these options, with these defaults:

            - `time_major=False`: Whether time is the first axis of inputs and outputs.
            - `return_carry=False`: Whether a call returns `(state, outputs)`.
            - `return_states=False`: Whether a call returns `(outputs, state, states)`.
            - `swap_memory=False`: As in `jaxrnn.dynamic_rnn`.
            - `parallel_iterations=None`: As in `jaxrnn.dynamic_rnn`.
            - `implementation=None`: As in `jaxrnn.dynamic_rnn`.
            - `dtype=None`: The dtype of the computation; None for the widest of inputs
              and parameters.
            - `param_dtype=float32`: The dtype of the parameters.
            - `axis_names=None`: Names of the parameters' axes, for partitioning: for
              the last part of a parameter's name ("kernel", "bias") a tuple with a name
              or None for each axis.
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
        caller = type(self).__name__
        check_options(caller, reverse=reverse, keep_order=keep_order)
        layer = directions.make_one_direction(caller, cell, reverse, keep_order)
        super().__init__(layer, in_features, rngs=rngs, **kwargs)


class Bidirectional(Recurrent):
    """A forward and a backward cell: `jaxrnn.bidirectional_dynamic_rnn` as a module.

    The state is a pair, forward and backward.

    Args:
        cell_fw: The forward cell.
        cell_bw: The backward cell; its parameters are separate.
        in_features: As in `RNN`.
        merge: `merge(outputs_fw, outputs_bw)`; by default concatenation along the last
            axis.
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
        merge: Callable[[PyTree, PyTree], PyTree] = directions.concatenate,
        **kwargs: Any,
    ) -> None:
        caller = type(self).__name__
        layer = directions.make_two_directions(caller, cell_fw, cell_bw, merge)
        super().__init__(layer, in_features, rngs=rngs, **kwargs)


class StackBidirectional(Recurrent):
    """Bidirectional layers: `jaxrnn.stack_bidirectional_dynamic_rnn` as a module.

    The state is a pair `(states_fw, states_bw)`, as that driver has it: both hold a
    state for each layer, from the lowest.

    Args:
        cells_fw: The forward cells, one for each layer from the lowest.
        cells_bw: The backward cells, as many.
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
        layer = directions.make_stack(type(self).__name__, cells_fw, cells_bw)
        super().__init__(layer, in_features, rngs=rngs, **kwargs)
