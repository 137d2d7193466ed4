"""Sets the modules of public names, and imports modules that may be missing."""

import importlib
import inspect
import sys
from collections.abc import Mapping
from typing import Any


def set_module(module: str) -> None:
    """Sets `__module__` of private classes and functions in a module's `__all__`.

    Pickles, reprs and tracebacks name a class or function by its `__module__`. With the
    name of the public module, pickles stay valid if private files move.
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
    """Returns the error that a module's `__getattr__` raises for a missing name.

    A statement `from module import name` shows Python's own ImportError instead,
    without the hint.

    Args:
        module: The name of the module.
        name: The missing name.
        hints: A dict that maps some missing names to advice on what to use instead.
    """
    hint = f". {hints[name]}" if name in hints else ""
    return AttributeError(f"module {module!r} has no attribute {name!r}{hint}")
