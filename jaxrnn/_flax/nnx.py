"""Flax nnx modules that hold any jaxrnn cell."""

import dataclasses
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import as_count, check_instance
from .._base.cell_keys import run_key
from .._base.errors import error_note, expect
from .._base.hints import with_hints
from .._base.inputs import check_shaped, check_structure
from .._base.math import is_float
from .._base.modules import import_optional, set_module
from .._base.trees import TensorShape, named_leaves, with_structure
from .._base.typing import Array, DType, Key, Lengths, Params, PyTree, Size, State
from .._cells.base import BoundCell, RNNCell, check_rnn_cell
from . import modules, parameters
from .fields_module import FieldsModule
from .linear_attention.gated_deltanet import GatedDeltaNet
from .linear_attention.kda import KimiDeltaAttention
from .linear_attention.layer import PastInputsState
from .linear_attention.mamba import Mamba
from .linear_attention.mamba2 import Mamba2
from .linear_attention.rwkv7 import RWKV7TimeMix
from .modules import BoundCells, Cells, Merge, StateBw
from .parameters import AxisNames

if TYPE_CHECKING:
    from flax import nnx
else:
    nnx = import_optional("flax.nnx")

__all__ = [
    "RNN",
    "Bidirectional",
    "Cell",
    "GatedDeltaNet",
    "KimiDeltaAttention",
    "Mamba",
    "Mamba2",
    "PastInputsState",
    "RWKV7TimeMix",
    "StackBidirectional",
    "as_cell",
]

Rngs = nnx.Rngs | nnx.RngStream | jax.Array
# Flax 0.12.6 and older versions name this function `nnx.pure`.
as_pure = getattr(nnx, "as_pure", None) or nnx.pure


@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class Recurrent(modules.Recurrent[State], FieldsModule):
    """The base class of nnx modules: options, parameters, random stream and call.

    Subclasses add their cells and the constructor's argument `in_features`.
    """

    rngs: dataclasses.InitVar[nnx.Rngs]
    axis_names: dataclasses.InitVar[AxisNames | None] = None
    deterministic: bool | None = False

    if not TYPE_CHECKING:  # Type checkers read the overloads of the base class.
        __call__ = with_hints(modules.Recurrent.__call__)

    def __post_init__(  # pyright: ignore[reportGeneralTypeIssues]
        self, rngs: nnx.Rngs, axis_names: AxisNames | None, in_features: int | PyTree
    ) -> None:
        self.weights = make_params(self, in_features, rngs, axis_names)
        stream = self.rng_collection
        is_random = modules.are_random(self._cells())
        if is_random is None:  # `rngs[stream]` falls back to the stream "default".
            is_random = stream in rngs or "default" in rngs
        forked = rngs[stream].fork() if is_random else None
        self.rngs = nnx.data(forked)  # pyright: ignore[reportAttributeAccessIssue]

    def _params(self, inputs: PyTree, sequence_length: Lengths | None) -> Params:
        del inputs, sequence_length
        return as_pure(self.weights)

    def _draw_key(self, deterministic: bool | None, rngs: Rngs | None) -> Key | None:
        is_quiet = modules.flag("deterministic", deterministic, self.deterministic)
        if is_quiet or modules.are_random(self._cells()) is False:
            return None
        if rngs is not None:
            return draw_key(rngs, self.rng_collection)
        stream = vars(self)["rngs"]
        fix = "Pass `rngs=key`, or `is_random=False` to a cell without random numbers."
        with error_note(f"Raised by the module's random stream. {fix}"):
            return None if stream is None else stream()

    def set_view(self, deterministic: bool | None = None) -> None:
        """Sets `deterministic`, unless it is None; called by `nnx.view`."""
        if deterministic is not None:
            self.deterministic = deterministic

    def get_cells(self) -> BoundCells:
        """Returns the cells bound to the module's parameters, for `set_cells`."""
        return modules.bind_cells(self._cells(), as_pure(self.weights))

    def set_cells(self, *cells: BoundCells) -> None:
        """Copies the parameters of bound cells into the module.

        Args:
            *cells: A bound cell. For two directions, the forward cells and the backward
                cells, as two arguments or as one pair. Converters and `get_cells`
                return a pair.

        Raises:
            TypeError: If an argument is not a bound cell, or if a complex parameter
                would replace a real one.
            ValueError: If a bound cell is not the module's cell (wrappers such as
                dropout may differ), or if names or shapes of parameters differ.
        """
        own = as_pure(self.weights)
        params = parameters.params_of_cells(self._cells(), cells)
        fix = "Bind each cell to parameters from its `init` or from a converter."
        check_structure("`params`", own, params, strict=False, fix=fix)
        pairs = zip(named_leaves("params", own), jax.tree.leaves(params), strict=True)
        arrays = [parameters.in_place_of(name, old, new) for (name, old), new in pairs]
        # `nnx.update` expects dicts in place of lists. The order of the leaves is the
        # same.
        names = nnx.to_pure_dict(nnx.state(self.weights))
        nnx.update(self.weights, with_structure(names, arrays))


@with_hints
@dataclasses.dataclass(eq=False, repr=False)
class RNN(Recurrent[State]):
    """A jaxrnn cell that runs over sequences: `jaxrnn.dynamic_rnn` as a module.

    Args:
        cell: The cell, or a `MultiRNNCell` for several layers.
        in_features: The size of the inputs, an int or a nest of `TensorShape`s.
            Alternatively, one step of inputs, `[batch, ...]` or a nest, as arrays or
            `jax.ShapeDtypeStruct`s.
        reverse: Whether to run each row from its last valid step to its first.
        keep_order: Whether a reversed run returns its outputs in the order of the
            inputs. False, which is also Flax's default, returns the outputs in the
            order of computation: the output of a row's last step comes first.
        rngs: The streams for parameters and for random numbers.
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
        rng_collection: The name of the random stream, e.g. for dropout. The constructor
            forks this stream of `rngs` if a cell's `is_random` is True. If `is_random`
            is None, i.e. unknown, the constructor forks the stream if `rngs` has it or
            a default stream.
        deterministic: If True, calls draw no random numbers. `train()` and `eval()` set
            this attribute.

    Raises:
        TypeError: If an argument has the wrong type. Options that do not affect the
            parameters are checked in calls.
        ValueError: If `axis_names` does not match the parameters, or if `param_dtype`
            is not floating-point.
        KeyError: If a cell draws random numbers but `rngs` has no stream for them.

    Example:
        >>> import jax.numpy as jnp, jaxrnn, jaxrnn.nnx
        >>> from flax import nnx
        >>> rnn = jaxrnn.nnx.RNN(jaxrnn.LSTMCell(8), 3, rngs=nnx.Rngs(0))
        >>> rnn(jnp.ones((2, 5, 3), jnp.float32), [5, 3]).shape
        (2, 5, 8)
    """

    cell: RNNCell[State]
    in_features: dataclasses.InitVar[int | PyTree]
    reverse: bool = dataclasses.field(default=False, kw_only=True)
    keep_order: bool = dataclasses.field(default=False, kw_only=True)

    def _cells(self) -> Cells:
        return check_rnn_cell("cell", self.cell)


@with_hints
@dataclasses.dataclass(eq=False, repr=False)
class Bidirectional(Recurrent[tuple[State, StateBw]], Generic[State, StateBw]):
    """A forward and a backward cell: `jaxrnn.bidirectional_dynamic_rnn` as a module.

    The state is a pair `(state_fw, state_bw)`.

    Args:
        cell_fw: The forward cell.
        cell_bw: The backward cell, which has its own parameters.
        in_features: As in `RNN`.
        merge: `merge(outputs_fw, outputs_bw)` returns the outputs of the module. By
            default, both outputs are concatenated along the last axis.
        rngs: As in `RNN`. All other options are also as in `RNN`.
    """

    cell_fw: RNNCell[State]
    cell_bw: RNNCell[StateBw]
    in_features: dataclasses.InitVar[int | PyTree]
    merge: Merge = dataclasses.field(default=modules.concatenate, kw_only=True)

    def _cells(self) -> Cells:
        cell_fw = check_rnn_cell("cell_fw", self.cell_fw)
        return cell_fw, check_rnn_cell("cell_bw", self.cell_bw)


@with_hints
@dataclasses.dataclass(eq=False, repr=False)
class StackBidirectional(
    Recurrent[tuple[tuple[State, ...], tuple[StateBw, ...]]], Generic[State, StateBw]
):
    """Bidirectional layers: `jaxrnn.stack_bidirectional_dynamic_rnn` as a module.

    The state is a pair `(states_fw, states_bw)`. Each element of the pair holds one
    state for each layer, lowest layer first.

    Args:
        cells_fw: The forward cells, one for each layer, lowest layer first.
        cells_bw: The backward cells, in the same order.
        in_features: As in `RNN`.
        rngs: As in `RNN`. All other options are also as in `RNN`.
    """

    cells_fw: Sequence[RNNCell[State]]
    cells_bw: Sequence[RNNCell[StateBw]]
    in_features: dataclasses.InitVar[int | PyTree]

    def _cells(self) -> Cells:
        return modules.as_layers(self.cells_fw, self.cells_bw)


@dataclasses.dataclass(eq=False, repr=False)
class Cell(FieldsModule, nnx.RNNCellBase):
    """A jaxrnn cell as an nnx cell, for `nnx.RNN` and `nnx.Bidirectional`.

    A cell that draws random numbers raises an error, because Flax's RNN passes no key
    to each step. Use such cells in `jaxrnn.nnx.RNN`, which is usually faster and
    ignores padding.

    Args:
        cell: The cell, which must accept inputs `[batch, features]`.
        in_features: The size of the inputs.
        dtype: The dtype of the initial carry. Real inputs and parameters are cast to
            `dtype`. Complex arrays stay complex, in the precision of `dtype`. Default:
            `param_dtype`.
        param_dtype: The dtype of the parameters, real or complex floating-point.
        rngs: The streams for the parameters.

    Raises:
        TypeError: If `cell` is not an `RNNCell`. If `in_features` is not an int. If
            `rngs` is not `nnx.Rngs`.
        ValueError: If the cell draws random numbers, or if `in_features` is below 1.

    Example:
        >>> import jax.numpy as jnp, jaxrnn, jaxrnn.nnx
        >>> from flax import nnx
        >>> cell = jaxrnn.nnx.Cell(jaxrnn.LSTMCell(8), 3, rngs=nnx.Rngs(0))
        >>> nnx.RNN(cell)(jnp.ones((2, 5, 3), jnp.float32)).shape
        (2, 5, 8)
    """

    cell: RNNCell
    in_features: dataclasses.InitVar[int]
    _: dataclasses.KW_ONLY
    dtype: DType | None = None
    param_dtype: DType = jnp.float32
    rngs: dataclasses.InitVar[nnx.Rngs]

    def __post_init__(self, in_features: int, rngs: nnx.Rngs) -> None:
        self.weights = make_params(self, in_features, rngs)

    def _cells(self) -> Cells:
        return modules.check_no_noise(self.cell)

    @property
    def num_feature_axes(self) -> int:
        """Always 1, because the inputs of one row at one step are a vector."""
        return 1

    def __call__(self, carry: PyTree, inputs: Array) -> tuple[PyTree, PyTree]:
        """Runs one step; returns `(carry, output)`, each leaf `[*batch, ...]`.

        Args:
            carry: The cell's state, each leaf `[*batch, ...]`.
            inputs: `[*batch, features]`.
        """
        (params,) = as_pure(self.weights).values()
        return modules.run_step(self, params, carry, inputs)

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: Rngs | None = None,
        carry_init: nnx.Initializer | None = None,
    ) -> PyTree:
        """The initial state for inputs `[*batch, features]`, each leaf `[*batch, ...]`.

        Args:
            input_shape: The shape of the inputs.
            rngs: The source of keys for `carry_init`: `nnx.Rngs`, a stream or a key.
            carry_init: `carry_init(key, shape, dtype)`, for example an initializer from
                `jax.nn.initializers`, called for each floating-point leaf. Default:
                zeros.

        Raises:
            TypeError: If `carry_init` is given but `rngs` is not `nnx.Rngs`, a stream
                or a key.
        """
        state = modules.zero_carry(self, input_shape)
        if carry_init is None:
            return state
        leaves, tree = jax.tree.flatten(state)
        key = draw_key(rngs, "carry")
        keys = jax.random.split(key, len(leaves))
        return tree.unflatten(
            carry_init(key, x.shape, x.dtype) if is_float(x) else x
            for x, key in zip(leaves, keys, strict=True)
        )


def as_cell(
    module: nnx.Module,
    in_features: int | tuple[int, ...],
    broadcast_rngs: str | Sequence[str] = (),
) -> BoundCell:
    """Wraps an nnx cell, with its parameters, as a jaxrnn cell.

    The state is nnx's carry. By default, `dynamic_rnn` starts from zeros. If the module
    has a different initial carry, pass `initial_state=module.initialize_carry(...)`.

    Args:
        module: The cell: a callable module with `initialize_carry`.
        in_features: The size of the inputs, or their shape without the batch axis.
        broadcast_rngs: The names of random streams that give the same numbers at all
            steps of a run, e.g. for recurrent dropout, as in `nnx.RNN`.

    Returns:
        A bound cell, whose `params` are nested dicts of arrays. After training,
        `nnx.update(module, params)` writes new parameters back to the module. For
        dropout, bind a key with `cell.cell.bind(cell.params, key)`.

    Raises:
        TypeError: If `module` is not an nnx cell. If `in_features` is neither an int
            nor a tuple of ints. If a stream's name is not a string.
        ValueError: If `module` has variables other than parameters and streams, or if a
            size in `in_features` is below 1.

    Example:
        >>> import jax.numpy as jnp, jaxrnn, jaxrnn.nnx
        >>> from flax import nnx
        >>> cell = jaxrnn.nnx.as_cell(nnx.GRUCell(3, 8, rngs=nnx.Rngs(0)), 3)
        >>> x = jnp.ones((2, 5, 3), jnp.float32)
        >>> jaxrnn.dynamic_rnn(cell, x, dtype=jnp.float32)[0].shape
        (2, 5, 8)
    """
    must = "be a cell of nnx, such as nnx.LSTMCell, with a method `initialize_carry`"
    is_cell = isinstance(module, nnx.Module) and hasattr(module, "initialize_carry")
    is_own = isinstance(module, RNNCell)
    fix = "A cell of jaxrnn needs no conversion." if is_own else ""
    expect(is_cell, "module", must, module, fix, error=TypeError)
    is_one = isinstance(broadcast_rngs, str)
    names = (broadcast_rngs,) if is_one else tuple(broadcast_rngs)
    graph, params, streams, others = nnx.split(module, nnx.Param, nnx.RngState, ...)
    modules.check_no_variables(nnx.to_pure_dict(others))

    def step(shape: tuple[int, ...]) -> tuple[PyTree, PyTree]:
        copy: Any = nnx.merge(graph, params, streams, copy=True)
        carry = copy.initialize_carry(shape, nnx.Rngs(0))
        return copy(carry, jnp.zeros(shape, jnp.float32))

    variables = jax.tree.leaves(streams, is_leaf=lambda x: hasattr(x, "tag"))
    sources = tuple(
        ("run" if v.tag in names else "step")
        if isinstance(v, nnx.RngKey)
        else "counter"
        for v in variables
    )
    state_size, output_size = modules.sizes_of_cell(step, in_features)
    tree = jax.tree.structure(streams)
    cell = NnxCell(graph, tree, sources, state_size, output_size)
    return cell.bind(nnx.to_pure_dict(params))


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class NnxCell(RNNCell):
    """An nnx cell as a jaxrnn cell; `as_cell` binds it to the cell's parameters."""

    graph: Any
    streams: Any  # The structure of the module's random streams.
    # The kind of each leaf of the streams: "counter", "step" for a key that changes at
    # each step, or "run" for a key that is the same at all steps.
    sources: tuple[str, ...]
    state_size: Size
    output_size: Size

    starts_from_zeros = property(lambda self: True)

    def init(self, key: Key, inputs: PyTree, dtype: DType = None) -> Params:
        """Raises an error, because `as_cell` has already bound the parameters.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "A cell from `as_cell` has no `init`, because `as_cell` has already bound "
            "its parameters. Pass `bound = as_cell(...)` to `jaxrnn.dynamic_rnn`. In a "
            "stack, use `MultiRNNCell([bound.cell]).bind({'cell_0': bound.params})`."
        )

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """Runs one step, with random numbers from the key.

        Raises:
            ValueError: If the module draws random numbers and `key` is None.
        """
        own_key = jax.random.key(0) if key is None else key
        keys = {"step": own_key, "run": run_key(own_key)}
        leaves = [
            jax.random.fold_in(keys[source], i) if source in keys else jnp.uint32(0)
            for i, source in enumerate(self.sources)
        ]
        streams = jax.tree.unflatten(self.streams, leaves)
        module = nnx.merge(self.graph, nnx.State(params), streams, copy=True)
        counts = _counts(module)
        state, output = module(state, inputs)
        draws = any(map(operator.is_not, _counts(module), counts))
        must = "be given, because the module draws random numbers"
        fix = "Pass `cell.cell.bind(cell.params, key)`, or call `module.eval()` first."
        expect(key is not None or not draws, "key", must, None, fix)
        return output, state


def _counts(module: nnx.Module) -> list[Array]:
    """Returns the counters of the random streams. Each draw replaces one of them."""
    return jax.tree.leaves(nnx.state(module, nnx.RngCount))


def make_params(
    module: Any,
    in_features: PyTree,
    rngs: nnx.Rngs,
    axis_names: AxisNames | None = None,
) -> Params:
    """Creates the parameters of a module's cells, nested dicts of `nnx.Param`s.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `axis_names` does not match the parameters, or if a size is below
            1.
    """
    check_instance("rngs", rngs, nnx.Rngs, "nnx.Rngs, for example `nnx.Rngs(0)`")
    if isinstance(in_features, int | np.integer):
        size = as_count("in_features", in_features, fix="")
        in_features = jax.ShapeDtypeStruct((1, size), jnp.float32)
    in_features = jax.tree.map(_as_step_type, in_features)
    check_shaped("in_features", in_features, "Pass the size of the inputs.")
    cells, dtype = module._cells(), module.param_dtype
    names = modules.named_cells(cells)
    keys = zip(names, jax.random.split(rngs.params(), len(names)), strict=True)
    with error_note("Raised by the cell's `init`, for inputs as in `in_features`."):
        params = {
            name: parameters.init_part(cells, name, key, in_features, dtype)
            for name, key in keys
        }
    boxed = parameters.name_axes(axis_names, params, _as_param)
    parameters.check_axis_names(axis_names, params)
    return nnx.data(boxed)


def _as_step_type(x: object) -> Any:
    """Converts a `TensorShape` to the type of one row of inputs."""
    is_size = isinstance(x, TensorShape)
    return jax.ShapeDtypeStruct((1, *x), jnp.float32) if is_size else x


def _as_param(array: Array, names: tuple[str | None, ...]) -> nnx.Param:
    return nnx.Param(array, out_sharding=names) if names else nnx.Param(array)


def draw_key(rngs: Rngs | None, stream: str) -> Key:
    """The next key of the stream, or `rngs` itself if it is a key."""
    source = check_instance("rngs", rngs, Rngs, "nnx.Rngs, a stream or a key")
    source = source[stream] if isinstance(source, nnx.Rngs) else source
    return source() if isinstance(source, nnx.RngStream) else source


set_module(__name__)
