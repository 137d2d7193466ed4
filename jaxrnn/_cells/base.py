"""What every cell has: sizes, zero states, binding."""

import abc
import copy
import dataclasses
import re
import types
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import as_dtype
from .._base.errors import describe, is_array
from .._base.keys import check_key
from .._base.trees import as_typed, map_sizes, named_leaves
from .._base.typing import Array, DType, Key, Params, PyTree, Shaped, Size
from .._time.sequence import DeclinedError
from .._time.steps import Steps
from .activations import ACTIVATIONS
from .bound import BoundCell


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class RNNCell(abc.ABC):
    """The hyper-parameters of one step: hashable, equal by value, without arrays.

    A cell of your own is a `dataclass(frozen=True, eq=False)` over this class, which
    has the equality that is needed. It has `state_size` and `output_size` (fields or
    properties), `init` and `apply`, and is finite at zeros, with its derivatives: those
    are what a row of length 0 sees. `jaxrnn.testing.check_cell` holds it to the laws
    that the drivers rely on.

    Attributes:
        state_size: The sizes of the state: an int, a `TensorShape` or a nest of those,
            without the batch axis.
        output_size: The sizes of the output, likewise.
        holds_cells: Whether `apply` passes its key on to cells of its own. Such a cell
            gets the keys of the run and of the step; any other a plain key.

    Source: `tf.compat.v1.nn.rnn_cell.RNNCell`.
    """

    holds_cells = False

    @property
    def is_random(self) -> bool | None:
        """Whether `apply` draws random numbers from its key; None where unknown.

        The modules of `jaxrnn.linen` and `jaxrnn.nnx` require a random stream only for
        cells that are random. Of a cell that declares nothing they trace a step.
        """
        return None

    if TYPE_CHECKING:
        # Not abstract properties at run time: a cell may have them as fields.
        @property
        def state_size(self) -> Size:
            """An int, a `TensorShape` or a nest of those, without the batch axis."""

        @property
        def output_size(self) -> Size:
            """An int, a `TensorShape` or a nest of those, without the batch axis."""

    # Functions of this package are pickled by name: files then hold no private module.
    def __getstate__(self) -> tuple[dict[str, Any], dict[str, str]]:
        named = {
            field: value.__name__
            for field, value in vars(self).items()
            if isinstance(value, types.FunctionType)
            and ACTIVATIONS.get(value.__name__) is value
        }
        rest = {k: v for k, v in vars(self).items() if k not in named}
        return rest, named

    def __setstate__(self, state: tuple[dict[str, Any], dict[str, str]]) -> None:
        rest, named = state
        vars(self).update(rest, **{k: ACTIVATIONS[name] for k, name in named.items()})

    @abc.abstractmethod
    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """Fresh parameters.

        Args:
            key: A random key.
            inputs: One step of inputs, `[batch, depth]` or a nest, or its
                `jax.ShapeDtypeStruct`: only shapes and dtypes are read.
            dtype: The dtype of the parameters; by default the cell's own, else that of
                the inputs.
        """

    @abc.abstractmethod
    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step, a pure function.

        Args:
            params: Parameters as `init` makes them.
            inputs: One step of inputs, each leaf `[batch, ...]`.
            state: A state of the structure of `state_size`, each leaf `[batch, ...]`.
            key: A random key for this step; None for a deterministic step.

        Returns:
            `(output, new_state)`; the state keeps its structure, shapes and dtypes.
        """

    def apply_sequence(
        self,
        params: Params,
        inputs: PyTree,
        state: PyTree,
        steps: Steps,
        keys: Callable[[Array], Any] | None = None,
        implementation: Any = None,
    ) -> tuple[PyTree, PyTree]:
        """All steps at once, with the values and gradients of a scan over `apply`.

        A driver calls this first, and scans `apply` if it raises `DeclinedError`, as it
        does here: a cell with nothing faster than the scan does not override it.

        Args:
            params: Parameters as `init` makes them.
            inputs: All steps of inputs, each leaf `[batch, time, ...]`, or
                `[time, batch, ...]` if `steps.axis` is 0.
            state: The initial state, each leaf `[batch, ...]`.
            steps: Which steps there are, and which rows are alive in them.
            keys: `keys(t)` is the random key of step t; None for a deterministic run.
            implementation: What runs the loop of an `AffineCell`, as a driver's
                argument `implementation` names it; None for XLA. A cell around others
                passes it on; any other need not look at it.

        Returns:
            `(outputs, state)`: the outputs of all steps along the same axis, zeros in
            rows that are not alive; the state after each row's last step. If
            `steps.restarts` is not None, each row holds several sequences and the
            outputs are pairs `(output, new_state)` of all steps.

        Raises:
            DeclinedError: If this cell cannot run these steps at once; the message is
                the reason.
        """
        raise DeclinedError(f"{type(self).__name__} has no `apply_sequence`")

    def bind(self, params: Params, key: Key | None = None) -> BoundCell:
        """The cell with its parameters: what a driver takes.

        Args:
            params: Parameters as `init` makes them, or a checkpoint's under the same
                names.
            key: The random key of one run, for cells that draw random numbers. None
                switches all noise off.

        Raises:
            TypeError: If `key` is no random key, or a hyper-parameter has no hash.
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
        return BoundCell(params, key, cell=self)

    def zero_state(self, batch_size: int, dtype: DType) -> PyTree:
        """Zeros of the structure of `state_size`.

        Args:
            batch_size: The number of rows, an int or an integer scalar array.
            dtype: The dtype of every leaf.

        Returns:
            Each leaf `[batch_size, *size]`.

        Raises:
            TypeError: If `batch_size` is no integer.
            ValueError: If it is None or negative.
        """
        batch, dtype = _batch_size(batch_size), as_dtype("zero_state", dtype)
        return map_sizes(
            lambda shape: jnp.zeros((batch, *shape), dtype), self.state_size
        )

    def get_initial_state(
        self,
        inputs: PyTree = None,
        batch_size: int | None = None,
        dtype: DType | None = None,
    ) -> PyTree:
        """The zero state, with batch size and dtype from `inputs` or as given.

        Args:
            inputs: One step of inputs, each leaf `[batch, ...]`, or None.
            batch_size: The number of rows; with `inputs` it must agree or be None.
            dtype: The dtype of the state; with `inputs` it must agree or be None.

        Raises:
            ValueError: If the arguments disagree or do not say enough.
        """
        if inputs is not None:
            batch_size, dtype = _from_inputs(inputs, batch_size, dtype)
        if batch_size is None or dtype is None:
            raise ValueError(
                "get_initial_state: `inputs`, or both `batch_size` and `dtype`, must "
                f"be given, got batch_size={batch_size!r} and dtype={dtype!r}."
            )
        return self.zero_state(batch_size, dtype)

    @cached_property
    def closes_over_arrays(self) -> bool:
        """Whether a function among the hyper-parameters does, or one of a cell held.

        Equal cells share a compilation. One that knew the arrays would keep them, and
        traced ones beyond their time, so that a driver compiles such a cell each time.
        """
        values = [getattr(self, name) for name in self._attributes()]
        return any(map(_closes_over_arrays, values))

    def __eq__(self, other: object) -> bool:
        """By class and value: equal cells share a compilation, so 1 is not True here.

        Also for a class that is no dataclass itself.
        """
        return type(self) is type(other) and self._value() == other._value()  # pyright: ignore[reportAttributeAccessIssue]

    def __hash__(self) -> int:
        return hash(self._value())

    def __deepcopy__(self, memo: dict) -> "RNNCell":
        # Another object, but of the same functions: copies of those would not be equal.
        memo[id(self)] = twin = copy.copy(self)
        return twin

    def _value(self) -> tuple:
        return tuple(
            (name, as_typed(getattr(self, name)))
            for name, field in self._attributes().items()
            if field is None or field.compare
        )

    def _attributes(self) -> dict[str, dataclasses.Field | None]:
        """The names of all hyper-parameters, with their fields where they have one."""
        found: dict[str, Any] = {f.name: f for f in dataclasses.fields(self)}
        for name in getattr(self, "__dict__", {}):
            cached = isinstance(getattr(type(self), name, None), cached_property)
            if not cached:
                found.setdefault(name, None)
        return found

    def __repr__(self) -> str:
        """The values that differ from their defaults; functions by their names."""
        shown = []
        for name, field in self._attributes().items():
            value = getattr(self, name)
            # Typed, as NumPy holds a dtype of float64 for equal to None.
            if field is None or (
                field.repr
                and field.compare
                and as_typed(value) != as_typed(field.default)
            ):
                shown.append(f"{name}={_short(value)}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def _scope(self) -> str:
        """TensorFlow's name of the cell in profiles and checkpoints: `lstm_cell`."""
        name = getattr(self, "name", None)
        return name or snake_case(type(self).__name__)


def _closes_over_arrays(value: Any) -> bool:
    if isinstance(value, RNNCell):
        return value.closes_over_arrays
    if isinstance(value, tuple | list):
        return any(map(_closes_over_arrays, value))
    cells = getattr(value, "__closure__", None) or ()
    contents = [c.cell_contents for c in cells if c != types.CellType()]
    return any(map(is_array, jax.tree.leaves(contents)))


def any_is_random(cells: Iterable[RNNCell]) -> bool | None:
    """Whether one of several cells is random; None where that is unknown."""
    declared = [cell.is_random for cell in cells]
    return True in declared or (None if None in declared else False)


def _short(value: Any) -> str:
    return getattr(value, "__name__", None) or repr(value)


def snake_case(name: str) -> str:
    """`BasicLSTMCell` -> `basic_lstm_cell`, as TensorFlow names layers."""
    name = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _batch_size(batch_size: Any) -> Any:
    batch_size = _as_batch_size(batch_size)
    if isinstance(batch_size, int) and batch_size < 0:
        raise ValueError(
            f"zero_state: `batch_size` must not be negative, got {batch_size}."
        )
    return batch_size


def _as_batch_size(batch_size: Any) -> Any:
    if isinstance(batch_size, jax.Array | np.ndarray | np.generic):
        if batch_size.ndim or not jnp.issubdtype(batch_size.dtype, jnp.integer):
            raise TypeError(
                "zero_state: `batch_size` must be an integer, got "
                f"{describe(batch_size)}. The number of rows of an array is "
                "`x.shape[0]`."
            )
        return int(batch_size)
    # A symbolic dimension of jax.export is neither int nor array, and is welcome.
    if batch_size is None:
        raise ValueError(
            "zero_state: `batch_size` must be known, got None. It is the number of "
            "rows of the inputs."
        )
    if isinstance(batch_size, bool | float | str | complex | tuple | list):
        raise TypeError(
            f"zero_state: `batch_size` must be an integer, got {describe(batch_size)}."
        )
    return batch_size


def _from_inputs(inputs: PyTree, batch_size: Any, dtype: DType) -> tuple[int, DType]:
    name, leaf = next(named_leaves("inputs", inputs), ("inputs", None))
    if leaf is None or not getattr(leaf, "shape", ()):
        raise ValueError(
            "get_initial_state: `inputs` must be arrays [batch, ...], got "
            f"{describe(inputs)}."
        )
    if batch_size is not None and batch_size != leaf.shape[0]:
        raise ValueError(
            f"get_initial_state: `batch_size` must be that of `{name}`, "
            f"{leaf.shape[0]}, got {batch_size}. Leave it out."
        )
    if dtype is not None and as_dtype("get_initial_state", dtype) != leaf.dtype:
        raise ValueError(
            f"get_initial_state: `dtype` must be that of `{name}`, {leaf.dtype}, got "
            f"{dtype}. Leave it out."
        )
    return leaf.shape[0], leaf.dtype
