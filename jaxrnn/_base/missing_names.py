"""Errors for names that a public module does not have, some with a hint."""

import sys
from collections.abc import Mapping


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
