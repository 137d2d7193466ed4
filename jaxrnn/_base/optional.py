"""Imports packages that only some functions need."""

import importlib
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
