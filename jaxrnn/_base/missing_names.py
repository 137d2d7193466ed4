"""The errors for names that a public module does not have, some with a hint."""

import sys
from collections.abc import Mapping


def missing_name(module: str, name: str, hints: Mapping[str, str]) -> Exception:
    """The error for a module's `__getattr__` to raise.

    That is an AttributeError. Python replaces one that is raised for `from module
    import name` by an ImportError without the hint; so there an ImportError is
    returned, which passes. The frame that tells is that of who called `__getattr__`:
    nothing may lie between that and this function.

    Args:
        module: The name of the module.
        name: The name that it does not have.
        hints: What to use instead of some names.
    """
    text = f"module {module!r} has no attribute {name!r}"
    if name not in hints:
        return AttributeError(text, name=name, obj=sys.modules[module])
    text += f". {hints[name]}"
    caller = sys._getframe(2).f_globals.get("__name__")
    is_import = caller == "importlib._bootstrap"
    return ImportError(text) if is_import else AttributeError(text)
