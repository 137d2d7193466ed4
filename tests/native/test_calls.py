"""The native calls check their arguments when they decode them."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from native_cases import needs_library

pytestmark = needs_library

# The type depends on whether JAX waits for the call.
ERRORS = (ValueError, jax.errors.JaxRuntimeError)
ENTRIES, BATCH, TIME, DEPTH, UNITS = 7, 2, 3, 4, 5


ATTRIBUTES = {
    **{"cell": np.int32(2), "activation": np.int32(0), "forget_bias": np.float32(0)},
    **dict.fromkeys(("cell_clip", "output_clip"), np.float32(np.inf)),
    **{"entries": ENTRIES, "batch": BATCH, "time": TIME, "resets": True},
    **{"depth": DEPTH, "units": UNITS, "outputs": UNITS},
    **dict.fromkeys(("time_major", "elementwise", "new_states", "save"), False),
}


def run(change=(), drop=None, **attributes):
    """Run basic RNNs with resets, with some arguments or attributes changed."""
    shapes = {
        "x": (1, BATCH, TIME, DEPTH),
        "kernel[0]": (ENTRIES, DEPTH + UNITS, UNITS),
        "bias[0]": (ENTRIES, UNITS),
        "h": (1, BATCH, UNITS),
        "reset_h": (ENTRIES, BATCH, UNITS),
    }
    arguments = {
        "lengths": jnp.full((1, BATCH), TIME, jnp.int32),
        "resets": jnp.zeros((1, BATCH, TIME), jnp.int32),
        **{name: jnp.zeros(shape, jnp.float32) for name, shape in shapes.items()},
        **dict(change),
    }
    arguments.pop(drop, None)
    made = (ENTRIES, BATCH, TIME, UNITS), (ENTRIES, BATCH, UNITS)
    made = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in made]
    call = jax.ffi.ffi_call("jaxrnn_native_forward", made)
    attributes = ATTRIBUTES | attributes
    attributes.pop(drop, None)
    return jax.block_until_ready(call(*arguments.values(), **attributes))


def of(name, *shape, dtype=jnp.float32):
    return {"change": {name: jnp.zeros(shape, dtype)}}


I32 = jnp.int32
LENGTHS = {n: jnp.full((1, BATCH), n, I32) for n in (-1, TIME + 1)}
REFUSED = [
    (of("lengths", dtype=I32), "lengths must have 2 elements of 4 bytes for each of 7"),
    (of("resets", 1, 3, 3, dtype=I32), "resets must have 6 elements"),
    (of("kernel[0]", 1, 9, 4), "kernel[0] must have 45 elements"),
    (of("h", 6, 2, 5), "for each of 7 entries, but it has 240 bytes"),
    (of("more", 1), "too many arguments"),
    ({"drop": "reset_h"}, "reset_h is missing"),
    ({"change": {"lengths": LENGTHS[-1]}}, "lengths must be from 0 to 3"),
    ({"change": {"lengths": LENGTHS[TIME + 1]}}, "but it is 4"),
    ({"cell": np.int32(7)}, "cell must be from 0 to 6"),
    ({"cell": np.int32(6)}, "elementwise must be true for this cell"),
    ({"drop": "time_major"}, "time_major is missing"),
    ({"batch": "2"}, "batch is missing or has another type"),
    ({"time": 0}, "time must be from 1 to"),
    ({"outputs": 4}, "outputs must equal units"),
    # A product of these sizes does not fit in 64 bits.
    ({"batch": 2**31 - 1, "time": 2**31 - 1, "depth": 2**31 - 1}, "lengths must have"),
    ({"depth": 2**31 - 1}, "x must have 12884901882 elements"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=[m for _, m in REFUSED])
def test_what_does_not_fit_is_named(arguments, message):
    with pytest.raises(ERRORS, match=re.escape(message)):
        run(**arguments)
