"""Flax linen modules that hold any jaxrnn cell."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic

import jax
import jax.numpy as jnp

from .._base.cell_keys import run_key
from .._base.errors import expect
from .._base.hints import with_hints
from .._base.modules import import_optional
from .._base.typing import Array, DType, Key, Lengths, Params, PyTree, Size, State
from .._cells.base import RNNCell, check_rnn_cell
from . import modules, parameters
from .modules import BoundCells, Cells, Merge, StateBw
from .parameters import AxisNames

if TYPE_CHECKING:
    # Linen turns modules into dataclasses only at run time. With this decorator,
    # editors also know their fields.
    from dataclasses import dataclass

    import flax.linen as nn
else:
    nn = import_optional("flax.linen")

    def dataclass(cls: type) -> type:
        return cls


__all__ = ["RNN", "Bidirectional", "Cell", "StackBidirectional", "as_cell"]


@dataclass
class Recurrent(modules.Recurrent[State], nn.Module, kw_only=True):
    """The base class of linen modules: options, parameters, random stream and call."""

    axis_names: AxisNames | None = None

    if not TYPE_CHECKING:
        # Linen wraps only methods that a linen class defines itself.
        __call__ = nn.compact(with_hints(modules.Recurrent.__call__))

    @nn.nowrap
    def _is_init(self) -> bool:
        return self.is_initializing()

    @nn.nowrap
    def _params(self, inputs: PyTree, sequence_length: Lengths | None) -> Params:
        """Returns the parameters. During `init`, creates them for the inputs."""
        cells = self._cells()

        def init(key: Key, name: str) -> PyTree:
            step = modules.first_step(self, inputs, sequence_length)
            params = parameters.init_part(cells, name, key, step, self.param_dtype)
            return parameters.name_axes(self.axis_names, params, _partitioned)

        names = modules.named_cells(cells)
        params = {name: _param(self, name, init, name) for name in names}
        parameters.check_axis_names(self.axis_names, params)
        return params

    @nn.nowrap
    def _draw_key(self, deterministic: bool | None, rngs: Key | None) -> Key | None:
        is_random = modules.are_random(self._cells())
        is_quiet = modules.flag("deterministic", deterministic, self.deterministic)
        if is_quiet or is_random is False:
            return None
        # Also look for "params", because `make_rng` falls back to this stream.
        streams = (self.rng_collection, "params")
        if rngs is None and (is_random or any(map(self.has_rng, streams))):
            return self.make_rng(self.rng_collection)
        return rngs

    @nn.nowrap
    def variables_of(self, *cells: BoundCells) -> Params:
        """Returns the module's variables, with the parameters of bound cells.

        Args:
            *cells: A bound cell. For two directions, the forward cells and the backward
                cells, as two arguments or as one pair. Converters and `cells_of` return
                a pair.

        Returns:
            `{"params": ...}`, for `apply`. Parameters with `axis_names` are boxed in
            `nn.LogicallyPartitioned`, as `init` returns them.

        Raises:
            TypeError: If an argument is not a bound cell.
            ValueError: If a bound cell is not one of this module's cells, or if
                `axis_names` does not match the parameters.
        """
        params = parameters.params_of_cells(self._cells(), cells)
        boxed = parameters.name_axes(self.axis_names, params, _partitioned)
        parameters.check_axis_names(self.axis_names, params)
        return {"params": boxed}

    @nn.nowrap
    def cells_of(self, variables: Params) -> BoundCells:
        """Binds the module's cells to their parameters; the inverse of `variables_of`.

        Raises:
            ValueError: If `variables` lacks a parameter of the module.
        """
        params = nn.meta.unbox(variables.get("params", {}))
        names = modules.named_cells(self._cells()).keys()
        must = f"hold the module's parameters {', '.join(names)}"
        fix = "Pass the variables that `init` or `variables_of` returned."
        expect(names <= params.keys(), "variables", must, list(params), fix)
        return modules.bind_cells(self._cells(), params)


@with_hints
@dataclass
class RNN(Recurrent[State]):
    """A jaxrnn cell that runs over sequences: `jaxrnn.dynamic_rnn` as a module.

    Attributes:
        cell: The cell, or a `MultiRNNCell` for several layers.
        reverse: Whether to run each row from its last valid step to its first.
        keep_order: Whether a reversed run returns its outputs in the order of the
            inputs. False, which is also Flax's default, returns the outputs in the
            order of computation: the output of a row's last step comes first.
        time_major: Whether time is the first axis of inputs and outputs.
        return_carry: Whether a call returns `(state, outputs)`.
        return_states: Whether a call returns `(state, outputs, states)`, also if
            `return_carry` is False.
        swap_memory: As in `jaxrnn.dynamic_rnn`.
        parallel_iterations: As in `jaxrnn.dynamic_rnn`.
        implementation: As in `jaxrnn.dynamic_rnn`.
        dtype: The dtype of the zero state and of the outputs. Real inputs, parameters
            and states are cast to `dtype`. Complex arrays stay complex, in the
            precision of `dtype`. An integer `dtype` casts nothing. By default, the
            widest floating-point or complex dtype of inputs and parameters, or float32
            if there is none.
        param_dtype: The dtype of the parameters, real or complex floating-point.
        axis_names: Names of the parameters' axes, for partitioning. A dict from the end
            of a parameter's name to a tuple with a name or None per axis, such as
            `{"kernel": (None, "hidden")}`.
        rng_collection: The name of the random stream, e.g. for dropout.
        deterministic: If True, calls draw no random numbers. None means False. The
            argument of a call overrides the attribute. Under `nn.jit` and `nn.remat`,
            set the attribute, because the argument would be traced.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn, jaxrnn.linen
        >>> rnn = jaxrnn.linen.RNN(jaxrnn.LSTMCell(8))
        >>> x = jnp.ones((2, 5, 3), jnp.float32)
        >>> variables = rnn.init(jax.random.key(0), x)
        >>> rnn.apply(variables, x, [5, 3]).shape
        (2, 5, 8)
    """

    cell: RNNCell[State]
    reverse: bool = dataclasses.field(default=False, kw_only=True)
    keep_order: bool = dataclasses.field(default=False, kw_only=True)

    @nn.nowrap
    def _cells(self) -> Cells:
        return check_rnn_cell("cell", self.cell)


@with_hints
@dataclass
class Bidirectional(Recurrent[tuple[State, StateBw]], Generic[State, StateBw]):
    """A forward and a backward cell: `jaxrnn.bidirectional_dynamic_rnn` as a module.

    The state is a pair `(state_fw, state_bw)`. For the other attributes, see `RNN`.

    Attributes:
        cell_fw: The forward cell.
        cell_bw: The backward cell, which has its own parameters.
        merge: `merge(outputs_fw, outputs_bw)` returns the outputs of the module. By
            default, both outputs are concatenated along the last axis.
    """

    cell_fw: RNNCell[State]
    cell_bw: RNNCell[StateBw]
    merge: Merge = dataclasses.field(default=modules.concatenate, kw_only=True)

    @nn.nowrap
    def _cells(self) -> Cells:
        cell_fw = check_rnn_cell("cell_fw", self.cell_fw)
        return cell_fw, check_rnn_cell("cell_bw", self.cell_bw)


@with_hints
@dataclass
class StackBidirectional(
    Recurrent[tuple[tuple[State, ...], tuple[StateBw, ...]]], Generic[State, StateBw]
):
    """Bidirectional layers: `jaxrnn.stack_bidirectional_dynamic_rnn` as a module.

    The state is a pair `(states_fw, states_bw)`. Each element of the pair holds one
    state for each layer, lowest layer first. For the other attributes, see `RNN`.

    Attributes:
        cells_fw: The forward cells, one for each layer, lowest layer first.
        cells_bw: The backward cells, in the same order.
    """

    cells_fw: Sequence[RNNCell[State]]
    cells_bw: Sequence[RNNCell[StateBw]]

    @nn.nowrap
    def _cells(self) -> Cells:
        return modules.as_layers(self.cells_fw, self.cells_bw)


@dataclass
class Cell(nn.RNNCellBase):
    """A jaxrnn cell as a linen cell, for `nn.RNN` and `nn.Bidirectional`.

    A cell that draws random numbers raises an error, because Flax's RNN passes no key
    to each step. Use such cells in `jaxrnn.linen.RNN`, which is usually faster and
    ignores padding.

    Attributes:
        cell: The cell, which must accept inputs `[batch, features]`.
        dtype: The dtype of the initial carry. Real inputs and parameters are cast to
            `dtype`. Complex arrays stay complex, in the precision of `dtype`. Default:
            `param_dtype`.
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
        cell = modules.check_no_noise(self.cell)
        (scope,) = modules.named_cells(cell)
        step = modules.as_step(self, inputs)
        params = _param(self, scope, cell.init, step, self.param_dtype)
        return modules.run_step(self, params, carry, inputs)

    @nn.nowrap
    def initialize_carry(self, rng: Key, input_shape: tuple[int, ...]) -> PyTree:
        """The zero state for inputs `[*batch, features]`, each leaf `[*batch, ...]`.

        Args:
            rng: Accepted for compatibility with Flax, but ignored.
            input_shape: The shape of the inputs.
        """
        del rng
        return modules.zero_carry(self, input_shape)


def _param(module: nn.Module, name: str, init: Callable, *args: object) -> PyTree:
    """Returns a parameter; creates it during `init`.

    A parameter without arrays may be missing in the variables.

    Raises:
        ValueError: If the variables lack a parameter that holds arrays.
    """
    # Do not call `param` here, which would trace `init` on each call to compare shapes.
    # The cell compares shapes anyway, with a clearer message.
    if module.has_variable("params", name):
        return nn.meta.unbox(module.get_variable("params", name))
    if not module.is_mutable_collection("params"):
        types = jax.eval_shape(lambda key: init(key, *args), jax.random.key(0))
        if not jax.tree.leaves(types):
            return types
        _refuse_names(module, name)
    return module.param(name, init, *args)


def _refuse_names(module: nn.Module, name: str) -> None:
    """Raises ValueError for variables that lack a parameter or the whole module."""
    owner = module.parent
    if module.variables.get("params") or not isinstance(owner, nn.Module):
        owner = module
    missing = name if owner is module else module.name
    place = "".join(f"[{part!r}]" for part in ("params", *owner.path))
    given = sorted(owner.variables.get("params", {}))
    must = f"have {missing!r}, which holds the parameters of a cell"
    fix = f"Pass the variables that `init` returned. {modules.FIX}"
    expect(False, f"variables{place}", must, given, fix)


def as_cell(
    module: nn.Module,
    in_features: int | tuple[int, ...] = 1,
    broadcast_rngs: str | Sequence[str] = (),
) -> RNNCell:
    """Wraps a linen cell as a jaxrnn cell.

    The state is linen's carry, and the parameters are the module's parameters. By
    default, `dynamic_rnn` starts from zeros. If the module has a different initial
    carry, pass `initial_state=module.initialize_carry(...)`. All random streams are
    derived from the key of `cell.bind(params, key)`. `jaxrnn.linen.RNN` draws this key
    from the stream `rng_collection`.

    Args:
        module: The unbound cell: a callable module with `initialize_carry`.
        in_features: The size of the inputs, or their shape without the batch axis.
            Required only if the state has the shape of the inputs, e.g. in
            `nn.ConvLSTMCell`.
        broadcast_rngs: The names of random streams that give the same numbers at all
            steps of a run, e.g. for recurrent dropout. In `nn.RNN`, `split_rngs` maps
            these streams to False.

    Raises:
        TypeError: If `module` is not a linen cell. If `in_features` is neither an int
            nor a tuple of ints. If a stream's name is not a string.
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
    must = "be a cell of linen, such as nn.LSTMCell, with a method `initialize_carry`"
    is_cell = isinstance(module, nn.Module) and hasattr(module, "initialize_carry")
    is_own = isinstance(module, RNNCell)
    fix = "A cell of jaxrnn needs no conversion." if is_own else ""
    expect(is_cell, "module", must, module, fix, error=TypeError)
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
    # `num_feature_axes` is optional. The property of the base class raises
    # NotImplementedError.
    except (AttributeError, NotImplementedError):
        axes = None
    state_size, output_size = modules.sizes_of_cell(step, in_features)
    return LinenCell(module, state_size, output_size, axes, streams)


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class LinenCell(RNNCell):
    module: Any
    state_size: Size
    output_size: Size
    feature_axes: int | None
    broadcast_rngs: tuple[str, ...]
    starts_from_zeros = property(lambda self: True)

    def init(self, key: Key, inputs: PyTree, dtype: DType = None) -> Params:
        """Creates the module's parameters, its collection "params".

        Raises:
            ValueError: If the module has other collections.
        """
        inputs = jnp.zeros(inputs.shape, inputs.dtype)
        carry = self.module.initialize_carry(key, inputs.shape)
        keys = {"params": key, "dropout": key}
        # Allow promotion, because the dtypes of the carry and the inputs may differ.
        with jax.numpy_dtype_promotion("standard"):
            variables = self.module.init(keys, carry, inputs)
        modules.check_no_variables(variables.keys() - {"params"})
        params = nn.meta.unbox(variables.get("params", {}))
        return params if dtype is None else modules.in_dtype(dtype, params)

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """Runs one step, with all random streams derived from the key."""
        rngs = None if key is None else self._streams(key)
        state, output = self.module.apply({"params": params}, state, inputs, rngs=rngs)
        return output, state

    def _streams(self, key: Key) -> dict[str, Key]:
        # Include "params", because linen uses it for missing streams.
        streams = {"dropout": key, "params": jax.random.fold_in(key, 0)}
        for i, name in enumerate(self.broadcast_rngs):
            streams[name] = jax.random.fold_in(run_key(key), i)
        return streams


def _partitioned(array: Array, names: tuple[str | None, ...]) -> PyTree:
    return nn.LogicallyPartitioned(array, names) if names else array
