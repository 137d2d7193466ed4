"""`dynamic_rnn` and its bidirectional variants as linen modules."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from .._base.errors import InvalidValue
from .._base.typing import DType, Key, Params, PyTree
from .._layers import modules
from .._layers.cells import (
    AxisNames,
    BoundCells,
    HoldsCells,
    check_axis_names,
    name_axes,
)


class HoldsParams(nn.Module, HoldsCells, kw_only=True):
    """A linen module that holds the parameters of its cells."""

    param_dtype: DType = jnp.float32
    axis_names: AxisNames | None = None
    rng_collection: str = "dropout"
    deterministic: bool | None = None

    @nn.nowrap
    def variables_of(self, *cells: BoundCells) -> Params:
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
        return {"params": self._params_of(*cells)}

    @nn.nowrap
    def cells_of(self, variables: Params) -> BoundCells:
        """Bound cells with the parameters in `variables`; inverts `variables_of`.

        Raises:
            ValueError: If `variables` lacks a parameter of the module.
        """
        params = variables.get("params", {})
        names = self._cells()
        if not names.keys() <= set(params):
            got = ", ".join(map(str, params)) or "none"
            must = f"have the params {', '.join(names)} of the module"
            raise InvalidValue(f"`variables` must {must}, got {got}.")
        return self._bind(nn.meta.unbox(params))

    @nn.nowrap
    def _params(self, step: PyTree = None) -> Params:
        """The parameters, which `init` creates for one step of inputs."""

        def init(key: Key, name: str) -> PyTree:
            params = self._init_part(name, key, step, self.param_dtype)
            return name_axes(self.axis_names, params, nn.LogicallyPartitioned)

        def get(name: str) -> PyTree:
            # `param` would trace `init` on each call to compare shapes. The cell also
            # compares the shapes, and its error message is clearer.
            if self.has_variable("params", name):
                return nn.meta.unbox(self.get_variable("params", name))
            return self.param(name, init, name)

        params = {name: get(name) for name in self._cells()}
        check_axis_names(self.axis_names, params)
        return params

    @nn.nowrap
    def _next_key(self, rngs: Key | None) -> Key | None:
        if rngs is not None:
            return rngs
        # `make_rng` falls back to the stream "params".
        streams = (self.rng_collection, "params")
        if self._declared_random() or any(map(self.has_rng, streams)):
            return self.make_rng(self.rng_collection)
        return None


class Recurrent(HoldsParams, modules.Recurrent):
    """The base class of `RNN` and its bidirectional variants; see `RNN`."""

    @nn.compact
    @modules.signed_as(modules.Recurrent.__call__)
    def __call__(self, *args: Any, **kwargs: Any) -> PyTree:
        return super().__call__(*args, **kwargs)

    @nn.nowrap
    def _options(self) -> dict[str, Any]:
        options = super()._options()
        if self.is_initializing():
            options["implementation"] = None  # `init` must run on all devices.
        return options


class RNN(Recurrent, modules.OneDirection):
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


class Bidirectional(Recurrent, modules.TwoDirections):
    """A forward and a backward cell: `jaxrnn.bidirectional_dynamic_rnn` as a module.

    The state is a pair `(state_fw, state_bw)`. For the other attributes, see `RNN`.

    Attributes:
        cell_fw: The forward cell.
        cell_bw: The backward cell; its parameters are separate.
        merge: `merge(outputs_fw, outputs_bw)` returns the outputs of the module; the
            default concatenates along the last axis.
    """


class StackBidirectional(Recurrent, modules.Stack):
    """Bidirectional layers: `jaxrnn.stack_bidirectional_dynamic_rnn` as a module.

    The state is a pair `(states_fw, states_bw)`, as in that driver. Each element of the
    pair holds one state for each layer, lowest layer first. For the other attributes,
    see `RNN`.

    Attributes:
        cells_fw: The forward cells, one for each layer, lowest layer first.
        cells_bw: The backward cells, in the same order.
    """
