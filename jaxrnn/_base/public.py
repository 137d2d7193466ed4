"""Public modules as the home of classes, so that pickles survive moved files."""

import inspect
from typing import Any


def set_public_module(namespace: dict[str, Any]) -> None:
    """Sets `__module__` of the classes that a public module exports to its name.

    Pickles refer to a class by its module: so they survive a move of private files.

    Args:
        namespace: `globals()` of the public module.
    """
    public = namespace["__name__"]
    for name, value in namespace.items():
        if not name.startswith("_") and inspect.isclass(value):
            if value.__module__.startswith(f"{public}."):
                value.__module__ = public
