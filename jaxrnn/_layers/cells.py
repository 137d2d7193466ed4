"""The cells of a module, and their parameters.

A module holds its cells in nested dicts, and its parameters in nested dicts with the
same keys. The innermost keys are TensorFlow's scope names: `{"lstm_cell": cell}` for
one cell, `{"fw": {...}, "bw": {...}}` for two directions, and `{"cell_0": {"fw": ...,
"bw": ...}, "cell_1": ...}` for layers of two directions.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from .._base.arguments import as_bool, as_dtype, check_instance
from .._base.cell_keys import fold_in
from .._base.errors import counted, describe
from .._base.math import is_float
from .._base.trees import map_named, named_leaves
from .._base.typing import Array, DType, Key, Params, PyTree
from .._cells.base import RNNCell, any_is_random, check_rnn_cell, scope_name
from .._cells.bound import BoundCell
from .._cells.fields import as_floating
from .._wrappers.base import unwrapped
from .._wrappers.multi_rnn import MultiRNNCell

Cells: TypeAlias = Mapping[str, "RNNCell | Cells"]
"""A nest of cells; see the docstring of this file."""
BoundCells: TypeAlias = Any
"""A bound cell, or nested tuples of bound cells."""
DIRECTIONS = {"fw": "the forward cells", "bw": "the backward cells"}
"""The keys of the two directions, and their names in messages."""
AxisNames: TypeAlias = Mapping[str, tuple[str | None, ...]]


def under_scope(name: str, cell: RNNCell) -> Cells:
    """A nest of one cell; raises TypeError for an argument that is not a cell."""
    check_rnn_cell(name, cell)
    return {scope_name(unwrapped(cell)): cell}


def list_cells(cells: Cells | RNNCell) -> list[RNNCell]:
    """All cells of a nest; the first cell reads the inputs."""
    if isinstance(cells, RNNCell):
        return [cells]
    return [cell for part in cells.values() for cell in list_cells(part)]


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
    parts = zip(cells.items(), jax.random.split(key, len(cells)), strict=True)
    return {name: init_cells(part, own, step, dtype) for (name, part), own in parts}


def bind_cells(cells: Cells, params: Params, key: Key | None = None) -> BoundCells:
    """The cells with their parameters: one bound cell, or a tuple in the nest's order.

    Different cells get different keys.
    """
    bound: list[BoundCells] = []
    for i, (name, part) in enumerate(cells.items()):
        if isinstance(part, RNNCell):  # The cell is then the only entry of its dict.
            return part.bind(params[name], key)
        bound.append(bind_cells(part, params[name], fold_in(key, i)))
    return tuple(bound)


def params_of_cells(
    cells: Cells | RNNCell, bound: BoundCells, what: str = "`cells`"
) -> Params:
    """The parameters of bound cells; the inverse of `bind_cells`.

    Args:
        cells: A nest of cells, or one cell.
        bound: The bound cells, in the structure that `bind_cells` returns.
        what: What `bound` is, for messages.

    Raises:
        TypeError: If an entry is not a bound cell.
        ValueError: If there are too few or too many cells, or if a bound cell differs
            from the cell of the nest.
    """
    if not isinstance(cells, RNNCell):
        parts = zip(cells.items(), list_bound(len(cells), bound, what), strict=True)
        return {
            name: params_of_cells(part, own, DIRECTIONS.get(name, what))
            for (name, part), own in parts
        }
    if not isinstance(bound, BoundCell):
        fix = "Pass one bound cell, such as a bound `MultiRNNCell` for several layers."
        fix = f" {fix}" if isinstance(bound, list | tuple) else ""
        got = describe(bound)
        raise TypeError(f"{what} must be bound by `cell.bind(params)`, got {got}.{fix}")
    if not _are_equal(bound.cell, cells):
        want = repr(unwrapped(cells))
        got = repr(unwrapped(bound.cell))
        if got == want:
            got = "a cell with the same repr but another function or shared parameters"
        raise ValueError(
            f"each bound cell must bind the module's cell {want}, got {got}. Construct "
            "the module with the attribute `cell` of the bound cell."
        )
    return bound.params


def list_bound(count: int, bound: BoundCells, what: str) -> Sequence[BoundCells]:
    """A list of `count` cells; raises ValueError if there are fewer or more.

    If `count` is 1, `bound` may be the cell itself, or a list that holds only the cell,
    because converters return a list for each direction.
    """
    listed = bound if isinstance(bound, list | tuple) else [bound]
    if len(listed) != count:
        must = f"{count} bound cells, one for each layer"
        fix = ""
        if count == 1:
            must = "one bound cell"
            fix = "For several layers, use `StackBidirectional`."
            if what not in DIRECTIONS.values():
                fix = (
                    "For several layers, pass a bound `MultiRNNCell`; for two "
                    "directions, use a bidirectional module."
                )
        raise ValueError(f"{what} must be {must}, got {len(listed)}. {fix}".rstrip())
    return listed


def both_directions(cells: tuple[BoundCells, ...]) -> Sequence[BoundCells]:
    """The forward cells and the backward cells, from two arguments or from one pair.

    Raises:
        ValueError: If there are not two directions.
    """
    is_one = len(cells) == 1 and isinstance(cells[0], list | tuple)
    pair = cells[0] if is_one else cells
    if len(pair) != 2:
        raise ValueError(
            "`cells` must be the forward cells and the backward cells, got "
            f"{counted(len(pair), 'entry', 'entries')}. Pass `cells_fw, cells_bw`, "
            "each a bound cell or a list with one bound cell per layer."
        )
    return pair


def _are_equal(one: RNNCell, other: RNNCell) -> bool:
    """Whether two cells differ at most in initializers and wrappers without parameters.

    Initializers do not matter, because the parameters already exist.
    """
    one = unwrapped(one)
    other = unwrapped(other)
    if isinstance(one, MultiRNNCell) and isinstance(other, MultiRNNCell):
        if one.owners != other.owners or one.state_is_tuple != other.state_is_tuple:
            return False
        return all(map(_are_equal, one.cells, other.cells))
    if type(one) is type(other) and dataclasses.is_dataclass(one):
        names = [field.name for field in dataclasses.fields(one)]
        changes = {n: getattr(other, n) for n in names if n.endswith("initializer")}
        one = dataclasses.replace(one, **changes) if changes else one
    return one == other


def in_dtype(dtype: DType, tree: PyTree) -> PyTree:
    """The nest with its floating-point arrays cast to `dtype`.

    A real `dtype` sets only the precision of complex arrays, which stay complex. An
    integer `dtype` casts nothing.
    """
    if not jnp.issubdtype(dtype, jnp.inexact):
        return tree
    is_double = jnp.finfo(dtype).bits == 64
    of_complex = jnp.dtype(jnp.complex128 if is_double else jnp.complex64)

    def cast(x: Array) -> Array:
        if not is_float(x):
            return x
        return x.astype(of_complex if jnp.iscomplexobj(x) else dtype)

    return jax.tree.map(cast, tree)


def compute_dtype(dtype: DType | None, arrays: PyTree) -> DType:
    """`dtype`; by default the widest floating-point dtype in `arrays`, or float32.

    Complex dtypes count as floating-point, and are wider than real dtypes.
    """
    if dtype is not None:
        return as_dtype(dtype)
    floats = [x.dtype for x in jax.tree.leaves(arrays) if is_float(x)]
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*floats) if floats else jnp.dtype(jnp.float32)


def name_axes(
    axis_names: AxisNames | None,
    params: Params,
    box: Callable[[Array, tuple[str | None, ...]], PyTree],
) -> Params:
    """Boxes each parameter together with the names of its axes.

    Args:
        axis_names: Maps the last part of a parameter's name, such as "kernel", to a
            tuple with a name or None for each axis.
        params: Nested dicts of arrays.
        box: `box(array, names)` returns Flax's object that holds both; `names` is empty
            for a parameter without names.

    Raises:
        TypeError: If `axis_names` is not a dict.
        ValueError: If the number of names differs from the number of axes.
    """
    known = {} if axis_names is None else axis_names
    what = "a dict of tuples such as {'bias': ('hidden',)}"
    check_instance("axis_names", known, Mapping, what)

    def boxed(name: str, leaf: Array) -> PyTree:
        names = known.get(last := _last(name))
        if names is None:
            return box(leaf, ())
        if not isinstance(names, tuple | list) or len(names) != leaf.ndim:
            raise ValueError(
                f"`axis_names[{last!r}]` must have a name or None for each axis of "
                f"`{name}` ({describe(leaf)}), got {names!r}."
            )
        return box(leaf, tuple(names))

    return map_named("params", boxed, params)


def check_axis_names(axis_names: AxisNames | None, params: Params) -> None:
    """Raises ValueError if a key of `axis_names` is not the name of a parameter."""
    names = {_last(name) for name, _ in named_leaves("params", params)}
    unknown = [name for name in axis_names or () if name not in names]
    if unknown:
        fix = f"Use {' or '.join(map(repr, sorted(names)))}." if names else ""
        raise ValueError(
            "the keys of `axis_names` must be names of parameters, got "
            f"{describe(unknown[0])}. {fix or 'The cell has no parameters.'}"
        )


def _last(name: str) -> str:
    # Names are paths such as "params['cell_0']['kernel']".
    parts = name.split("'")
    return parts[-2] if len(parts) > 1 else name


def flag(name: str, of_call: bool | None, of_module: bool | None) -> bool:
    """The flag of a call or, if None, of the module; None means False.

    Raises:
        TypeError: If the flag is not a bool.
    """
    value = of_module if of_call is None else of_call
    return value is not None and as_bool(name, value)


class HoldsCells:
    """A module that holds the parameters of its cells.

    A class of linen or nnx defines `_params` and `_next_key`, and has the fields below.
    """

    rng_collection: str
    deterministic: bool | None

    def _cells(self) -> Cells:
        """The cells, in the nest of their parameters."""
        raise NotImplementedError

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
        """The parameters; linen creates them for `step`, one step of inputs."""
        raise NotImplementedError

    def _bind(self, params: Params, key: Key | None = None) -> BoundCells:
        """The bound cells, in the structure of the constructor's arguments."""
        return bind_cells(self._cells(), params, key)

    def _params_of(self, *cells: BoundCells) -> Params:
        """The parameters of bound cells; the inverse of `_bind`."""
        return params_of_cells(self._cells(), cells)

    def _declared_random(self) -> bool | None:
        """Whether a cell draws random numbers; None if unknown."""
        return any_is_random(list_cells(self._cells()))

    def _draw_key(self, deterministic: bool | None, rngs: Key | None) -> Key | None:
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

    def _next_key(self, rngs: Key | None) -> Key | None:
        """The next key of `rngs` or, if `rngs` is None, of the module's stream."""
        raise NotImplementedError


@dataclasses.dataclass(eq=False, repr=False)
class HoldsCell(HoldsCells):
    """A module with one cell."""

    cell: RNNCell

    def _cells(self) -> Cells:
        return under_scope("cell", self.cell)
