"""The laws that drivers rely on, and `check_cell`, which holds a cell to them.

>>> import jax, jax.numpy as jnp, jaxrnn
>>> from jaxrnn.testing import check_cell
>>> check_cell(jaxrnn.GRUCell(3), jax.ShapeDtypeStruct((4, 2), jnp.float32))
"""

from ._laws import LAWS as LAWS, check_cell as check_cell, make_setup as make_setup

__all__ = ["LAWS", "check_cell", "make_setup"]
