"""`dynamic_rnn` and its bidirectional forms as modules."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from .._base.typing import ArrayLike, DType, Key, Lengths, Params, PyTree
from .._base.unknown_arguments import check_unknown
from .._cells.base import RNNCell
from .._layers import directions
from .._layers.inputs import LayerInputs
from .._layers.layer import Layer, RunOptions
from .._layers.options import check_axis_names, check_options, name_axes


class ChecksOptions(nn.Module):
    """A module of linen whose options are checked when it is constructed."""

    def __post_init__(self) -> None:
        check_options(type(self).__name__, **vars(self))
        super().__post_init__()


class HoldsCells(ChecksOptions):
    """A module of linen that holds a layer."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "HoldsCells":
        """Refuses names of Flax's options with ours."""
        known = [field.name for field in dataclasses.fields(cls)]
        check_unknown(cls.__name__, "the constructor", kwargs, known)
        return super().__new__(cls)

    @nn.nowrap
    def _layer(self) -> Layer:
        raise NotImplementedError

    @nn.nowrap
    def variables_of(self, *cells: Any) -> Params:
        """The module's variables, with the parameters of these cells.

        Args:
            *cells: As a converter returns them: a bound cell, or forward cells and
                backward cells.

        Returns:
            `{"params": ...}`, for `apply`.

        Raises:
            TypeError: If one is not a bound cell.
            ValueError: If one is not a cell of this module.
        """
        return {"params": self._layer().params_of("variables_of", *cells)}

    @nn.nowrap
    def cells_of(self, variables: Params) -> Any:
        """Bound cells with the parameters in `variables`; inverts `variables_of`.

        Raises:
            ValueError: If `variables` lack a parameter of the module.
        """
        layer = self._layer()
        params = variables.get("params", {})
        names = layer.parts()
        if not names.keys() <= set(params):
            raise ValueError(
                f"cells_of: `variables` must have params {', '.join(names)}, as the "
                f"module, got {', '.join(map(str, params)) or 'none'}."
            )
        return layer.bind(nn.meta.unbox(params))


class Recurrent(HoldsCells, kw_only=True):
    """The base class of `RNN` and its bidirectional forms; for attributes see `RNN`."""

    time_major: bool = False
    return_carry: bool = False
    return_states: bool = False
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
        sequence_length: Lengths | None = None,
        *,
        initial_state: PyTree = None,
        resets: ArrayLike | None = None,
        reset_state: PyTree = None,
        mask: ArrayLike | None = None,
        deterministic: bool | None = None,
        return_carry: bool | None = None,
        return_states: bool | None = None,
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
            deterministic: True for a run without random numbers; None for the
                attribute.
            return_carry: Whether to return the state as well; None for the attribute.
            return_states: Whether to return the states after all steps as well; None
                for the attribute.
            **unknown: Refused; for a name of Flax's, the error gives ours.

        Returns:
            The outputs, `[*batch, time, ...]`; with `return_carry` the pair `(state,
            outputs)`, in the order of Flax; with `return_states` `(outputs, state,
            states)`, as `jaxrnn.dynamic_rnn`, whatever `return_carry` is.

        Raises:
            TypeError: If an option is not of its type; as `jaxrnn.dynamic_rnn`.
            ValueError: As `jaxrnn.dynamic_rnn`.
            flax.errors.InvalidRngError: If a cell draws random numbers and there is no
                stream `rng_collection`, as for `nn.Dropout`.
        """
        layer, caller = self._layer(), type(self).__name__
        check_unknown(caller, "a call", unknown)
        flags = {"deterministic": deterministic, "return_states": return_states}
        check_options(caller, return_carry=return_carry, **flags)
        sequences = LayerInputs.make(self, layer, inputs, sequence_length)
        params = self._params(layer, sequences.step(self.param_dtype))
        dtype = sequences.compute_dtype(self.dtype, params)
        if deterministic is None:
            deterministic = self.deterministic
        key, step = None, sequences.step(dtype)
        if not deterministic and layer.draws_random_numbers(params, step, dtype):
            key = self.make_rng(self.rng_collection)
        given = {"resets": resets, "reset_state": reset_state, "mask": mask}
        options = RunOptions.of(self, dtype, key, return_states=return_states, **given)
        if self.is_initializing():  # This must work where a named one cannot run.
            options = dataclasses.replace(options, implementation=None)
        outputs, state, *states = sequences.run(layer, params, initial_state, options)
        if options.return_states:
            return outputs, state, *states
        if self.return_carry if return_carry is None else return_carry:
            return state, outputs
        return outputs

    def _params(self, layer: Layer, step: PyTree) -> Params:
        def init(key: Key, name: str) -> PyTree:
            params = layer.init_part(name, key, step, self.param_dtype)
            return name_axes(self.axis_names, params, nn.LogicallyPartitioned)

        def get(name: str) -> PyTree:
            # `param` would trace `init` on each call to compare shapes. The cell also
            # compares them, with a better message.
            if self.has_variable("params", name):
                return nn.meta.unbox(self.get_variable("params", name))
            return self.param(name, init, name)

        params = {name: get(name) for name in layer.parts()}
        check_axis_names(type(self).__name__, self.axis_names, params)
        return params


class RNN(Recurrent):
    """A cell of jaxrnn over sequences: `jaxrnn.dynamic_rnn` as a module.

    Attributes:
        cell: The cell; a `MultiRNNCell` for several layers.
        reverse: Whether each row is read from its last step to its first.
        keep_order: Whether a reversed run returns its outputs in the order of the
            inputs. False returns them in the order in which they are computed, the
            output of a row's last step first; Flax's default, too.
        time_major: Whether time is the first axis of inputs and outputs.
        return_carry: Whether a call returns `(state, outputs)`.
        return_states: Whether a call returns `(outputs, state, states)`.
        swap_memory: As in `jaxrnn.dynamic_rnn`.
        parallel_iterations: As in `jaxrnn.dynamic_rnn`.
        implementation: As in `jaxrnn.dynamic_rnn`.
        dtype: The dtype of the computation; None for the widest of inputs and
            parameters.
        param_dtype: The dtype of the parameters.
        axis_names: Names of the parameters' axes, for partitioning: for the last part
            of a parameter's name ("kernel", "bias") a tuple with a name or None for
            each axis.
        rng_collection: The name of the stream for random numbers.
        deterministic: Whether calls draw no random numbers, unless their argument says
            otherwise. None is False. The attribute is static under `nn.jit` and
            `nn.remat`; the argument is not.

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
        caller = type(self).__name__
        options = self.reverse, self.keep_order
        return directions.make_one_direction(caller, self.cell, *options)


class Bidirectional(Recurrent):
    """A forward and a backward cell: `jaxrnn.bidirectional_dynamic_rnn` as a module.

    The state is a pair, forward and backward. The other attributes are those of `RNN`.

    Attributes:
        cell_fw: The forward cell.
        cell_bw: The backward cell; its parameters are separate.
        merge: `merge(outputs_fw, outputs_bw)`; by default concatenation along the last
            axis.
    """

    cell_fw: RNNCell
    cell_bw: RNNCell
    merge: Callable[[PyTree, PyTree], PyTree] = directions.concatenate

    @nn.nowrap
    def _layer(self) -> Layer:
        caller = type(self).__name__
        cells = self.cell_fw, self.cell_bw
        return directions.make_two_directions(caller, *cells, self.merge)


class StackBidirectional(Recurrent):
    """Bidirectional layers: `jaxrnn.stack_bidirectional_dynamic_rnn` as a module.

    The state is a pair `(states_fw, states_bw)`, as that driver has it: both hold a
    state for each layer, from the lowest. The other attributes are those of `RNN`.

    Attributes:
        cells_fw: The forward cells, one for each layer from the lowest.
        cells_bw: The backward cells, as many.
    """

    cells_fw: Sequence[RNNCell]
    cells_bw: Sequence[RNNCell]

    @nn.nowrap
    def _layer(self) -> Layer:
        return directions.make_stack(type(self).__name__, self.cells_fw, self.cells_bw)
