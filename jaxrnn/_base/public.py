"""Public modules as the home of what they export, so that pickles survive moves."""

import inspect
from typing import Any


def set_public_module(namespace: dict[str, Any]) -> None:
    """Sets `__all__`, and `__module__` of the classes and functions that are exported.

    Pickles refer to them by module and name: so they survive a move of private files.
    Modules that are imported later are not in `__all__`, and so `from jaxrnn import *`
    does not replace Flax's `nnx`.

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
