"""Layers behind the linen and nnx modules.

The layers do not use Flax themselves. If Flax is missing, importing this package raises
an error that says how to install Flax.
"""

from .._base.modules import import_optional as _import_optional

_import_optional("flax")
