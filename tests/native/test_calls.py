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
ENTRIES, BATCH, TIME, DEPTH, UNITS, SEQUENCES = 7, 2, 3, 4, 5, 6


def run(change=(), drop=None, time=TIME, elementwise=False, **attributes):
    """Run basic RNNs with restarts, with some arguments changed."""
    shapes = {
        "x": (1, BATCH, time, DEPTH),
        "w_inputs[0]": (ENTRIES, DEPTH, UNITS),
        "w_state[0]": (ENTRIES, UNITS, UNITS),
        "bias[0]": (ENTRIES, UNITS),
        "h": (1, BATCH, UNITS),
        "restart_h": (ENTRIES, SEQUENCES, UNITS),
    }
    arguments = {
        "lengths": jnp.full((1, BATCH), TIME, jnp.int32),
        "starts": jnp.full((1, BATCH, time), -1, jnp.int32),
        **{name: jnp.zeros(shape, jnp.float32) for name, shape in shapes.items()},
        **dict(change),
    }
    arguments.pop(drop, None)
    call = jax.ffi.ffi_call(
        "jaxrnn_native_forward",
        [
            jax.ShapeDtypeStruct((ENTRIES, BATCH, time, UNITS), jnp.float32),
            jax.ShapeDtypeStruct((ENTRIES, BATCH, UNITS), jnp.float32),
        ],
    )
    attributes = {"cell": 2, "activation": 0, "time_axis": 1, **attributes}
    results = call(
        *arguments.values(),
        **{name: np.int32(value) for name, value in attributes.items()},
        forget_bias=np.float32(0),
        cell_clip=np.float32(np.inf),
        output_clip=np.float32(np.inf),
        elementwise=elementwise,
        restarts=True,
        new_states=False,
        save=False,
    )
    return jax.block_until_ready(results)


def of(name, *shape, dtype=jnp.float32):
    return {"change": {name: jnp.zeros(shape, dtype)}}


I32 = jnp.int32
STARTS = jnp.full((1, BATCH, TIME), SEQUENCES, I32)
REFUSED = [
    (of("lengths", dtype=I32), "lengths must be int32 [7, ?], but its shape is []"),
    (
        of("starts", 1, 3, 3, dtype=I32),
        "starts must be int32 [7, 2, ?], but its shape is [1, 3, 3]",
    ),
    (of("x", 7, 2, 4, 4), "x must be float32 [7, 2, 3, ?]"),
    (of("w_inputs[0]", 1, 3, 5), "w_inputs[0] must be float32 [7, 4, ?]"),
    (of("w_state[0]", 1, 5, 4), "w_state[0] must be float32 [7, 5, 5]"),
    (of("bias[0]", 1, 4), "bias[0] must be float32 [7, 5]"),
    (of("h", 6, 2, 5), "h must be float32 [7, 2, 5], but its shape is [6, 2"),
    (of("h", 1, 2, 5, dtype=I32), "h must be float32"),
    (of("restart_h", 1, 6, 4), "restart_h must be float32 [7, 6, 5]"),
    (of("more", 1), "too many arguments"),
    ({"drop": "restart_h"}, "restart_h is missing"),
    ({"change": {"starts": STARTS}}, "starts must be less"),
    ({"cell": 7}, "cell must be"),
    ({"activation": 3}, "activation must be"),
    ({"time_axis": 2}, "time_axis must be"),
    # Only cells with peepholes or norms read them.
    ({"elementwise": True}, "elementwise must be false for this cell"),
    ({"time": 0}, "there must be a step"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=[m for _, m in REFUSED])
def test_what_does_not_fit_is_named(arguments, message):
    with pytest.raises(ERRORS, match=re.escape(message)):
        run(**arguments)
