"""Checks on import that Flax is installed; the error says how to install it."""

from .._base.optional import import_optional

import_optional("flax")
