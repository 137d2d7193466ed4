"""Names: the module that a public name shows, optional imports, and missing names."""

import importlib
import inspect
import sys
from collections.abc import Mapping
from typing import Any


def set_module(module: str) -> None:
    """Sets `__module__` of private classes and functions in a module's `__all__`.

    Pickles, reprs and tracebacks name a class or function by its `__module__`. With the
    name of the public module, pickles survive a move of private files. `set_module` of
    NumPy serves the same purpose.
    """
    namespace = vars(sys.modules[module])
    for value in map(namespace.get, namespace["__all__"]):
        is_definition = inspect.isclass(value) or inspect.isfunction(value)
        if is_definition and "._" in value.__module__:
            value.__module__ = module


def import_optional(module: str, install: str = "") -> Any:
    """Imports a module; if this fails, raises an ImportError with an install command.

    Args:
        module: The module.
        install: What to install; by default the package that contains the module.
    """
    package = install or module.split(".")[0]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"the package `{package}` is required, but cannot be imported: {error}. "
            f"Run `pip install {package}`."
        ) from error


def missing_name(module: str, name: str, hints: Mapping[str, str]) -> AttributeError:
    """The error for a module's `__getattr__` to raise.

    Python replaces this error with an ImportError of its own, without the hint, if the
    name is missing in a statement `from module import name`.

    Args:
        module: The name of the module.
        name: The missing name.
        hints: A dict that maps some missing names to advice on what to use instead.
    """
    hint = f". {hints[name]}" if name in hints else ""
    return AttributeError(f"module {module!r} has no attribute {name!r}{hint}")
