"""The cells of a module, and their parameters.

A module has a nest of cells, and its parameters have the same nest. The innermost keys
are TensorFlow's names of the cells' scopes: `{"lstm_cell": cell}` for one cell,
`{"fw": {...}, "bw": {...}}` for two directions, and `{"cell_0": {"fw": ..., "bw": ...},
"cell_1": ...}` for layers of two directions.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax

from .._base.arguments import as_bool, check_instance
from .._base.cell_keys import fold_in
from .._base.errors import InvalidValue, describe
from .._base.math import is_float
from .._base.trees import map_named, named_leaves
from .._base.typing import Array, DType, Key, Params, PyTree
from .._cells.base import RNNCell, any_is_random, check_rnn_cell, scope_name
from .._cells.bound import BoundCell
from .._cells.fields import as_floating

Cells: TypeAlias = Mapping[str, Any]
"""A nest of cells, as described above."""
BoundCells: TypeAlias = Any
"""A bound cell, or a tuple of bound cells or of such tuples."""
AxisNames: TypeAlias = Mapping[str, tuple[str | None, ...]]


def under_scope(name: str, cell: RNNCell) -> Cells:
    """A nest of one cell; raises TypeError for an argument that is not a cell."""
    check_rnn_cell(name, cell)
    return {scope_name(unwrapped(cell)): cell}


def unwrapped(cell: RNNCell) -> RNNCell:
    """The cell inside wrappers that add neither parameters nor a scope."""
    while not getattr(cell, "owns_params", False):
        inner = getattr(cell, "cell", None)
        if inner is None:
            return cell
        cell = inner
    return cell


def list_cells(cells: Cells) -> list[RNNCell]:
    """All cells of a nest; the first cell reads the inputs."""
    found: list[RNNCell] = []
    for part in cells.values():
        found += [part] if isinstance(part, RNNCell) else list_cells(part)
    return found


def init_cells(cells: Cells | RNNCell, key: Key, step: PyTree, dtype: DType) -> Params:
    """Initial parameters of cells that read the same inputs.

    Args:
        cells: A nest of cells, or one cell.
        key: A random key.
        step: One step of inputs, each leaf `[batch, ...]`; only its types are read.
        dtype: The dtype of the parameters.
    """
    if isinstance(cells, RNNCell):
        return cells.init(key, step, dtype)
    keys = jax.random.split(key, len(cells))
    return {
        name: init_cells(part, own_key, step, dtype)
        for (name, part), own_key in zip(cells.items(), keys, strict=True)
    }


def bind_cells(cells: Cells, params: Params, key: Key | None = None) -> BoundCells:
    """The cells with their parameters: one bound cell, or a tuple in the nest's order.

    Different cells get different keys.
    """
    bound: list[BoundCells] = []
    for i, (name, part) in enumerate(cells.items()):
        if isinstance(part, RNNCell):  # The only entry.
            return part.bind(params[name], key)
        bound.append(bind_cells(part, params[name], fold_in(key, i)))
    return tuple(bound)


def params_of_cells(cells: Cells, bound: BoundCells) -> Params:
    """The parameters of bound cells; the inverse of `bind_cells`.

    A list of one bound cell stands for the cell, because converters return a list for
    each direction.

    Raises:
        TypeError: If an entry is not a bound cell.
        ValueError: If there are too few or too many cells, or if a bound cell differs
            from the cell of the nest.
    """
    listed = bound if isinstance(bound, list | tuple) else [bound]
    check_count(len(cells), listed)
    params: Params = {}
    for (name, part), own in zip(cells.items(), listed, strict=True):
        is_cell = isinstance(part, RNNCell)
        params[name] = (params_of_cell if is_cell else params_of_cells)(part, own)
    return params


def check_count(count: int, cells: Any) -> None:
    """Raises ValueError unless the cells are a sequence of length `count`."""
    got = len(cells) if isinstance(cells, Sequence) else 1
    if got != count or not isinstance(cells, Sequence):
        raise InvalidValue(f"there must be {count} cells, got {got}.")


def params_of_cell(own: RNNCell, cell: Any) -> Params:
    """The parameters of a bound cell; the cell must be equal to `own`.

    The comparison ignores wrappers without parameters. It also ignores initializers,
    because the parameters already exist.

    Raises:
        TypeError: If `cell` is not a bound cell.
        ValueError: If the bound cell differs from `own`.
    """
    check_instance("cell", cell, BoundCell, "bound by `cell.bind(params)`")
    got = unwrapped(cell.cell)
    want = unwrapped(own)
    if not _are_equal(got, want):
        raise InvalidValue(
            f"each cell must match the module's cell, {want!r}, got {got!r}. "
            "Construct the module with `cell.cell`."
        )
    return cell.params


def _are_equal(one: Any, other: Any) -> bool:
    """Whether two cells are equal except for wrappers and initializers."""
    if type(one) is not type(other):
        return one == other
    if not hasattr(one, "cells"):
        return one == other or _with_initializers(one, other) == other
    if one.owners != other.owners or one.state_is_tuple != other.state_is_tuple:
        return False
    pairs = zip(one.cells, other.cells, strict=True)
    return all(_are_equal(unwrapped(a), unwrapped(b)) for a, b in pairs)


def _with_initializers(one: Any, other: Any) -> Any:
    """A copy of `one` with the initializers of `other`, a cell of the same class."""
    fields = dataclasses.fields(one) if dataclasses.is_dataclass(type(one)) else ()
    names = [field.name for field in fields if field.name.endswith("initializer")]
    changes = {name: getattr(other, name) for name in names}
    return dataclasses.replace(one, **changes) if names else one


def in_dtype(dtype: DType, tree: PyTree) -> PyTree:
    """The nest with its floating-point arrays cast to `dtype`."""
    return jax.tree.map(lambda x: x.astype(dtype) if is_float(x) else x, tree)


def name_axes(
    axis_names: AxisNames | None, params: PyTree, box: Callable[[Array, tuple], PyTree]
) -> PyTree:
    """Boxes each parameter whose axes have names, together with these names.

    Args:
        axis_names: Maps the last part of a parameter's name, such as "kernel", to a
            tuple with a name or None for each axis.
        params: Nested dicts of arrays.
        box: `box(array, names)` returns Flax's object that holds both.

    Returns:
        The nest `params`, with `box(array, names)` for each leaf that has names.

    Raises:
        TypeError: If `axis_names` is not a dict.
        ValueError: If the number of names differs from the number of axes.
    """
    if axis_names is None:
        return params
    what = "a dict of tuples such as {'bias': ('hidden',)}"
    check_instance("axis_names", axis_names, Mapping, what)

    def boxed(name: str, leaf: Array) -> PyTree:
        names = axis_names.get(last := _last(name))
        if names is None:
            return leaf
        if not isinstance(names, tuple | list) or len(names) != leaf.ndim:
            raise InvalidValue(
                f"`axis_names[{last!r}]` must have a name or None for each axis of "
                f"`{name}` ({describe(leaf)}), got {names}."
            )
        return box(leaf, names)

    return map_named("params", boxed, params)


def check_axis_names(axis_names: AxisNames | None, params: PyTree) -> None:
    """Raises ValueError if a key of `axis_names` is not the name of a parameter."""
    names = {_last(name) for name, _ in named_leaves("params", params)}
    unknown = [name for name in axis_names or () if name not in names]
    if unknown:
        raise InvalidValue(
            "the keys of `axis_names` must be names of parameters, got "
            f"{describe(unknown[0])}. Use {', '.join(sorted(names))}."
        )


def _last(name: str) -> str:
    # Names are paths such as "params['cell_0']['kernel']".
    return name.split("'")[-2]


def flag(name: str, of_call: bool | None, of_module: bool | None) -> bool:
    """The flag of a call or, if that is None, of the module; None means False.

    Raises:
        TypeError: If the flag is not a bool.
    """
    value = of_module if of_call is None else of_call
    fix = "It is static: under jit, close over it."
    return value is not None and as_bool(name, value, fix)


class HoldsCells:
    """A module that holds the parameters of its cells.

    A class of linen or nnx defines `_params` and `_next_key`, and has the fields below.
    """

    rng_collection: str
    deterministic: bool | None

    def _cells(self) -> Cells:
        """The cells, in the nest of their parameters."""
        raise NotImplementedError

    def _init(self, key: Key, step: PyTree, dtype: DType) -> Params:
        """Initial parameters of all cells; see `_init_part`."""
        names = self._cells()
        keys = zip(names, jax.random.split(key, len(names)), strict=True)
        return {name: self._init_part(name, k, step, dtype) for name, k in keys}

    def _init_part(self, name: str, key: Key, step: PyTree, dtype: DType) -> Params:
        """Initial parameters of one entry of the nest, for one step of inputs.

        Args:
            name: The key of the entry.
            key: A random key.
            step: One step of the module's inputs; only its types are read.
            dtype: The dtype of the parameters.
        """
        dtype = as_floating("param_dtype", dtype)
        step = jax.eval_shape(lambda inputs: in_dtype(dtype, inputs), step)
        return init_cells(self._cells()[name], key, step, dtype)

    def _params(self, step: PyTree = None) -> Params:
        """The parameters, which linen creates for one step of inputs."""
        raise NotImplementedError

    def _bind(self, params: Params, key: Key | None = None) -> BoundCells:
        """The bound cells, in the structure of the constructor's arguments."""
        return bind_cells(self._cells(), params, key)

    def _params_of(self, *cells: BoundCells) -> Params:
        """The parameters of bound cells; the inverse of `_bind`."""
        return params_of_cells(self._cells(), cells)

    def _declared_random(self) -> bool | None:
        """Whether a cell draws random numbers; None if a cell does not declare it."""
        return any_is_random(list_cells(self._cells()))

    def _draw_key(self, deterministic: bool | None, rngs: Any = None) -> Key | None:
        """The key for one call, or None if the call is deterministic.

        Raises:
            TypeError: If an option has the wrong type.
        """
        stream = self.rng_collection
        check_instance("rng_collection", stream, str, "the name of a stream")
        is_quiet = flag("deterministic", deterministic, self.deterministic)
        if is_quiet or self._declared_random() is False:
            return None
        return self._next_key(rngs)

    def _next_key(self, rngs: Any) -> Key | None:
        """The next key of `rngs` or, if that is None, of the module's stream."""
        raise NotImplementedError


@dataclasses.dataclass(eq=False, repr=False)
class HoldsCell(HoldsCells):
    """A module with one cell."""

    cell: RNNCell

    def _cells(self) -> Cells:
        return under_scope("cell", self.cell)
