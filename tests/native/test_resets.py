"""Resets in the native loops, against XLA's loop."""

import jax.numpy as jnp
import numpy as np
import pytest
from native_cases import (
    CELLS,
    TIME,
    assert_near,
    data,
    draw,
    everything,
    needs_library,
    on_cpus,
    run,
)

pytestmark = needs_library

RESETS = np.zeros((5, TIME), bool)
RESETS[1] = RESETS[2, 2] = RESETS[3, [0, 1, 4, 5]] = RESETS[4, 3] = True


@pytest.mark.fast("False-lstm", "True-gru", "False-joined")
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("time_major", [False, True])
def test_values_and_gradients(name, time_major):
    """Row 0 has no steps, row 1 has one. The reset states of the rows differ."""
    cell = CELLS[name]
    params, x, state = data(cell)
    resets = RESETS.T if time_major else RESETS
    x = jnp.swapaxes(x, 0, 1) if time_major else x
    options = {"time_major": time_major, "resets": resets}
    options["reset_state"] = draw(state, 3)
    got, want = (
        everything(cell, name, params, x, state, **options)
        for name in ("native", "xla")
    )
    assert_near(got, want)


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_the_states_of_all_steps_are_no_results(name):
    cell = CELLS[name]
    fn = lambda *args, **options: run(cell, "native", *args, **options)
    results = lambda **options: [
        [v.aval.shape for v in eqn.outvars]
        for eqn in on_cpus(lambda *args: fn(*args, **options), *data(cell))
        if eqn.primitive.name == "ffi_call"
    ]
    assert results(resets=RESETS) == results()
