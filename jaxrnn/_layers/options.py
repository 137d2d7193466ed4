"""Checks of the modules' options."""

from collections.abc import Callable, Mapping
from typing import Any

from .._base.arguments import as_bool, as_dtype
from .._base.errors import InvalidType, InvalidValue, describe
from .._base.trees import map_named, named_leaves
from .._base.typing import Array, PyTree
from .._cells.step_checks import check_floating

AxisNames = Mapping[str, tuple[str | None, ...]]

_OF_CALLS = ("deterministic", "return_carry", "return_states")
_FLAGS = ("reverse", "keep_order", "time_major", *_OF_CALLS)
_KINDS = {
    "rng_collection": (str, "be the name of a stream"),
    "axis_names": (Mapping, "be a dict of tuples such as {'bias': ('hidden',)}"),
}
_NONE_IS_DEFAULT = (*_OF_CALLS, "dtype", "axis_names")


def check_options(**options: Any) -> None:
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
        elif name in _KINDS and not isinstance(value, _KINDS[name][0]):
            must, got = _KINDS[name][1], describe(value)
            raise InvalidType(f"`{name}` must {must}, got {got}.")


def name_axes(
    axis_names: AxisNames | None, params: PyTree, box: Callable[[Array, tuple], Any]
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

    def boxed(name: str, leaf: Array) -> Any:
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
