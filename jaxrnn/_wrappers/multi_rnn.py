"""A stack of cells as one cell."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, final

import jax
import jax.numpy as jnp

from .._base.arguments import check_instance, is_list_of
from .._base.cell_keys import check_key, check_key_or_none, fold_in
from .._base.errors import EntryError, error_note, expect, warn
from .._base.inputs import warn_of_plain_pair
from .._base.trees import output_of, with_tuples_of
from .._base.typing import DType, Key, Params, PyTree, Shaped, Size
from .._cells import fields
from .._cells.base import RNNCell, any_is_random, check_rnn_cell
from .._cells.composed import ComposedCell
from .base import vector_size


def _check_cells(name: str, value: Sequence[RNNCell]) -> tuple[RNNCell, ...]:
    check_instance(name, value, tuple | list, "a list or tuple")
    expect(value, name, "hold at least one cell", value)
    return tuple(check_rnn_cell(f"{name}[{i}]", cell) for i, cell in enumerate(value))


@final
@fields.dataclass
class MultiRNNCell(ComposedCell):
    """A stack of cells, in which each cell's output is the input of the next cell.

    The parameters are `{"cell_0": ..., "cell_1": ...}`. If one object occurs twice in
    `cells`, both layers share the object's parameters, which are stored under its first
    index, and `init` warns; `owners` in the repr then lists these indices. Equal cells
    do not share parameters: `[LSTMCell(5) for _ in range(2)]` has two sets. Different
    wrappers around one object do not share parameters either.

    Attributes:
        cells: A list or tuple of cells, from the inputs upwards.
        state_is_tuple: True for a tuple of the cells' states. False for one array that
            concatenates the states; each state must then be one vector.

    Raises:
        TypeError: If `cells` is not a list or tuple of cells, or `state_is_tuple` is
            not a bool.
        ValueError: If `cells` is empty, or a state cannot be concatenated.

    Source: `tf.compat.v1.nn.rnn_cell.MultiRNNCell`.
    """

    cells: tuple[RNNCell, ...] = fields.checked(_check_cells)
    state_is_tuple: bool = fields.flag(True)
    # For each layer, the first layer with the same object, whose parameters both use.
    # Comparisons include this field; the repr shows it if layers share parameters.
    owners: tuple[int, ...] = dataclasses.field(init=False, repr=False, default=())

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.state_is_tuple:
            self._widths()
        ids = [id(cell) for cell in self.cells]
        fields.set_field(self, "owners", tuple(map(ids.index, ids)))

    def __repr__(self) -> str:
        """Shows the index of each layer's object if layers share an object."""
        if len(set(self.owners)) == len(self.owners):
            return super().__repr__()
        return f"{super().__repr__()[:-1]}, owners={self.owners})"

    @property
    def state_size(self) -> Size:
        """A tuple of the cells' state sizes, or the sum of the sizes."""
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

    def zero_state(self, batch_size: int, dtype: DType) -> PyTree:
        """A tuple of the cells' zero states, or one array `[batch_size, sum]`."""
        if not self.state_is_tuple:
            return super().zero_state(batch_size, dtype)
        return tuple(cell.zero_state(batch_size, dtype) for cell in self.cells)

    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """Creates the parameters of all cells, `{"cell_0": ..., "cell_1": ...}`.

        Raises:
            TypeError: If `key` is not a random key, or `dtype` is an array.
            ValueError: If `key` is an array of keys.

        Warns:
            UserWarning: If layers share parameters because they are the same object.
        """
        check_key(key)
        params: Params = {}
        for i, cell in enumerate(self.cells):
            name = self._name(i)
            with error_note(self._note(i)):
                if name not in params:
                    params[name] = cell.init(fold_in(key, i), inputs, dtype)
                inputs = output_of(cell, params[name], inputs, dtype)
        if len(params) < len(self.cells) and jax.tree.leaves(params):
            warn(
                f"layers of {self!r} are the same object, and share parameters, as in "
                "TensorFlow. To give each its own, construct a cell for each layer."
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
        return f"Raised by `cells[{i}]` with `params['{self._name(i)}']`."

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
        must = f"hold {', '.join(dict.fromkeys(names))}"
        got = list(params) if isinstance(params, Mapping) else params
        expect(fits, "params", must, got, "Pass the dict that `init` returned.")
        return [params[name] for name in names]
