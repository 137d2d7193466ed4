"""Sets the module of public names, so that pickles survive moves of private files."""

import inspect
from typing import Any


def set_public_module(namespace: dict[str, Any]) -> None:
    """Sets `__all__`, and `__module__` of the exported classes and functions.

    Pickles refer to classes and functions by module and name, so pickles survive a move
    of private files. `__all__` does not list lazily loaded modules, so
    `from jaxrnn import *` does not shadow Flax's `nnx`.

    Args:
        namespace: `globals()` of the public module.
    """
    public = namespace["__name__"]
    namespace["__all__"] = [name for name in namespace if not name.startswith("_")]
    for name, value in namespace.items():
        is_defined = inspect.isclass(value) or inspect.isfunction(value)
        if is_defined and not name.startswith("_"):
            if value.__module__.startswith(f"{public}."):
                value.__module__ = public
