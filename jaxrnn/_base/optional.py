"""Imports packages that only some functions need."""

import importlib
from typing import Any


def import_optional(caller: str, module: str, install: str = "jaxrnn[export]") -> Any:
    """Imports the module; the ImportError explains how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{caller}: the package `{module.split('.')[0]}` is required, but cannot "
            f"be imported: {error}. Install it with `pip install '{install}'`."
        ) from error
