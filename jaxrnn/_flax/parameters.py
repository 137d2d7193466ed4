"""Creates a module's parameters, or takes them from bound cells; names their axes."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from .._base.arguments import check_instance, check_shape, is_list_of
from .._base.errors import Verbatim, counted, describe, expect
from .._base.math import is_traced
from .._base.trees import output_of
from .._base.typing import Array, ArrayLike, DType, Key, Params, PyTree
from .._cells.base import BoundCell, RNNCell
from .._cells.fields import as_floating
from .._cells.wrappers.base import unwrapped
from .._cells.wrappers.multi_rnn import MultiRNNCell
from .._drivers.bidirectional import joined
from . import modules

AxisNames: TypeAlias = Mapping[str, tuple[str | None, ...]]


def init_part(
    cells: modules.Cells, name: str, key: Key, step: PyTree, dtype: DType
) -> Params:
    """Creates the parameters of the cells under one top-level key of `named_cells`.

    Args:
        cells: The cells of a module.
        name: The key, e.g. "fw" or "cell_0".
        key: A random key.
        step: One step of the module's inputs, each leaf `[batch, ...]`, as arrays or
            types.
        dtype: The dtype of the parameters.
    """
    dtype = as_floating("param_dtype", dtype)
    step = jax.eval_shape(lambda inputs: modules.in_dtype(dtype, inputs), step)
    named = modules.named_cells(cells)
    if isinstance(cells, tuple) and modules.is_stack(cells):
        # Each layer reads both outputs of the layer below.
        for below, *pair in zip(named, *cells, strict=True):
            if below == name:
                break
            outputs = (output_of(cell, {}, step, dtype) for cell in pair)
            step = jax.eval_shape(lambda *pair: joined(*pair, axis=1), *outputs)
    return _init(named[name], key, step, dtype)


def _init(
    cells: RNNCell | modules.NamedCells, key: Key, step: PyTree, dtype: DType
) -> Params:
    """Creates the parameters of cells that read the same inputs."""
    if isinstance(cells, RNNCell):
        return cells.init(key, step, dtype)
    parts = zip(cells.items(), jax.random.split(key, len(cells)), strict=True)
    return {name: _init(part, own, step, dtype) for (name, part), own in parts}


# Bound cells.


def params_of_cells(cells: modules.Cells, bound: Sequence[PyTree]) -> Params:
    """Returns the parameters of bound cells; the inverse of `bind_cells`.

    Args:
        cells: The cells of a module.
        bound: A sequence with one bound cell, with the forward cells and the backward
            cells, or with one pair of these. A direction is a bound cell or, as
            converters return it, a list with one bound cell per layer.

    Raises:
        TypeError: If an entry is not a bound cell.
        ValueError: If there are too few or too many cells, or if a bound cell differs
            from the module's cell.
    """
    ways = cells if isinstance(cells, tuple) else (cells,)
    depths = [len(modules.list_cells(way)) for way in ways]
    if len(bound) == 1 and isinstance(bound[0], list | tuple):
        bound = bound[0]
    given = [way if isinstance(way, list | tuple) else [way] for way in bound]
    counts = [len(way) for way in given]
    each = " for each direction" * (len(ways) - 1)
    must = f"be {counted(depths[0], 'bound cell')}{each}"
    fix = "For several layers in one direction, pass one bound `MultiRNNCell`."
    got = Verbatim(" and ".join(counted(n, "cell") for n in counts) or "no cells")
    expect(counts == depths, "cells", must, got, fix)
    layers = zip(*given, strict=True)
    return _params_of(modules.named_cells(cells), itertools.chain(*layers))


def _params_of(cells: RNNCell | modules.NamedCells, bound: Iterator[Any]) -> Params:
    """Takes the next bound cells, checks that they bind `cells`, returns parameters."""
    if not isinstance(cells, RNNCell):
        return {name: _params_of(part, bound) for name, part in cells.items()}
    given, must = next(bound), "be bound cells"
    fix = "Call `cell.bind(params)` for each cell."
    expect(isinstance(given, BoundCell), "cells", must, given, fix, TypeError)
    fix = "Construct the module with the bound cell's attribute `cell`."
    must = f"bind the module's cell {unwrapped(cells)!r}"
    got = Verbatim(unwrapped(given.cell))
    expect(_value(given.cell) == _value(cells), "cells", must, got, fix)
    return given.params


def _value(cell: RNNCell) -> tuple:
    """The fields of a cell that bound parameters must match.

    The fields do not include initializers, because the parameters already exist.
    Wrappers without parameters, e.g. for dropout, do not count.
    """
    cell = unwrapped(cell)
    value = {k: v for k, v in cell._value() if not k.endswith("initializer")}
    if isinstance(cell, MultiRNNCell):
        value["cells"] = tuple(map(_value, cell.cells))
    return type(cell), value


# Names of axes.


def name_axes(
    axis_names: AxisNames | None, params: Params, box: Callable[..., PyTree]
) -> Params:
    """Wraps each parameter in Flax's object that also holds the names of its axes.

    Args:
        axis_names: Maps the last part of a parameter's name, such as "kernel", to a
            tuple with a name or None for each axis.
        params: Nested dicts of arrays.
        box: `box(array, names)` creates this object. `names` is empty for a parameter
            without names.

    Raises:
        TypeError: If `axis_names` is not a dict.
        ValueError: If the number of names differs from the number of axes.
    """
    known = {} if axis_names is None else axis_names
    what = "a dict of tuples such as {'bias': ('hidden',)}"
    check_instance("axis_names", known, Mapping, what)

    def boxed(path: tuple, leaf: Array) -> PyTree:
        last = _last(path)
        names = known.get(last)
        if names is None:
            return box(leaf, ())
        must = f"have a name or None for each axis of {describe(leaf)}"
        expect(is_list_of(names, leaf.ndim), f"axis_names[{last!r}]", must, names)
        return box(leaf, tuple(names))

    return jax.tree.map_with_path(boxed, params)


def check_axis_names(axis_names: AxisNames | None, params: Params) -> None:
    """Raises ValueError if a key of `axis_names` is not the name of a parameter."""
    names = {_last(path) for path, _ in jax.tree.leaves_with_path(params)}
    unknown = [name for name in axis_names or () if name not in names]
    must = f"have only keys of {sorted(names)}, the names of the parameters"
    expect(not unknown, "axis_names", must, unknown)


def _last(path: tuple) -> str:
    """The last key in the path of a parameter, such as "kernel"."""
    keys = [str(part.key) for part in path if isinstance(part, jax.tree_util.DictKey)]
    return keys[-1] if keys else ""


def in_place_of(name: str, old: Array, new: ArrayLike) -> Array:
    """Converts the new array to the dtype and the sharding of the old array.

    Raises:
        ValueError: If the two arrays differ in shape.
        TypeError: If the new array is complex and the old array is real.
    """
    fix = "Check that `in_features` is the size of the inputs."
    check_shape(name, new, old.shape, fix=fix)
    fits = jnp.iscomplexobj(old) or not jnp.iscomplexobj(new)
    fix = f"Create the module with `param_dtype=jnp.{jnp.result_type(new)}`."
    must = "be real like the module's parameter"
    expect(fits, name, must, new, fix, error=TypeError)
    array = jnp.asarray(new).astype(old.dtype)
    sharding = getattr(old, "sharding", None)  # NumPy arrays have no sharding.
    if is_traced(old) or not getattr(old, "committed", sharding):
        return array
    return jax.device_put(array, sharding)
