"""Layers behind the linen and nnx modules.

They do not depend on Flax, but importing them raises an error without it, which says
how to install it.
"""

from .._base.boundary import import_optional as _import_optional

_import_optional("flax")
