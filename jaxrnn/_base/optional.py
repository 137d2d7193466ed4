"""Imports packages that only some functions need."""

import importlib
from typing import Any


def import_optional(caller: str, module: str, install: str = "") -> Any:
    """Imports the module; the ImportError explains how to install it.

    Args:
        caller: The function, for messages.
        module: The module.
        install: What to install; by default the package that contains the module.
    """
    package = module.split(".")[0]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{caller}: the package `{package}` is required, but cannot "
            f"be imported: {error}. Install it with `pip install {install or package}`."
        ) from error
