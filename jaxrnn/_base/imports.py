"""Errors for packages that are not installed, and for names that do not exist."""

import importlib
import sys
from collections.abc import Mapping
from typing import Any

from .errors import MissingPackage


def import_optional(module: str, install: str = "") -> Any:
    """Imports the module; the ImportError explains how to install it.

    Args:
        module: The module.
        install: What to install; by default the package that contains the module.
    """
    package = module.split(".")[0]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackage(
            f"the package `{package}` is required, but cannot be imported: {error}. "
            f"Install it with `pip install {install or package}`."
        ) from error


def missing_name(module: str, name: str, hints: Mapping[str, str]) -> Exception:
    """The error for a module's `__getattr__` to raise.

    The error is an AttributeError, except for the statement `from module import name`.
    For this statement, Python would replace an AttributeError with an ImportError that
    lacks the hint, so the function returns an ImportError, which Python does not
    replace. The function recognizes the statement by the frame that calls
    `__getattr__`, so `__getattr__` must call the function directly.

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
