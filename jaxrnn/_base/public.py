"""Names that outlive the files in which things are written."""

import inspect
from typing import Any


def set_public_module(namespace: dict[str, Any]) -> None:
    """Names the public module as the home of the classes that it exports.

    Pickles refer to a class by its module: this way they survive a move of private
    files.

    Args:
        namespace: `globals()` of the public module.
    """
    public = namespace["__name__"]
    for name, value in namespace.items():
        if not name.startswith("_") and inspect.isclass(value):
            if value.__module__.startswith(f"{public}."):
                value.__module__ = public
