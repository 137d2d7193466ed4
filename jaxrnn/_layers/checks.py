"""Checks of the cells and options of modules, and of other libraries' cells."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias

import jax

from .._base.arguments import as_bool, as_count, as_dtype, check_instance
from .._base.errors import InvalidType, InvalidValue, describe, error_note
from .._base.tensor_shape import TensorShape
from .._base.trees import map_named, named_leaves
from .._base.typing import Array, Params, PyTree, Size
from .._cells.base import RNNCell
from .._cells.bound import BoundCell
from .._cells.step_checks import check_floating

AxisNames: TypeAlias = Mapping[str, tuple[str | None, ...]]

_OF_CALLS = ("deterministic", "return_carry", "return_states")
_FLAGS = ("reverse", "keep_order", "time_major", *_OF_CALLS)
_KINDS = {
    "rng_collection": (str, "the name of a stream"),
    "axis_names": (Mapping, "a dict of tuples such as {'bias': ('hidden',)}"),
}
_NONE_IS_DEFAULT = (*_OF_CALLS, "dtype", "axis_names")


def check_count(count: int, cells: Any) -> Sequence[Any]:
    """Returns the cells after checking that they are a sequence of length `count`.

    Raises:
        ValueError: If the cells are not a sequence of this length.
    """
    got = len(cells) if isinstance(cells, Sequence) else 1
    if got != count or not isinstance(cells, Sequence):
        raise InvalidValue(f"there must be {count} cells, got {got}.")
    return cells


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


def unwrapped(cell: RNNCell) -> RNNCell:
    """The cell inside wrappers that add neither parameters nor a scope."""
    while not getattr(cell, "owns_params", False):
        inner = getattr(cell, "cell", None)
        if inner is None:
            return cell
        cell = inner
    return cell


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


def check_no_variables(others: Collection[str]) -> None:
    """Raises ValueError for a Flax cell with variables other than parameters."""
    if others:
        raise InvalidValue(
            "`module` must have no variables other than parameters, got "
            f"{sorted(others)}. Keep values that change from step to step in the state."
        )


def check_is_flax_cell(module: object, base: type, example: str) -> None:
    """Raises TypeError unless `module` has the interface of a Flax cell.

    Args:
        module: The module.
        base: The base class of the library's cells. In this class, `initialize_carry`
            only raises an error. The parent of this class is the base class of all
            modules.
        example: A description of a valid cell, for messages.
    """
    is_module = isinstance(module, base.__bases__) and callable(module)
    initialize = getattr(type(module), "initialize_carry", None)
    if not is_module or initialize in (None, base.initialize_carry):
        raise InvalidType(
            f"`module` must be {example}, with a method `initialize_carry`, got "
            f"{describe(module)}."
        )


def as_names(name: str, names: str | Sequence[str]) -> tuple[str, ...]:
    """Converts a string or a list of strings to a tuple; else raises TypeError."""
    several = [names] if isinstance(names, str) else names
    what = "the name of a stream, or a list of names"
    for each in check_instance(name, several, Sequence, what):
        check_instance(name, each, str, what)
    return tuple(several)


def feature_axes_of_cell(module: Any) -> int | None:
    """The `num_feature_axes` of a Flax cell; None if the cell does not define it."""
    try:
        return module.num_feature_axes
    except (AttributeError, NotImplementedError):
        return None


def sizes_of_cell(
    step: Callable[[tuple[int, ...]], tuple[PyTree, PyTree]],
    in_features: int | tuple[int, ...],
) -> tuple[Size, Size]:
    """`(state_size, output_size)` of another library's cell, found by tracing a step.

    Args:
        step: `step(shape) -> (carry, output)` for one row of inputs, `[1, ...]`.
        in_features: The size of the inputs, or their shape without the batch axis.

    Raises:
        TypeError: If `in_features` is neither an int nor a tuple of ints.
        ValueError: If a size is below 1.
    """
    fix = "It is the size of the inputs, or their shape without the batch axis."
    sizes = in_features if isinstance(in_features, tuple) else (in_features,)
    shape = (1, *(as_count("in_features", n, fix=fix) for n in sizes))
    note = f"as_cell: in a step with inputs {list(shape)}, as set by `in_features`."
    with error_note(note):
        state, output = jax.eval_shape(lambda: step(shape))
    return jax.tree.map(_size, state), jax.tree.map(_size, output)


def _size(x: jax.ShapeDtypeStruct) -> TensorShape:
    return TensorShape(x.shape[1:])


def check_options(**options: object) -> None:
    """Raises TypeError for an option of the wrong type; ignores unknown names.

    Raises:
        ValueError: If a dtype is not floating-point.
    """
    for name, value in options.items():
        if value is None and name in _NONE_IS_DEFAULT:
            continue
        if name in _FLAGS:
            as_bool(name, value, "It is static: under jit, close over it.")
        elif name in ("dtype", "param_dtype"):
            check_floating(name, as_dtype(value, name))
        elif name in _KINDS:
            check_instance(name, value, *_KINDS[name])


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
        ValueError: If the number of names differs from the number of axes.
    """
    if not axis_names:
        return params

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
