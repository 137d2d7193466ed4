"""Names: what public modules export, optional imports, and missing names."""

import importlib
import inspect
import sys
from collections.abc import Mapping
from typing import Any


def export(namespace: dict[str, Any]) -> None:
    """Makes the functions and classes of a public module appear as the module's own.

    Pickles refer to classes and functions by module and name. This function sets their
    `__module__` to the public module, so pickles survive a move of private files.
    If the module has no `__all__`, the function adds one without lazily loaded modules,
    so that `from jaxrnn import *` does not shadow Flax's `nnx`. `dir` then lists the
    names in `__all__`.

    Args:
        namespace: `globals()` of the public module.
    """
    module = namespace["__name__"]
    names = [name for name in namespace if not name.startswith("_")]
    public = namespace.setdefault("__all__", names)
    namespace.setdefault("__dir__", public.copy)
    for name in public:
        value = namespace[name]
        home = getattr(value, "__module__", "")
        # Skip constants, and names that another public module or package exports.
        is_private = home.startswith("jaxrnn.") and "._" in home
        if is_private and (inspect.isfunction(value) or inspect.isclass(value)):
            value.__module__ = module
        if is_private and inspect.isfunction(value):
            value.__name__ = value.__qualname__ = name


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


def missing_name(module: str, name: str, hints: Mapping[str, str]) -> Exception:
    """The error for a module's `__getattr__` to raise.

    The error is an AttributeError, except for the statement `from module import name`
    with a name that has a hint. For this statement, Python would replace an
    AttributeError with an ImportError that lacks the hint, so the function returns an
    ImportError, which Python does not replace. The function recognizes the statement by
    the frame that calls `__getattr__`, so `__getattr__` must call the function
    directly.

    Args:
        module: The name of the module.
        name: The missing name.
        hints: A dict that maps some missing names to advice on what to use instead.
    """
    text = f"module {module!r} has no attribute {name!r}"
    if name not in hints:
        return AttributeError(text, name=name, obj=sys.modules[module])
    text += f". {hints[name]}"
    caller = sys._getframe(2).f_globals.get("__name__")
    is_import = caller == "importlib._bootstrap"
    return ImportError(text) if is_import else AttributeError(text)
