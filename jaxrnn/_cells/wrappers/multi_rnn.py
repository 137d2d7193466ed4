"""`MultiRNNCell`, a stack of cells, and the wrapper of functions between the cells."""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, final

import jax
import jax.numpy as jnp

from ..._base.arguments import check_function, check_instance, has_shape, is_list_of
from ..._base.cell_keys import check_key, check_key_or_none, fold_in
from ..._base.errors import (
    EntryError,
    Verbatim,
    describe_leaves,
    error_note,
    expect,
    name_of,
    warn,
)
from ..._base.inputs import as_like, warn_of_plain_pair
from ..._base.trees import map_named, output_of, types_of_size, with_tuples_of
from ..._base.typing import DType, Key, Params, PyTree, Shaped, Size, State
from .. import fields
from ..base import RNNCell, any_is_random, check_rnn_cell
from ..composed import ComposedCell
from ..function import size_of
from .base import MappedOutput, vector_size


def _as_output_fn(name: str, value: Any) -> Any:
    """Returns the function; raises TypeError unless JAX's caches can hold it.

    The caches hold weak references to functions. Objects such as
    `operator.itemgetter(0)` do not support weak references.
    """
    check_function(name, value)
    fits = type(value).__weakrefoffset__ and isinstance(value, Hashable)
    must = "be a hashable function that supports weak references, as JAX requires"
    fix = "Define a function that calls this object."
    expect(fits, name, must, value, fix, error=TypeError)
    return value


@final
@fields.dataclass
class OutputFunctionWrapper(MappedOutput[State]):
    """Maps the output of a cell by a function; the new state is unaffected.

    The cell runs in its own loop, and the function then maps the outputs of all steps.
    `MultiRNNCell` puts this wrapper around a cell if a function follows in its list.

    Attributes:
        cell: The wrapped cell.
        output_fn: `output_fn(output)`, a function of the output of one step, each leaf
            `[batch, ...]`. The function must treat each row separately, and return
            arrays `[batch, ...]`. Its result and its derivative must be finite for
            zeros, which it may receive for a row of length 0. Functions are compared by
            identity, so JAX compiles again for each new `lambda`.

    Raises:
        TypeError: If `cell` is not an RNNCell, or `output_fn` is not a function.

    Source: functions in Haiku's `DeepRNN`.
    """

    output_fn: Callable[[PyTree], PyTree] = fields.checked(_as_output_fn)

    @property
    def output_size(self) -> Size:
        """The size of the mapped output."""
        output = types_of_size(self.cell.output_size, 1, jnp.float32, "output_size")
        with jax.numpy_dtype_promotion("standard"):  # Only the shapes are read.
            mapped = jax.eval_shape(self.output_fn, output)
        return map_named("output", size_of, self._checked(mapped, None))

    def map_output(self, inputs: PyTree, output: PyTree) -> PyTree:
        """The mapped output.

        Raises:
            ValueError: If the function returns None or a scalar, or changes the number
                of rows.
        """
        rows = jax.tree.leaves(output)[0].shape[0]
        return self._checked(self.output_fn(output), rows)

    def _checked(self, mapped: PyTree, rows: int | None) -> PyTree:
        """Returns the checked result of the function; rows=None allows any number."""
        leaves = jax.tree.leaves(mapped, is_leaf=lambda leaf: leaf is None)
        fits = all(x is not None and has_shape(x, (rows, ...)) for x in leaves)
        axes = f"[{'batch' if rows is None else rows}, ...]"
        must = f"return arrays {axes} for the output of `{self.cell!r}`"
        got = Verbatim(describe_leaves(mapped))
        expect(fits, name_of(self.output_fn), must, got)
        return mapped


def _as_cells(name: str, value: Sequence[object]) -> tuple[RNNCell, ...]:
    """The cells; a function becomes a wrapper of the cell before it."""
    check_instance(name, value, tuple | list, "a list or tuple")
    expect(value, name, "hold at least one cell", value)
    cells: list[RNNCell] = []
    for i, each in enumerate(value):
        # Modules and bound cells can be called too, but are pytrees or dataclasses.
        is_leaf = jax.tree_util.all_leaves([each])
        if callable(each) and is_leaf and not dataclasses.is_dataclass(each):
            fix = (
                "A function maps the output of the cell before it in the list. To map "
                "the inputs of the stack, call the function before the stack."
            )
            must = "be a cell, because it is the first entry"
            is_named = hasattr(each, "__name__")
            got = Verbatim(f"the function `{name_of(each)}`") if is_named else each
            expect(cells, f"{name}[{i}]", must, got, fix)
            function = _as_output_fn(f"{name}[{i}]", each)
            cells[-1] = OutputFunctionWrapper(cells[-1], function)
            continue
        fix = "To map the cell's output by a module, pass `lambda y: module(y)`."
        is_module = callable(each) and not isinstance(each, type)
        with error_note(fix) if is_module else contextlib.nullcontext():
            cells.append(check_rnn_cell(f"{name}[{i}]", each))
    return tuple(cells)


def _before_functions(cell: RNNCell) -> RNNCell:
    while isinstance(cell, OutputFunctionWrapper):
        cell = cell.cell
    return cell


@final
@fields.dataclass
class MultiRNNCell(ComposedCell[tuple[State, ...]], Generic[State]):
    """A stack of cells, in which each cell's output is the input of the next cell.

    A function in the list maps the output of the cell before it, as in
    `[LSTMCell(64), jax.nn.relu, LSTMCell(64)]`: `MultiRNNCell` wraps this cell in an
    `OutputFunctionWrapper`. Functions have neither parameters nor a state, so the
    parameters and states are the same as without functions.

    The parameters are `{"cell_0": ..., "cell_1": ...}`. If one object occurs twice in
    `cells`, both layers share the object's parameters, which are stored under its first
    index, and `init` warns. In the repr, `owners` then lists this index for each layer.
    The layers share these parameters even if a function follows the object in the list.
    Equal cells do not share parameters: `[LSTMCell(5) for _ in range(2)]` has two sets.
    Nor do different wrappers around one object share parameters.

    Attributes:
        cells: A list or tuple of cells, from the inputs upwards. A function of the
            output of one step may follow a cell. The attribute stores a tuple of cells,
            in which an `OutputFunctionWrapper` holds a cell and its function.
        state_is_tuple: Whether the state is a tuple of the cells' states. If False, the
            state is one array that concatenates these states, and each of them must be
            one vector.

    Raises:
        TypeError: If `cells` is not a list or tuple of cells and functions, its first
            entry is not a cell, or `state_is_tuple` is not a bool.
        ValueError: If `cells` is empty, or a state cannot be concatenated.

    Source: `tf.compat.v1.nn.rnn_cell.MultiRNNCell`; Haiku's `DeepRNN`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn
        >>> x = jnp.ones((3, 5, 8))  # [batch, time, depth]
        >>> layers = [jaxrnn.GRUCell(16), jax.nn.relu, jaxrnn.LSTMCell(4)]
        >>> cell = jaxrnn.MultiRNNCell(layers)
        >>> params = cell.init(jax.random.key(0), x[:, 0])
        >>> outputs, state = jaxrnn.dynamic_rnn(cell.bind(params), x, dtype=x.dtype)
        >>> outputs.shape, state[0].shape, state[1].h.shape
        ((3, 5, 4), (3, 16), (3, 4))
    """

    cells: tuple[RNNCell[State], ...] = fields.checked(_as_cells)
    state_is_tuple: bool = fields.flag(True)
    # For each layer, the index of the first layer with the same object; both layers use
    # the parameters of the first. Comparisons include this field.
    owners: tuple[int, ...] = dataclasses.field(init=False, repr=False, default=())

    if TYPE_CHECKING:
        # The argument may be a list with functions; the field is a tuple of cells.
        def __init__(
            self,
            cells: Sequence[RNNCell[State] | Callable[[PyTree], PyTree]],
            state_is_tuple: bool = True,
        ) -> None: ...

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.state_is_tuple:
            self._widths()
        ids = [id(_before_functions(cell)) for cell in self.cells]
        fields.set_field(self, "owners", tuple(map(ids.index, ids)))

    def __repr__(self) -> str:
        """Shows the index of each layer's object if layers share an object."""
        if len(set(self.owners)) == len(self.owners):
            return super().__repr__()
        return f"{super().__repr__()[:-1]}, owners={self.owners})"

    @property
    def state_size(self) -> Size:
        """A tuple of the cells' state sizes; with one array as the state, their sum."""
        if not self.state_is_tuple:
            return sum(self._widths())
        return tuple(cell.state_size for cell in self.cells)

    output_size = property(lambda self: self.cells[-1].output_size)
    feature_axes = property(lambda self: getattr(self.cells[0], "feature_axes", None))
    is_random: ClassVar[Any] = property(lambda self: any_is_random(self.cells))
    rows_interact: ClassVar[Any] = property(
        lambda self: any(c.rows_interact for c in self.cells)
    )
    starts_from_zeros = property(
        lambda self: all(c.starts_from_zeros for c in self.cells)
    )

    def zero_state(self, batch_size: int, dtype: DType) -> tuple[State, ...]:
        """A tuple of the cells' zero states, or one array `[batch_size, sum]`."""
        if not self.state_is_tuple:
            return super().zero_state(batch_size, dtype)
        return tuple(cell.zero_state(batch_size, dtype) for cell in self.cells)

    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """Creates the parameters of all cells, `{"cell_0": ..., "cell_1": ...}`.

        Raises:
            TypeError: If `key` is not a random key, or `dtype` is an array.
            ValueError: If `key` is an array of keys, or a cell that occurs twice gets
                inputs of two different sizes.

        Warns:
            UserWarning: If layers share parameters because they are the same object.
        """
        check_key(key)
        params: Params = {}
        for i, cell in enumerate(self.cells):
            name = self._name(i)
            with error_note(self._note(i)):
                init = functools.partial(cell.init, fold_in(key, i), inputs, dtype)
                if name in params:
                    fix = "Construct a cell for each layer, or give both layers "
                    fix += "inputs of one size."
                    as_like("params", params[name], jax.eval_shape(init), fix=fix)
                else:
                    params[name] = init()
                inputs = output_of(cell, params[name], inputs, dtype)
        if len(params) < len(self.cells) and jax.tree.leaves(params):
            warn(
                f"layers of {self!r} are the same object, and share parameters, as in "
                "TensorFlow. For separate parameters, construct a cell for each layer."
            )
        return params

    def start(self, params: Params, state: PyTree) -> PyTree:
        """Prepares the state of each cell; see `RNNCell.start`.

        Raises:
            ValueError: If the parameters of a cell are missing.
        """
        own, states = self._own_params(params), self.split_state(state)
        return tuple(
            cell.start(*of_cell)
            for cell, *of_cell in zip(self.cells, own, states, strict=True)
        )

    inner_cells: ClassVar[Any] = property(lambda self: self.cells)
    maps_inputs = maps_outputs = False

    def compose(self, run_next: Callable, params: Params, inputs: PyTree) -> PyTree:
        """The outputs of the last cell; see `ComposedCell.compose`."""
        for i, own in enumerate(self._own_params(params)):
            with error_note(self._note(i)):
                inputs = run_next(own, inputs, i)
        return inputs

    def checked_step(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None
    ) -> tuple[PyTree, PyTree]:
        """Checks the key; the cells check everything else."""
        check_key_or_none(key)
        warn_of_plain_pair("state", self.state_size, state)
        return inputs, with_tuples_of(self.state_size, state, strict=False)

    def split_state(self, state: PyTree) -> list[PyTree]:
        """The state of each cell.

        Raises:
            ValueError: If the state does not match the cells. If the number of states
                in a tuple is wrong, the error is also an IndexError, as in TensorFlow.
        """
        if not self.state_is_tuple:
            *ends, total = itertools.accumulate(self._widths())
            fits = jnp.ndim(state) == 2 and state.shape[1] == total
            expect(fits, "state", f"be one array [batch, {total}]", state)
            return jnp.split(state, ends, axis=-1)
        count = len(self.cells)
        what = f"a tuple of length {count}, with one state per cell"
        expect(is_list_of(state, count), "state", f"be {what}", state, error=EntryError)
        return list(state)

    def join_states(self, states: list[PyTree]) -> PyTree:
        """The tuple of the cells' states, or one array that concatenates them."""
        return tuple(states) if self.state_is_tuple else jnp.concatenate(states, -1)

    def _name(self, i: int) -> str:
        return f"cell_{self.owners[i]}"

    def _note(self, i: int) -> str:
        note = f"Raised by `cells[{i}]` with `params['{self._name(i)}']`."
        below = self.cells[i - 1] if i else None
        if isinstance(below, OutputFunctionWrapper):
            note += f" The cell's inputs are results of `{name_of(below.output_fn)}`."
        return note

    def _widths(self) -> list[int]:
        """The sizes of the cells' states; raises ValueError unless all are vectors."""
        must = "have one vector as its state if `state_is_tuple` is False"
        return [
            vector_size(cell.state_size, f"cells[{i}]", must)
            for i, cell in enumerate(self.cells)
        ]

    def _own_params(self, params: Params) -> list[Params]:
        """The parameters of each cell."""
        names = list(map(self._name, range(len(self.cells))))
        fits = isinstance(params, Mapping) and set(params) == set(names)
        must = f"hold {', '.join(map(repr, dict.fromkeys(names)))}"
        got = list(params) if isinstance(params, Mapping) else params
        expect(fits, "params", must, got, "Pass the dict that `init` returned.")
        return [params[name] for name in names]
