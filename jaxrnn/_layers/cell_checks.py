"""Checks of a layer's cells, and inference of the sizes of other libraries' cells."""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any, NoReturn

import jax

from .._base.arguments import as_count
from .._base.errors import InvalidType, InvalidValue, describe, error_note
from .._base.tensor_shape import TensorShape
from .._base.typing import PyTree, Size
from .._cells.base import RNNCell
from .._cells.bound import BoundCell
from .._cells.function import BoundOnlyCell


def check_are_cells(**cells: Any) -> None:
    """Raises TypeError unless each cell is an `RNNCell` that creates its parameters."""
    for name, cell in cells.items():
        if not isinstance(cell, RNNCell) or isinstance(cell, BoundOnlyCell):
            raise InvalidType(
                f"`{name}` must be a cell of jaxrnn, got {describe(cell)}. "
                f"{_remedy(cell)}".rstrip()
            )


_RUN = "Run it with `jaxrnn.dynamic_rnn({}, x, dtype=x.dtype)`."


def _remedy(cell: Any) -> str:
    if isinstance(cell, type) and issubclass(cell, RNNCell):
        return f"Create one: {cell.__name__}(8)."
    if isinstance(getattr(cell, "cell", cell), BoundOnlyCell):
        return f"It already has parameters. {_RUN.format('as_cell(...)')}"
    if isinstance(cell, BoundCell):
        return "Pass `cell.cell`; the module has its own parameters."
    if isinstance(cell, list | tuple):
        return "Combine several cells with `MultiRNNCell`."
    if isinstance(cell, int):
        return f"Pass a cell, such as LSTMCell({cell})."
    if hasattr(cell, "initialize_carry") and hasattr(cell, "init"):
        return "Convert a linen cell with `jaxrnn.linen.as_cell`."
    if hasattr(cell, "initialize_carry"):
        return f"{_RUN.format('jaxrnn.nnx.as_cell(cell, in_features)')}"
    if hasattr(cell, "cell"):
        return "Pass the cell itself, without an RNN around it."
    return ""


def check_count(count: int, cells: Any) -> Any:
    """Returns the cells after checking that they are a sequence of length `count`.

    Raises:
        ValueError: If the cells are not a sequence of this length.
    """
    got = len(cells) if isinstance(cells, Sequence) else 1
    if got != count or not isinstance(cells, Sequence):
        raise InvalidValue(f"there must be {count} cells, got {got}.")
    return cells


def params_of_cell(own: RNNCell, cell: Any) -> Any:
    """The parameters of a bound cell; the cell must be equal to `own`.

    The comparison ignores wrappers without parameters. It also ignores initializers,
    because the parameters already exist.

    Raises:
        TypeError: If `cell` is not a bound cell.
        ValueError: If the bound cell differs from `own`.
    """
    if not isinstance(cell, BoundCell):
        raise InvalidType(
            f"each cell must be bound by `cell.bind(params)`, got {describe(cell)}."
        )
    got, want = unwrapped(cell.cell), unwrapped(own)
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


def refuse_variables(others: Collection[str]) -> NoReturn:
    """Raises ValueError for a Flax cell with variables other than parameters."""
    raise InvalidValue(
        "`module` must have no variables other than parameters, got "
        f"{sorted(others)}. Keep values that change from step to step in the state."
    )


def check_is_flax_cell(module: Any, base: type, example: str) -> None:
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
        got = describe(module)
        if is_module:
            got += ", which lacks `initialize_carry`, a method that returns the carry"
        raise InvalidType(f"`module` must be {example}, got {got}.")


def as_names(name: str, names: Any) -> tuple[str, ...]:
    """Converts a string or a list of strings to a tuple; else raises TypeError."""
    several = (names,) if isinstance(names, str) else names
    is_string = lambda each: isinstance(each, str)
    if not isinstance(several, Sequence) or not all(map(is_string, several)):
        raise InvalidType(
            f"`{name}` must be the name of a stream, or a list of names, got "
            f"{describe(names)}."
        )
    return tuple(several)


def feature_axes_of_cell(module: Any) -> int | None:
    """The `num_feature_axes` of a Flax cell; None if the cell does not define it."""
    try:
        return module.num_feature_axes
    except (AttributeError, NotImplementedError):
        return None


def sizes_of_cell(
    step: Callable[[tuple[int, ...]], tuple[PyTree, PyTree]], in_features: Any
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
    size = lambda x: TensorShape(x.shape[1:])
    return jax.tree.map(size, state), jax.tree.map(size, output)
