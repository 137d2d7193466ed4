"""Names of the axes of parameters, by which these are sharded over devices."""

from collections.abc import Callable, Mapping
from typing import Any

from .._base.errors import describe
from .._base.trees import map_named, named_leaves
from .._base.typing import Array, PyTree

AxisNames = Mapping[str, tuple[str | None, ...]]


def name_axes(
    axis_names: AxisNames | None, params: PyTree, box: Callable[[Array, tuple], Any]
) -> PyTree:
    """The parameters; each whose axes are named is boxed together with the names.

    Args:
        axis_names: For the last part of a parameter's name, such as "kernel", a name or
            None for each of its axes.
        params: Nested dicts of arrays.
        box: `box(array, names)`, Flax's object that holds both.

    Returns:
        The nest `params`, with `box(array, names)` for each leaf that has names.

    Raises:
        ValueError: If there are not as many names as axes.
    """
    if not axis_names:
        return params

    def boxed(name: str, leaf: Array) -> Any:
        names = axis_names.get(last := _last(name))
        if names is None:
            return leaf
        if not isinstance(names, tuple | list) or len(names) != leaf.ndim:
            raise ValueError(
                f"`axis_names[{last!r}]` must have a name or None for each axis of "
                f"`{name}`, {describe(leaf)}, got {names}."
            )
        return box(leaf, names)

    return map_named("params", boxed, params)


def check_axis_names(where: str, axis_names: AxisNames | None, params: PyTree) -> None:
    """Raises ValueError for `axis_names` of a parameter that does not exist."""
    names = {_last(name) for name, _ in named_leaves("params", params)}
    unknown = [name for name in axis_names or () if name not in names]
    if unknown:
        raise ValueError(
            f"{where}: `axis_names` must be of parameters, got {unknown[0]!r}. There "
            f"are {', '.join(sorted(names))}."
        )


def _last(name: str) -> str:
    # Names are paths such as "params['cell_0']['kernel']".
    return name.split("'")[-2]
