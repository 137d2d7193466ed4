"""The parameters of a module: new ones, those of bound cells, and names of axes."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import jax

from .._base.arguments import check_instance
from .._base.errors import counted, describe, warn
from .._base.trees import map_named, named_leaves, output_of
from .._base.typing import Array, DType, Key, Params, PyTree
from .._cells.base import RNNCell, scope_name
from .._cells.bound import BoundCell
from .._cells.fields import as_floating
from .._wrappers.base import unwrapped
from .._wrappers.multi_rnn import MultiRNNCell
from . import modules

AxisNames: TypeAlias = Mapping[str, tuple[str | None, ...]]


def init_part(
    cells: modules.Cells, name: str, key: Key, step: PyTree, dtype: DType
) -> Params:
    """Initial parameters of one entry of `named_cells`.

    Args:
        cells: The cells of a module.
        name: The key of the entry.
        key: A random key.
        step: One step of the module's inputs, each leaf `[batch, ...]`; only its types
            are read.
        dtype: The dtype of the parameters.
    """
    dtype = as_floating("param_dtype", dtype)
    step = jax.eval_shape(lambda inputs: modules.in_dtype(dtype, inputs), step)
    named = modules.named_cells(cells)
    if isinstance(cells, tuple) and modules.is_stack(cells):
        # Each layer reads both outputs of the layer below.
        for below, pair in zip(named, zip(*cells, strict=True), strict=True):
            if below == name:
                break
            outputs = (output_of(cell, {}, step, dtype) for cell in pair)
            step = jax.eval_shape(modules.concatenate, *outputs)
    return _init(named[name], key, step, dtype)


def _init(
    cells: RNNCell | modules.NamedCells, key: Key, step: PyTree, dtype: DType
) -> Params:
    """Initial parameters of cells that read the same inputs."""
    if isinstance(cells, RNNCell):
        _warn_of_shared(cells)
        return cells.init(key, step, dtype)
    parts = zip(cells.items(), jax.random.split(key, len(cells)), strict=True)
    return {name: _init(part, own, step, dtype) for (name, part), own in parts}


def _warn_of_shared(cell: RNNCell) -> None:
    """Warns where layers of a stack share parameters, which few libraries do."""
    stack = unwrapped(cell)
    owners = stack.owners if isinstance(stack, MultiRNNCell) else ()
    if len(set(owners)) < len(owners):
        warn(
            f"layers of {stack!r} are the same object, and therefore share parameters, "
            "as in TensorFlow. For layers with own parameters, construct a cell for "
            "each layer."
        )


# Bound cells.


def params_of_cells(
    cells: modules.Cells, bound: Sequence[modules.BoundCells]
) -> Params:
    """The parameters of bound cells; the inverse of `bind_cells`.

    Args:
        cells: The cells of a module.
        bound: A bound cell, or the forward cells and the backward cells, also as one
            pair. A list that holds only one cell may replace the cell, because
            converters return a list for each direction.

    Raises:
        TypeError: If an entry is not a bound cell.
        ValueError: If there are too few or too many cells, or if a bound cell differs
            from the module's cell.
    """
    one = not isinstance(cells, tuple)
    own = [modules.list_cells(way) for way in ((cells,) if one else cells)]
    if len(bound) == 1 and isinstance(bound[0], list | tuple):
        bound = bound[0]
    ways = [list(w) if isinstance(w, list | tuple) else [w] for w in bound]
    counts = [len(way) for way in ways]
    if counts != [len(way) for way in own]:
        of_each = f"{counted(len(own[0]), 'bound cell')} for each direction"
        raise ValueError(
            f"`cells` must be {'one bound cell' if one else of_each}, got {counts}. "
            "To an `RNN` of several layers, pass one bound `MultiRNNCell`; to a "
            "bidirectional module, pass `cells_fw, cells_bw`, each a bound cell or a "
            "list with one for each layer."
        )
    params = [list(map(_params_of, *pair)) for pair in zip(own, ways, strict=True)]
    if one:
        return params[0][0]
    layers = [{"fw": fw, "bw": bw} for fw, bw in zip(*params, strict=True)]
    if modules.is_stack(cells):
        return {f"cell_{i}": layer for i, layer in enumerate(layers)}
    return layers[0]


def _params_of(cell: RNNCell, bound: modules.BoundCells) -> Params:
    """The parameters of one bound cell, which must bind `cell`, with its scope name."""
    check_instance("cells", bound, BoundCell, "bound by `cell.bind(params)`")
    if not _are_equal(bound.cell, cell):
        want = repr(unwrapped(cell))
        got = repr(unwrapped(bound.cell))
        if got == want:
            got = "a cell with the same repr but another function"
        raise ValueError(
            f"each bound cell must bind the module's cell {want}, got {got}. Construct "
            "the module with the attribute `cell` of the bound cell."
        )
    return {scope_name(unwrapped(cell)): bound.params}


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


# Names of axes.


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
