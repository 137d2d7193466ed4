"""The names of TensorFlow's variables: scopes, and the slots of optimizers."""

from collections.abc import Mapping
from typing import Any

from ._weights import check_mapping, check_string


def join(scope: str, name: str) -> str:
    """The full name of `name` in a scope, which may be empty."""
    return f"{scope}/{name}" if scope else name


def variables_in(variables: Any, scope: str, start: str = "") -> dict[str, Any]:
    """The variables in a scope, under their names in it, without slots.

    Args:
        variables: A mapping, or a checkpoint's reader.
        scope: The scope.
        start: What their names in it begin with.

    Raises:
        TypeError: If `variables` is neither a mapping nor a checkpoint's reader, or
            `scope` is not a string.
        ValueError: If the scope holds no variable.
    """
    check_string("scope", scope)
    if hasattr(variables, "get_variable_to_shape_map"):  # A checkpoint's reader.
        names, get = variables.get_variable_to_shape_map(), variables.get_tensor
    else:
        fix = "`tf.train.load_checkpoint(path)` reads a checkpoint."
        check_mapping("variables", variables, fix)
        names, get = variables, variables.__getitem__
    prefix = join(scope, "")
    full = {str(name).removesuffix(":0"): name for name in names}
    inside = [
        name
        for name in full
        if name.startswith(prefix + start) and not _is_slot(name, full)
    ]
    if not inside:
        raise ValueError(
            f"no {start or 'variable'} is in the scope `{scope}`. There is: "
            f"{', '.join(full) or 'nothing'}."
        )
    return {name.removeprefix(prefix): get(full[name]) for name in inside}


def _is_slot(name: str, names: Mapping[str, Any]) -> bool:
    """Whether `name` is an optimizer's slot: its scope is the name of a variable."""
    levels = name.split("/")
    return any("/".join(levels[:i]) in names for i in range(1, len(levels)))


def grouped(named: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The values, grouped by the first part of their names."""
    groups: dict[str, dict[str, Any]] = {}
    for name, value in named.items():
        head, _, rest = name.partition("/")
        groups.setdefault(head, {})[rest] = value
    return groups
