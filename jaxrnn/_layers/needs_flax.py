"""The first import of `jaxrnn.linen` and `jaxrnn.nnx`: says how to install Flax."""

from .._base.optional import import_optional

import_optional("jaxrnn.linen and jaxrnn.nnx", "flax", "jaxrnn[flax]")
