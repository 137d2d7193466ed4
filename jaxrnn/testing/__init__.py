"""`check_cell`, and the laws (properties that every cell must have) that it checks.

>>> import jax, jax.numpy as jnp, jaxrnn
>>> from jaxrnn.testing import check_cell
>>> check_cell(jaxrnn.GRUCell(3), jax.ShapeDtypeStruct((4, 2), jnp.float32))
"""

from .._base.modules import export as _export
from ._laws import (
    LAWS as LAWS,
    check_cell as check_cell,
    compiles_to_the_same as compiles_to_the_same,
    differentiates_twice as differentiates_twice,
    has_its_sizes as has_its_sizes,
    ignores_padding as ignores_padding,
    inits_from_shapes as inits_from_shapes,
    is_a_value as is_a_value,
    keeps_rows_apart as keeps_rows_apart,
    leaves_out_gaps as leaves_out_gaps,
    maps_over_an_axis as maps_over_an_axis,
    resumes as resumes,
    returns_all_states as returns_all_states,
    runs_as_a_loop as runs_as_a_loop,
    runs_backwards_as_a_loop as runs_backwards_as_a_loop,
    runs_in_little_memory as runs_in_little_memory,
    runs_in_raw_rnn as runs_in_raw_rnn,
    runs_unrolled as runs_unrolled,
    spreads_nan_only_forward as spreads_nan_only_forward,
    starts_again_at_resets as starts_again_at_resets,
)
from ._oracle import make_setup as make_setup

_export(globals())
