"""Public modules as the home of what they export, so that pickles survive moves."""

import inspect
from typing import Any


def set_public_module(namespace: dict[str, Any]) -> None:
    """Sets `__module__` of the classes and functions that a public module exports.

    Pickles refer to them by module and name: so they survive a move of private files.

    Args:
        namespace: `globals()` of the public module.
    """
    public = namespace["__name__"]
    for name, value in namespace.items():
        is_defined = inspect.isclass(value) or inspect.isfunction(value)
        if is_defined and not name.startswith("_"):
            if value.__module__.startswith(f"{public}."):
                value.__module__ = public
