"""`RNNCell`, the base class of cells: sizes, zero states, binding."""

import abc
import dataclasses
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NoReturn

import jax
import jax.numpy as jnp

from .._base.arguments import as_axis_size, as_dtype, check_given
from .._base.cell_keys import check_key
from .._base.errors import describe
from .._base.math import in_native_order
from .._base.trees import map_sizes, named_leaves
from .._base.typing import DType, Key, Params, PyTree, Shaped
from .._time.run import DeclinedError, Run
from .bound import BoundCell
from .constructor import hints_at_missing_params
from .hyperparameters import Hyperparameters


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class RNNCell(Hyperparameters, abc.ABC):
    """The hyper-parameters of one step: hashable, equal by value, without arrays.

    A custom cell is a `dataclass(frozen=True, eq=False)` that inherits from this class,
    equality included. It has `state_size` and `output_size` (fields or properties),
    `init` and `apply`. In rows without a step, of the whole run or of a segment, a cell
    is evaluated on zeros: it and its derivatives must be finite there.
    `jaxrnn.testing.check_cell` checks the laws that the drivers rely on.

    Attributes:
        state_size: The sizes of the state: an int, a `TensorShape` or a nest of those,
            without the batch axis.
        output_size: The sizes of the output, likewise.

    Source: `tf.compat.v1.nn.rnn_cell.RNNCell`.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        """Declines to inherit `apply_sequence` from a class with another `apply`.

        It would run the steps of that class.
        """
        super().__init_subclass__(**options)
        mro = cls.__mro__
        first = lambda name: next(i for i, c in enumerate(mro) if name in vars(c))
        known = getattr(mro[first("apply_sequence")], "apply", None)
        is_abstract = getattr(known, "__isabstractmethod__", False)
        if first("apply") < first("apply_sequence") and not is_abstract:
            cls.apply_sequence = _decline_custom_apply

    @property
    def is_random(self) -> bool | None:
        """Whether `apply` draws random numbers from its key; None where unknown.

        The modules of `jaxrnn.linen` and `jaxrnn.nnx` require a random stream only for
        cells that are random. If this is None, they trace one step to find out.
        """
        return None

    if TYPE_CHECKING:
        # Not abstract properties at run time: a cell may have them as fields.
        state_size = output_size = property(lambda self: None)

    @abc.abstractmethod
    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """New parameters.

        Args:
            key: A random key.
            inputs: One step of inputs, `[batch, depth]` or a nest, or its
                `jax.ShapeDtypeStruct`: only shapes and dtypes are read.
            dtype: The dtype of the parameters; by default the `dtype` of the cell or,
                if that is None, of the inputs.

        Returns:
            Nested dicts of arrays; those of built-in cells have TensorFlow's names.

        Raises:
            TypeError: If `key` is not a random key.
            ValueError: If `key` is an array of keys.
        """

    def start(self, params: Params, state: PyTree) -> PyTree:
        """The state before the first step, from the one that a driver was given.

        A driver calls it once a run for a state that has read-only parts, and later
        steps keep the structure of its result. By default the state is as it was given;
        attention computes the keys of its memory. A driver returns read-only parts of a
        state as they were given, and a run may start from the state that another
        returned, with other parameters.

        Args:
            params: Parameters as `init` returns them.
            state: The initial state, each leaf `[batch, ...]`.
        """
        return state

    @abc.abstractmethod
    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step, a pure function.

        Args:
            params: Parameters as `init` returns them.
            inputs: One step of inputs, each leaf `[batch, ...]`.
            state: A state of the structure of `state_size`, each leaf `[batch, ...]`.
            key: A random key for this step; None for a deterministic step. A cell
                around others passes them this key, or what `jax.random.split` or
                `fold_in` makes of it: masks that are drawn once a run stay those of
                the run.

        Returns:
            `(output, new_state)`; the state keeps its structure, shapes and dtypes.
        """

    def apply_sequence(self, params: Params, run: Run) -> tuple[PyTree, PyTree]:
        """All steps at once, with the values and gradients of a scan over `apply`.

        A driver calls this first, and scans `apply` if it raises `DeclinedError`, as it
        does here. A cell with nothing faster than the scan does not override it. It is
        not called for a subclass that overrides `apply` alone.

        Args:
            params: Parameters as `init` returns them.
            run: The inputs of all steps, the initial state, and which steps there are.

        Returns:
            `(outputs, state)`: the outputs of all steps along the same axis, zeros in
            rows that are not alive; the state after each row's last step. If
            `run.steps.returns_states`, the outputs are pairs `(output, new_state)` of
            all steps.

        Raises:
            DeclinedError: If this cell cannot run these steps at once; the message is
                the reason.
        """
        raise DeclinedError(f"{type(self).__name__} has no `apply_sequence`")

    @hints_at_missing_params
    def bind(self, params: Params, key: Key | None = None) -> BoundCell:
        """The cell together with its parameters, which is what drivers take.

        Args:
            params: Parameters as `init` returns them, or those of a checkpoint under
                the same names.
            key: The random key of one run, for cells that draw random numbers. None
                for a deterministic run.

        Raises:
            TypeError: If `key` is not a random key, or a hyper-parameter is not
                hashable.
            ValueError: If `key` is an array of keys.
        """
        name = type(self).__name__
        try:
            hash(self)
        except TypeError as error:
            raise TypeError(
                f"{name}: hyper-parameters must be hashable: {error}. Use tuples for "
                "lists, and put arrays into the parameters."
            ) from None
        if key is not None:
            check_key(name, key)
        return BoundCell(in_native_order(params), key, cell=self)

    if not TYPE_CHECKING:  # Type checkers report the call themselves.

        def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
            name = type(self).__name__
            raise TypeError(
                f"{name}: a cell must be bound before it is called, got an unbound "
                f"{name}. Call `cell.bind(params)(inputs, state)`, or "
                "`cell.apply(params, inputs, state)`; `cell.init` makes parameters."
            )

    def zero_state(self, batch_size: int, dtype: DType) -> PyTree:
        """A state of zeros, of the structure of `state_size`.

        Args:
            batch_size: The number of rows, an int or an integer scalar array.
            dtype: The dtype of every leaf.

        Returns:
            Each leaf `[batch_size, *size]`.

        Raises:
            TypeError: If `batch_size` is not an integer.
            ValueError: If it is None or negative.
        """
        rows, dtype = _as_batch_size(batch_size), as_dtype("zero_state", dtype)
        zeros = lambda shape: jnp.zeros((rows, *shape), dtype)
        return map_sizes(zeros, self.state_size)

    def get_initial_state(
        self,
        inputs: PyTree = None,
        batch_size: int | None = None,
        dtype: DType | None = None,
    ) -> PyTree:
        """The zero state, with batch size and dtype given or taken from `inputs`.

        Args:
            inputs: One step of inputs, each leaf `[batch, ...]`, or None.
            batch_size: The number of rows; if `inputs` are given, theirs or None.
            dtype: The dtype of the state; if `inputs` are given, theirs or None.

        Raises:
            TypeError: If `batch_size` is not an integer.
            ValueError: If the arguments disagree, or batch size or dtype is missing.
        """
        if inputs is not None:
            inputs = in_native_order(inputs)
            batch_size, dtype = _from_inputs(inputs, batch_size, dtype)
        if batch_size is None or dtype is None:
            raise ValueError(
                "get_initial_state: `inputs`, or both `batch_size` and `dtype`, must "
                f"be given, got batch_size={batch_size!r} and dtype={dtype!r}."
            )
        return self.zero_state(batch_size, dtype)


def _decline_custom_apply(self: RNNCell, params: Params, run: Run) -> NoReturn:
    """The `apply_sequence` of a cell that would inherit one of another `apply`."""
    raise DeclinedError(f"{type(self).__name__} has a custom `apply`")


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class BoundOnlyCell(RNNCell):
    """A cell around a module that was constructed with its parameters."""

    def init(self, key: Key, inputs: PyTree, dtype: DType = None) -> Params:
        """Refused: `as_cell` has bound the parameters.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "init: this cell has its parameters already, those that `as_cell` bound. "
            "Run it as it is: `jaxrnn.dynamic_rnn(as_cell(...), x, dtype=x.dtype)`."
        )


def scope_name(cell: RNNCell) -> str:
    """The name of a cell in profiles and checkpoints, which is TensorFlow's."""
    return getattr(cell, "name", None) or snake_case(type(cell).__name__)


def any_is_random(cells: Iterable[RNNCell]) -> bool | None:
    """Whether one of several cells is random; None if that is unknown."""
    declared = [cell.is_random for cell in cells]
    return True in declared or (None if None in declared else False)


def snake_case(name: str) -> str:
    """`BasicLSTMCell` -> `basic_lstm_cell`, as TensorFlow names layers."""
    words = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name)
    words = re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()
    return f"private{words}" if words.startswith("_") else words


def _as_batch_size(batch_size: Any) -> Any:
    """The batch size as an int; a symbolic dimension of `jax.export` unchanged."""
    fix = "It is the number of rows of the inputs."
    check_given("zero_state", "batch_size", batch_size, fix, what="known")
    fix = "Shapes are static under jit: pass `x.shape[0]`, or name `static_argnames`."
    return as_axis_size("zero_state", "batch_size", batch_size, fix)


def _from_inputs(inputs: PyTree, batch_size: Any, dtype: DType) -> tuple[int, DType]:
    """The batch size and dtype of `inputs`, if the arguments do not contradict them."""
    no_leaf: Any = ("inputs", None)
    name, leaf = next(named_leaves("inputs", inputs), no_leaf)
    caller = "get_initial_state"
    if not getattr(leaf, "shape", ()):
        raise ValueError(
            f"{caller}: `inputs` must be arrays [batch, ...], got {describe(inputs)}."
        )
    leaf_dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
    rows = leaf.shape[0] if batch_size is None else _as_batch_size(batch_size)
    given = leaf_dtype if dtype is None else as_dtype(caller, dtype)
    pairs = {"batch_size": (rows, leaf.shape[0]), "dtype": (given, leaf_dtype)}
    for argument, (value, of_inputs) in pairs.items():
        if value != of_inputs:
            raise ValueError(
                f"{caller}: `{argument}` must be that of `{name}`, {of_inputs}, got "
                f"{value}. Leave it out."
            )
    return leaf.shape[0], leaf_dtype
