"""Layers behind the linen and nnx modules.

The code does not use Flax, but an import without Flax raises an error that says how to
install Flax.
"""

from .._base.boundary import import_optional as _import_optional

_import_optional("flax")
