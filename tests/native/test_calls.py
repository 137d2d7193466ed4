"""The native calls check their arguments when they decode them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from native_cases import needs_library

from jaxrnn._loops.native import library

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
    library.register()
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


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("lengths", (), r"lengths must be int32 \[7, \?\], but its shape is \[\]"),
        (
            "starts",
            (1, 3, 3),
            r"starts must be int32 \[7, 2, \?\], but its shape is \[1, 3, 3\]",
        ),
        ("x", (7, 2, 4, 4), r"x must be float32 \[7, 2, 3, \?\]"),
        ("w_inputs[0]", (1, 3, 5), r"w_inputs\[0\] must be float32 \[7, 4, \?\]"),
        ("w_state[0]", (1, 5, 4), r"w_state\[0\] must be float32 \[7, 5, 5\]"),
        ("bias[0]", (1, 4), r"bias\[0\] must be float32 \[7, 5\]"),
        ("h", (6, 2, 5), r"h must be float32 \[7, 2, 5\], but its shape is \[6, 2"),
        ("restart_h", (1, 6, 4), r"restart_h must be float32 \[7, 6, 5\]"),
    ],
)
def test_an_argument_of_the_wrong_shape_is_named(name, shape, message):
    dtype = jnp.int32 if name in ("lengths", "starts") else jnp.float32
    with pytest.raises(ERRORS, match=message):
        run({name: jnp.zeros(shape, dtype)})


def test_an_argument_of_the_wrong_type_is_named():
    with pytest.raises(ERRORS, match="h must be float32"):
        run({"h": jnp.zeros((1, BATCH, UNITS), jnp.int32)})


def test_arguments_are_counted():
    with pytest.raises(ERRORS, match="restart_h is missing"):
        run(drop="restart_h")
    with pytest.raises(ERRORS, match="too many arguments"):
        run({"more": jnp.zeros(1, jnp.float32)})


def test_sequences_that_start_are_among_the_restart_states():
    starts = jnp.full((1, BATCH, TIME), SEQUENCES, jnp.int32)
    with pytest.raises(ERRORS, match="starts must be less"):
        run({"starts": starts})


@pytest.mark.parametrize(
    ("name", "value"), [("cell", 7), ("activation", 3), ("time_axis", 2)]
)
def test_attributes_are_checked(name, value):
    with pytest.raises(ERRORS, match=f"{name} must be"):
        run(**{name: value})


def test_only_cells_with_peepholes_or_norms_take_what_these_read():
    with pytest.raises(ERRORS, match="elementwise must be false for this cell"):
        run(elementwise=True)


def test_there_must_be_a_step():
    with pytest.raises(ERRORS, match="there must be a step"):
        run(time=0)
