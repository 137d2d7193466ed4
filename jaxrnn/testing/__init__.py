"""`check_cell`, which checks the laws: properties that every cell must have.

>>> import jax, jax.numpy as jnp, jaxrnn
>>> from jaxrnn.testing import check_cell
>>> check_cell(jaxrnn.GRUCell(3), jax.ShapeDtypeStruct((4, 2), jnp.float32))
"""

# This module imports `_drivers` and the folders below. It must not import pytest, and
# no run may call its code.

from .._base.modules import set_module as _set_module
from ._laws import (
    LAWS,
    check_cell,
    compiles_to_the_same,
    differentiates_twice,
    has_its_sizes,
    ignores_padding,
    inits_from_shapes,
    is_a_value,
    keeps_rows_apart,
    leaves_out_gaps,
    maps_over_an_axis,
    resumes,
    returns_all_states,
    runs_as_a_loop,
    runs_as_a_scan,
    runs_backwards_as_a_loop,
    runs_in_little_memory,
    runs_in_raw_rnn,
    spreads_nan_only_forward,
    starts_again_at_resets,
)
from ._oracle import Setup, make_setup

__all__ = [
    "LAWS", "Setup", "check_cell", "compiles_to_the_same", "differentiates_twice",
    "has_its_sizes", "ignores_padding", "inits_from_shapes", "is_a_value",
    "keeps_rows_apart", "leaves_out_gaps", "make_setup", "maps_over_an_axis", "resumes",
    "returns_all_states", "runs_as_a_loop", "runs_as_a_scan",
    "runs_backwards_as_a_loop", "runs_in_little_memory", "runs_in_raw_rnn",
    "spreads_nan_only_forward", "starts_again_at_resets",
]  # fmt: skip

_set_module(__name__)
