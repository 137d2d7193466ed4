"""`RNNCell`, the base class of cells, `BoundCell` and `SpecsCell`."""

import abc
import contextlib
import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, Self, TypeVar, final

import jax
import jax.numpy as jnp

from .._base import cell_keys, trees
from .._base.arguments import (
    as_axis_size,
    as_count,
    as_dtype,
    check_given,
    check_instance,
    check_rank,
)
from .._base.cell_keys import check_key, check_key_or_none
from .._base.errors import Verbatim, describe_leaves, error_note, expect, is_array
from .._base.inputs import named_inputs
from .._base.math import in_native_order
from .._base.trees import is_pytree_of_arrays
from .._base.typing import (
    Array,
    AxisSize,
    Bound,
    DType,
    Key,
    Output,
    Params,
    PyTree,
    Shaped,
    Size,
    State,
)
from .._run.loops import registered_choice
from .._run.run import Choice, Run
from . import fields, step_checks
from .fields import Hyperparameters, snake_case
from .params import Specs, make_params

CellT = TypeVar("CellT", covariant=True)


class Applies(Protocol[Output, State]):
    """A cell whose `apply` declares the types of a bound cell's outputs and states."""

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[Output, State]: ...


@final
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class BoundCell(Bound, Generic[CellT]):
    """A pytree that holds a cell and its parameters, called like a TensorFlow cell.

    The leaves are the parameters (and the key if there is one); the cell is static. You
    can therefore pass a bound cell to `jax.jit`, `jax.vmap` and `jax.tree.map` and, if
    it has no key, to `jax.grad` and `optax`. Bound cells whose cells are equal share
    one compilation. Create a bound cell with `cell.bind(params, key)`.

    Attributes:
        cell: The unbound cell, which holds the hyperparameters.
        params: Nested dicts of arrays, as `cell.init` returns them.
        key: The random key of one run, or None for a deterministic run. Keys have no
            gradient, so differentiate with respect to `params` and call `bind` inside
            the loss function.
    """

    params: Params
    key: Key | None = None
    cell: CellT = dataclasses.field(metadata={"static": True}, kw_only=True)

    def __call__(
        self: "BoundCell[Applies[Output, State]]",
        inputs: PyTree,
        state: PyTree,
        scope: str | None = None,
    ) -> tuple[Output, State]:
        """Runs one step; returns `(output, new_state)`, each leaf `[batch, ...]`.

        Args:
            inputs: One step of inputs, `[batch, depth]` or a nest.
            state: A state with the structure of `state_size`.
            scope: A name for the step's operations in profiles.

        Raises:
            ValueError: If shapes do not match the cell or its parameters.
            TypeError: If structures or dtypes do not match the cell or its parameters,
                or `scope` is not a string.
        """
        if scope is None:
            return self.cell.apply(self.params, inputs, state, key=self.key)
        fix = "To bind a random key, call `cell.bind(params, key)`."
        check_instance("scope", scope, str, "a string", fix)
        with jax.named_scope(scope):
            return self(inputs, state)

    def start(self: "BoundCell[RNNCell]", state: PyTree) -> PyTree:
        """Prepares `state` for the first step; see `RNNCell.start`."""
        return self.cell.start(self.params, state)

    @property
    def shares_programs(self) -> bool:
        """Whether calls outside of jit with equal cells share compiled programs.

        The calls share programs if the cell is built in and its functions, except
        initializers, come from JAX or jaxrnn. Other functions may read variables that
        change.
        """
        return is_pytree_of_arrays(self) and fields.is_constant(self.cell)

    def __repr__(self) -> str:
        key = "" if self.key is None else ", key=..."
        return f"BoundCell({self.cell!r}, params={describe_leaves(self.params)}{key})"

    def at_step(self, t: Array) -> "BoundCell[CellT]":
        """Returns the cell with the random key that `dynamic_rnn` uses at step `t`.

        Call `cell.at_step(t)(inputs, state)` to run step t alone with the random
        numbers that a run over all steps draws at this step. Do not pass the returned
        cell to `dynamic_rnn`, which would count its steps from 0.

        Raises:
            TypeError: If `t` is neither an integer nor an integer scalar array.
            ValueError: If `t` is an int outside `[0, 2**31)`.
        """
        is_scalar = is_array(t) and not t.shape and jnp.issubdtype(t.dtype, jnp.integer)
        if not is_scalar:
            as_count("t", t, 0, "Pass the index of one step, which jit may trace.")
        return dataclasses.replace(self, key=cell_keys.at_step(self.key, t))

    @property
    def state_size(self: "BoundCell[RNNCell]") -> Size:
        """The sizes of the state's leaves, without the batch axis."""
        return self.cell.state_size

    @property
    def output_size(self: "BoundCell[RNNCell]") -> Size:
        """The sizes of the output's leaves, without the batch axis."""
        return self.cell.output_size

    def zero_state(
        self: "BoundCell[RNNCell[State]]", batch_size: int, dtype: DType
    ) -> State:
        """A state of zeros, each leaf `[batch_size, ...]` with dtype `dtype`.

        Raises:
            TypeError: See `RNNCell.zero_state`.
            ValueError: See `RNNCell.zero_state`.
        """
        return self.cell.zero_state(batch_size, dtype)

    @property
    def rows_interact(self: "BoundCell[RNNCell]") -> bool:
        """See `RNNCell.rows_interact`."""
        return self.cell.rows_interact

    def get_initial_state(
        self: "BoundCell[RNNCell[State]]",
        inputs: PyTree = None,
        batch_size: int | None = None,
        dtype: DType | None = None,
    ) -> State:
        """The zero state for `inputs`, or for a `batch_size` and a `dtype`.

        Raises:
            TypeError: See `RNNCell.get_initial_state`.
            ValueError: See `RNNCell.get_initial_state`.
        """
        return self.cell.get_initial_state(inputs, batch_size, dtype)


@fields.dataclass
class RNNCell(Hyperparameters, abc.ABC, Generic[State]):
    """A recurrent cell, defined by hashable hyperparameters and compared by value.

    A cell holds no arrays. Define a custom cell as a `dataclass(frozen=True, eq=False)`
    that inherits from this class; equality is inherited too. A cell needs `state_size`
    and `output_size` (fields or properties), `init` and `apply`. For a row without
    steps, such as a row of length 0, the cell may be evaluated on inputs of zeros. The
    cell's results and derivatives must therefore be finite for zeros.
    `jaxrnn.testing.check_cell` tests whether a cell has the properties that
    `dynamic_rnn` relies on.

    Attributes:
        state_size: The sizes of the state: an int, a `TensorShape`, or a nest of ints
            and shapes, without the batch axis.
        output_size: The sizes of the output, in the same form as `state_size`.

    Other Parameters:
        name: A field of most built-in cells: the name of the step in profiles. Default:
            the name of the class.
        dtype: A field of most built-in cells: the required dtype of parameters and
            inputs. If None, the cell accepts every floating-point dtype.
        reuse: Accepted for compatibility with TensorFlow, but ignored.
        input_size: Accepted for compatibility with TensorFlow, but ignored.
        num_unit_shards: Accepted for compatibility with TensorFlow, but ignored.
        num_proj_shards: Accepted for compatibility with TensorFlow, but ignored.

    Example:
        All built-in cells run in the same way.

        >>> import jax, jax.numpy as jnp, jaxrnn
        >>> x = jnp.ones((3, 5, 8))  # [batch, time, depth]
        >>> cell = jaxrnn.GRUCell(16)
        >>> params = cell.init(jax.random.key(0), x[:, 0])
        >>> outputs, state = jaxrnn.dynamic_rnn(
        ...     cell.bind(params), x, sequence_length=[5, 2, 0], dtype=x.dtype
        ... )
        >>> outputs.shape, state.shape
        ((3, 5, 16), (3, 16))

    Source: `tf.compat.v1.nn.rnn_cell.RNNCell`.
    """

    def __init_subclass__(cls, **options: object) -> None:
        """Raises TypeError if the class overrides a method that is never called."""
        super().__init_subclass__(**options)
        for used, names in _BYPASSED_BY.items():
            check_overrides(cls, names, used, RNNCell, _FIX_OF_OVERRIDES)

    @property
    def is_random(self) -> bool | None:
        """Whether `apply` draws random numbers from its key; None if not declared.

        The modules of `jaxrnn.linen` and `jaxrnn.nnx` require a random stream for a
        cell that declares True, and draw no key for a cell that declares False. A cell
        that declares nothing gets a key if the module has a stream, and runs without a
        key otherwise. A custom cell should define this property.
        """
        return None

    @property
    def rows_interact(self) -> bool:
        """Whether a row's results depend on other rows of the batch; by default, False.

        For example, a cell may average the states of all rows, which are the agents of
        a scene. A custom cell whose rows interact should define `rows_interact = True`.
        `dynamic_rnn` then scans the cell step by step. As in TensorFlow, each step
        includes the finished and masked rows: the cell reads zeros as their inputs, and
        the state that they keep. With a `mask`, all rows are at the same step, so the
        numbering of random keys includes masked steps.
        """
        return False

    if TYPE_CHECKING:
        # Type checkers need these declarations. At run time, the base class defines no
        # sizes, because a cell may define them as fields.
        state_size = output_size = property(lambda self: None)

    @abc.abstractmethod
    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """Creates parameters.

        Args:
            key: A random key.
            inputs: One step of inputs, `[batch, depth]` or a nest. Only shapes and
                dtypes are read, so `jax.ShapeDtypeStruct`s are accepted.
            dtype: The dtype of the parameters. Default: the cell's `dtype`, or the
                dtype of the inputs if the cell has no `dtype`.

        Returns:
            Nested dicts of arrays. Built-in cells use TensorFlow's names.

        Raises:
            TypeError: If `key` is not a random key.
            ValueError: If `key` is an array of keys.
        """

    def start(self, params: Params, state: PyTree) -> PyTree:
        """Prepares the initial state for the first step; the default changes nothing.

        `dynamic_rnn` calls this method once per run if the state has read-only parts;
        see `jaxrnn.extend.ReadOnly`. For example, an attention wrapper computes the
        keys of its memory in this method. Every step must keep the structure of the
        returned state. The final state of `dynamic_rnn` holds the read-only parts as
        the caller passed them, and can therefore start a run with other parameters.

        Args:
            params: Parameters as `init` returns them.
            state: The initial state, each leaf `[batch, ...]`.
        """
        return state

    def _check_values(self, inputs: PyTree) -> None:
        """Checks the values of the inputs of all steps; the default does nothing.

        `dynamic_rnn` calls this method before a run. Under `jit`, the inputs may be
        traced.
        """
        del inputs

    @abc.abstractmethod
    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, State]:
        """Runs one step as a pure function.

        Args:
            params: Parameters as `init` returns them.
            inputs: One step of inputs, each leaf `[batch, ...]`.
            state: A state with the structure of `state_size`, leaves `[batch, ...]`.
            key: A random key for this step. If None, the step is deterministic. A
                wrapper must pass its cells this key, or keys that `jax.random.split` or
                `fold_in` derive from the key. Otherwise, dropout masks that are drawn
                once per run would change from step to step.

        Returns:
            `(output, new_state)`; the state keeps its structure, shapes and dtypes.
        """

    def choose_loop(self, params: Params, run: Run) -> Choice:
        """Chooses the loop that runs all steps, before anything is traced.

        The default is the loop that is registered for the class of the cell
        (`_run/loops.py`) or, if there is none, a scan of `apply`. Override this method
        if the cell can run a sequence faster, and return a `jaxrnn.extend.Choice` with
        a function `loop(params, run)`. The results and gradients of this function must
        match a scan of `apply`.

        Args:
            params: Parameters as `init` returns them; only types are read.
            run: The run; only types are read.
        """
        return registered_choice(self, params, run)

    def bind(self, params: Params, key: Key | None = None) -> BoundCell[Self]:
        """Binds the cell to its parameters, as `dynamic_rnn` requires.

        Args:
            params: Parameters as `init` returns them, or loaded from a checkpoint with
                the same names. JAX copies NumPy arrays to the device in each call;
                `jax.device_put(params)` copies them once.
            key: The random key of one run, for cells that draw random numbers. If None,
                the run is deterministic.

        Raises:
            TypeError: If `key` is not a random key, or a hyperparameter is not
                hashable.
            ValueError: If `key` is an array of keys.
        """
        fix = "Use tuples instead of lists, and put arrays into the parameters."
        with error_note(f"A cell's hyperparameters must be hashable. {fix}"):
            hash(self)
        if key is not None:
            check_key(key)
        return BoundCell(in_native_order(params), key, cell=self)

    if not TYPE_CHECKING:  # Type checkers should report a call of an unbound cell.

        def __call__(self, *args: object, **kwargs: object) -> NoReturn:
            name = type(self).__name__
            raise TypeError(
                f"a cell must be bound before it is called, got an unbound {name}. "
                "Call `cell.bind(params)(inputs, state)` with the parameters from "
                "`cell.init`."
            )

    def zero_state(self, batch_size: int, dtype: DType) -> State:
        """A state of zeros with the structure of `state_size`.

        Args:
            batch_size: The number of rows, an int or an integer scalar array.
            dtype: The dtype of every leaf.

        Returns:
            The state, each leaf `[batch_size, *size]`.

        Raises:
            TypeError: If `batch_size` is not an integer.
            ValueError: If `batch_size` is None or negative.
        """
        rows = as_batch_size(batch_size)
        dtype = as_dtype(dtype)

        def zeros(shape: tuple[int, ...]) -> Array:
            return jnp.zeros((rows, *shape), dtype)

        return trees.map_sizes(zeros, self.state_size, "state_size")

    starts_from_zeros = property(
        lambda self: False,
        doc="Whether `zero_state` always returns zeros, which makes some loops "
        "faster. Default: False.",
    )

    def get_initial_state(
        self,
        inputs: PyTree = None,
        batch_size: int | None = None,
        dtype: DType | None = None,
    ) -> State:
        """Returns the zero state for `inputs`, or for a batch size and a dtype.

        Args:
            inputs: One step of inputs, each leaf `[batch, ...]`, or None.
            batch_size: The number of rows. With `inputs`, omit this argument or pass
                the number of their rows.
            dtype: The dtype of the state. With `inputs`, omit this argument or pass the
                dtype of their first leaf.

        Raises:
            TypeError: If `batch_size` is not an integer.
            ValueError: If the arguments disagree, or if the batch size or the dtype is
                missing.
        """
        if inputs is not None:
            name, first = named_inputs(in_native_order(inputs))[0]
            check_rank(name, first, 1, "[batch, ...]")
            found = first.shape[0], jax.dtypes.canonicalize_dtype(first.dtype)
            batch_size = found[0] if batch_size is None else as_batch_size(batch_size)
            dtype = found[1] if dtype is None else as_dtype(dtype)
            must = f"be {found[0]} as in `{name}`"
            expect(batch_size == found[0], "batch_size", must, batch_size)
            must = f"be {found[1]} as in `{name}`"
            expect(dtype == found[1], "dtype", must, Verbatim(dtype))
        fix = "Pass `inputs`, or `batch_size` and `dtype`."
        batch_size = check_given("batch_size", batch_size, fix)
        dtype = check_given("dtype", dtype, fix)
        return self.zero_state(batch_size, dtype)


# Maps a method to the methods that it replaces. If a class inherits the first method
# and overrides only the others, the override has no effect.
_BYPASSED_BY = {
    "choose_loop": ("apply", "step"),
    "apply": ("call", "__call__"),
    "starts_from_zeros": ("zero_state", "get_initial_state"),
}


_FIX_OF_OVERRIDES = (
    "Derive the class from `jaxrnn.RNNCell` instead, and define `init` and `apply`. "
    "To extend another cell, hold that cell in a field, and call its `init` and "
    "`apply`."
)


def check_overrides(
    cls: type, names: tuple[str, ...], bypass: str, root: type, fix: str
) -> None:
    """Raises TypeError if `cls` overrides one of `names`, but inherits `bypass`.

    The method `bypass` replaces the methods `names`. The class `root` defines a default
    of `bypass` that calls these methods, so `cls` may inherit this default.
    """
    mro = cls.__mro__
    owner = next(base for base in mro if any(name in vars(base) for name in names))
    definer = next(base for base in mro[mro.index(owner) :] if bypass in vars(base))
    if definer in (owner, root):
        return
    name = next(name for name in names if name in vars(owner))
    raise TypeError(
        f"{cls.__name__} defines `{name}`, but `{bypass}` of {definer.__name__} does "
        f"not use it. {fix} Or also define `{bypass}`."
    )


class SpecsCell(RNNCell[State]):
    """A cell defined by `param_specs` and `step`, without random numbers.

    `init` and `apply` are derived from these two methods. `init` and `apply` check that
    the inputs of a step are `[batch, depth]`, and `apply` also checks that the state
    and the parameters match the cell. The inputs and the parameters must share one
    dtype. If the cell has a `dtype` that is not None, the inputs and the parameters
    must have this dtype. The state may have a wider dtype.
    """

    feature_axes: int | None = 1  # Modules treat all other axes as batch and time axes.
    starts_from_zeros = property(lambda self: True)

    @abc.abstractmethod
    def param_specs(self, depth: int) -> Specs:
        """Nested dicts of `ParamSpec`s for inputs of size `depth`."""

    def step(self, params: Params, inputs: Array, state: PyTree) -> tuple[Array, State]:
        """Runs one step with checked arguments; `apply` calls this method.

        Args:
            params: Parameters with the names and shapes of `param_specs`.
            inputs: One step of inputs, `[batch, depth]`.
            state: The state in the structure of `state_size`, leaves `[batch, ...]`.

        Returns:
            `(output, new_state)`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no `step`")

    @property
    def is_random(self) -> bool | None:
        """False, because a step draws no random numbers."""
        return False

    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """Creates parameters for inputs `[batch, depth]`; see `RNNCell.init`.

        Raises:
            ValueError: If `inputs` do not have rank 2, the cell does not support their
                depth, the dtype is not floating-point, or `key` is an array of keys.
            TypeError: If `key` is not a random key, `dtype` is an array, or an
                initializer does not return an array of the requested shape.
        """
        check_key(key)
        first = jax.tree.leaves(self.step_inputs(inputs))[0]
        dtype = param_dtype(self, first, dtype)
        return make_params(self.param_specs(first.shape[-1]), key, dtype)

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[Array, State]:
        """Runs one step; see `RNNCell.apply`. The step draws no random numbers.

        Raises:
            ValueError: If a shape or a parameter name does not match the cell and the
                inputs.
            TypeError: If a dtype or the type of the state does not match the cell and
                the inputs.
        """
        inputs, state = self.checked_step(params, inputs, state, key)
        with jax.named_scope(scope_name(self)):
            return self.step(params, inputs, state)

    def step_inputs(self, inputs: PyTree) -> PyTree:
        """Checks and returns the inputs of a step, by default `[batch, depth]`.

        If the result is a nest, no parameter's shape may depend on the depth, and the
        state's dtype must be at least as wide as the dtype of the widest leaf.
        """
        return step_checks.check_step_inputs(inputs)

    def checked_step(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None
    ) -> tuple[Array, PyTree]:
        """Checks a step's arguments; returns its inputs and state as arrays.

        The state is returned in the structure of `state_size`.

        Raises:
            ValueError: If a shape or a parameter name does not match the cell and the
                inputs.
            TypeError: If a dtype or the type of the state does not match the cell and
                the inputs, or `key` is not a random key.
        """
        check_key_or_none(key)
        inputs = self.step_inputs(inputs)
        widest = max(jax.tree.leaves(inputs), key=lambda x: x.dtype.itemsize)
        own = getattr(self, "dtype", None) or widest.dtype
        must = f"have the dtype of the cell, {own}"
        fix = f"Cast the inputs, or create the cell with `dtype=jnp.{widest.dtype}`."
        expect(widest.dtype == own, "inputs", must, inputs, fix, error=TypeError)
        # Check the parameters before the state, because a common mistake is to pass
        # inputs whose dtype differs from the dtype of the parameters.
        note = "With `project_inputs=False`, the kernels have no rows for the inputs."
        is_added = not getattr(self, "project_inputs", True)
        with error_note(note) if is_added else contextlib.nullcontext():
            step_checks.check_params(params, self.param_specs, inputs)
        return inputs, step_checks.check_state(state, self.state_size, widest)


def param_dtype(cell: RNNCell, inputs: Shaped, dtype: DType) -> DType:
    """Returns the first of `dtype`, `cell.dtype` and `inputs.dtype` that is not None.

    Raises:
        ValueError: If the dtype is not floating-point.
    """
    of_inputs = jax.dtypes.canonicalize_dtype(inputs.dtype)
    if dtype is None:
        dtype = getattr(cell, "dtype", None) or of_inputs
    dtype = as_dtype(dtype)
    step_checks.check_floating("dtype", dtype)
    return dtype


def scope_name(cell: RNNCell) -> str:
    """The name of `cell` in profiles and checkpoints, as in TensorFlow."""
    return getattr(cell, "name", None) or snake_case(type(cell).__name__)


def check_rnn_cell(name: str, cell: object) -> Any:
    """Returns `cell`; raises TypeError for an object that is not an `RNNCell`.

    The error refers to the cell as `name`.
    """
    if isinstance(cell, BoundCell):
        fix = f"Pass the unbound `{name}.cell`, and bind the outer cell."
    elif isinstance(cell, type) and issubclass(cell, RNNCell):
        fix = "Pass an object of the class."
    else:
        fix = (
            "Create a cell from a function with `FunctionCell`, from several cells "
            "with `MultiRNNCell`, and from a Flax cell with `jaxrnn.linen.as_cell` or "
            "`jaxrnn.nnx.as_cell`."
        )
    what = "an RNNCell, such as `jaxrnn.LSTMCell(8)`"
    return check_instance(name, cell, RNNCell, what, fix)


def any_is_random(cells: Iterable[RNNCell]) -> bool | None:
    """Whether any of the cells is random; None if unknown."""
    declared = [cell.is_random for cell in cells]
    return True in declared or (None if None in declared else False)


def as_batch_size(batch_size: AxisSize) -> AxisSize:
    """The batch size as an int, or a symbolic dimension of `jax.export`."""
    fix = "Pass the number of rows of the inputs, such as `x.shape[0]`. If the "
    fix += "number is an argument of a function under jit, name the argument in "
    fix += "`static_argnames`."
    check_given("batch_size", batch_size, fix)
    return as_axis_size("batch_size", batch_size, fix)
