"""`dynamic_rnn` and its bidirectional variants as linen modules."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from .._base.errors import InvalidValue
from .._base.typing import ArrayLike, DType, Key, Lengths, Params, PyTree
from .._cells.base import RNNCell
from .._layers import layer as layers
from .._layers.checks import AxisNames, check_axis_names, check_options, name_axes
from .._layers.inputs import run_layer
from .._layers.layer import Layer


class ChecksOptions(nn.Module):
    """A linen module whose options are checked when it is constructed."""

    def __post_init__(self) -> None:
        check_options(**vars(self))
        super().__post_init__()


class HoldsCells(ChecksOptions):
    """A linen module that holds a layer."""

    @nn.nowrap
    def _layer(self) -> Layer:
        raise NotImplementedError

    @nn.nowrap
    def variables_of(self, *cells: layers.BoundCells) -> Params:
        """The module's variables, containing the parameters of bound cells.

        Args:
            *cells: A bound cell, or forward cells and backward cells, as a converter
                returns them.

        Returns:
            `{"params": ...}`, for `apply`.

        Raises:
            TypeError: If an argument is not a bound cell.
            ValueError: If a bound cell is not one of this module's cells.
        """
        return {"params": self._layer().params_of(*cells)}

    @nn.nowrap
    def cells_of(self, variables: Params) -> layers.BoundCells:
        """Bound cells with the parameters in `variables`; inverts `variables_of`.

        Raises:
            ValueError: If `variables` lacks a parameter of the module.
        """
        layer = self._layer()
        params = variables.get("params", {})
        names = layer.parts()
        if not names.keys() <= set(params):
            got = ", ".join(map(str, params)) or "none"
            must = f"have the params {', '.join(names)} of the module"
            raise InvalidValue(f"`variables` must {must}, got {got}.")
        return layer.bind(nn.meta.unbox(params))


class Recurrent(HoldsCells, kw_only=True):
    """The base class of `RNN` and its bidirectional variants; see `RNN`."""

    time_major: bool = False
    return_carry: bool = False
    return_states: bool = False
    swap_memory: Any = False
    parallel_iterations: int | None = None
    implementation: Any = None
    dtype: DType | None = None
    param_dtype: DType = jnp.float32
    axis_names: AxisNames | None = None
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
            deterministic: Whether to run without random numbers; None to use the
                attribute of the same name.
            return_carry: Whether to also return the state; None to use the attribute of
                the same name.
            return_states: Whether to also return the states after all steps; None to
                use the attribute of the same name.

        Returns:
            The outputs, `[*batch, time, ...]`. With `return_carry`, the pair `(state,
            outputs)`, in Flax's order. With `return_states`, `(outputs, state,
            states)`, as in `jaxrnn.dynamic_rnn`, regardless of `return_carry`. With two
            directions, `states` is a pair, as in `jaxrnn.bidirectional_dynamic_rnn`.

        Raises:
            TypeError: If an option has the wrong type; also as in `jaxrnn.dynamic_rnn`.
            ValueError: As in `jaxrnn.dynamic_rnn`.
            flax.errors.InvalidRngError: If a cell draws random numbers but the stream
                `rng_collection` is missing, as in `nn.Dropout`.
        """
        layer = self._layer()
        check_options(deterministic=deterministic)
        if deterministic is None:
            deterministic = self.deterministic

        def params_for(step_in: Callable[[DType], PyTree]) -> Params:
            return self._params(layer, step_in(self.param_dtype))

        def key_for(params: Params, step: PyTree, dtype: DType) -> Key | None:
            if deterministic or not layer.draws_random_numbers(params, step, dtype):
                return None
            return self.make_rng(self.rng_collection)

        return run_layer(
            self,
            layer,
            params_for,
            key_for,
            inputs,
            sequence_length,
            initial_state=initial_state,
            return_carry=return_carry,
            return_states=return_states,
            resets=resets,
            reset_state=reset_state,
            mask=mask,
            # `init` must run on all devices.
            implementation=None if self.is_initializing() else self.implementation,
        )

    def _params(self, layer: Layer, step: PyTree) -> Params:
        def init(key: Key, name: str) -> PyTree:
            params = layer.init_part(name, key, step, self.param_dtype)
            return name_axes(self.axis_names, params, nn.LogicallyPartitioned)

        def get(name: str) -> PyTree:
            # `param` would trace `init` on each call to compare shapes. The cell also
            # compares the shapes, and its error message is clearer.
            if self.has_variable("params", name):
                return nn.meta.unbox(self.get_variable("params", name))
            return self.param(name, init, name)

        params = {name: get(name) for name in layer.parts()}
        check_axis_names(self.axis_names, params)
        return params


class RNN(Recurrent):
    """A jaxrnn cell that runs over sequences: `jaxrnn.dynamic_rnn` as a module.

    Attributes:
        cell: The cell, or a `MultiRNNCell` for several layers.
        reverse: Whether each row is read from its last step to its first.
        keep_order: Whether a reversed run returns its outputs in the order of the
            inputs. False, which is also Flax's default, returns them in the order in
            which they are computed: the output of a row's last step comes first.
        time_major: Whether time is the first axis of inputs and outputs.
        return_carry: Whether a call returns `(state, outputs)`.
        return_states: Whether a call returns `(outputs, state, states)`.
        swap_memory: As in `jaxrnn.dynamic_rnn`.
        parallel_iterations: As in `jaxrnn.dynamic_rnn`.
        implementation: As in `jaxrnn.dynamic_rnn`.
        dtype: The dtype of the computation; None for the widest dtype of inputs and
            parameters.
        param_dtype: The dtype of the parameters.
        axis_names: Names of the parameters' axes, for partitioning. Maps the last part
            of a parameter's name ("kernel", "bias") to a tuple with a name or None for
            each axis.
        rng_collection: The name of the stream for random numbers.
        deterministic: Whether calls draw no random numbers; None means False. The
            argument of a call overrides the attribute. The attribute is static under
            `nn.jit` and `nn.remat`; the argument is not.

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
        return layers.make_one_direction(self.cell, self.reverse, self.keep_order)


class Bidirectional(Recurrent):
    """A forward and a backward cell: `jaxrnn.bidirectional_dynamic_rnn` as a module.

    The state is a pair `(state_fw, state_bw)`. For the other attributes, see `RNN`.

    Attributes:
        cell_fw: The forward cell.
        cell_bw: The backward cell; its parameters are separate.
        merge: `merge(outputs_fw, outputs_bw)` returns the outputs of the module; the
            default concatenates along the last axis.
    """

    cell_fw: RNNCell
    cell_bw: RNNCell
    merge: layers.Merge = layers.concatenate

    @nn.nowrap
    def _layer(self) -> Layer:
        return layers.make_two_directions(self.cell_fw, self.cell_bw, self.merge)


class StackBidirectional(Recurrent):
    """Bidirectional layers: `jaxrnn.stack_bidirectional_dynamic_rnn` as a module.

    The state is a pair `(states_fw, states_bw)`, as in that driver. Each element of the
    pair holds one state for each layer, lowest layer first. For the other attributes,
    see `RNN`.

    Attributes:
        cells_fw: The forward cells, one for each layer, lowest layer first.
        cells_bw: The backward cells, in the same order.
    """

    cells_fw: Sequence[RNNCell]
    cells_bw: Sequence[RNNCell]

    @nn.nowrap
    def _layer(self) -> Layer:
        return layers.make_stack(self.cells_fw, self.cells_bw)
