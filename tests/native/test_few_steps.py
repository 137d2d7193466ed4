"""The choice between the native loops and XLA's loop for a few steps."""

import jax
import jax.numpy as jnp
import native_cases
import pytest

import jaxrnn
from jaxrnn._cells.affine.few_steps import why_few_steps
from jaxrnn._loops.steps import Run, Steps

pytestmark = native_cases.needs_library

# Microseconds of one call in a `lax.scan` over calls, and of a gradient, each natively
# and by XLA's loop (two cores of an Intel Xeon with AMX, JAX 0.10.2, idle): of an LSTM,
# by rows, inputs and units, and by steps.
TIMES = {
    (1, 64, 128): {4: (71, 23, 285, 104), 12: (117, 70, 312, 188)},
    (1, 128, 256): {4: (286, 82, 857, 646), 24: (437, 422, 1090, 1314)},
    (4, 64, 128): {4: (180, 56, 542, 334), 16: (293, 212, 822, 1286)},
    (4, 256, 512): {4: (1367, 569, 4291, 3553), 24: (2510, 2640, 7148, 9482)},
    (16, 64, 128): {2: (94, 49, 293, 295), 12: (256, 297, 821, 1407)},
    (16, 128, 256): {2: (325, 153, 1014, 867), 8: (518, 524, 1806, 2157)},
    (16, 256, 512): {4: (1437, 1264, 4494, 4675), 12: (4828, 7165, 15589, 21225)},
    (64, 64, 128): {4: (270, 381, 909, 1578), 16: (854, 1637, 2767, 5685)},
    (64, 128, 256): {4: (945, 1067, 3363, 3670), 16: (3022, 4011, 8630, 16293)},
}


def run_of(rows, depth, units, steps):
    x = jax.ShapeDtypeStruct((rows, steps, depth), jnp.float32)
    return jaxrnn.LSTMCell(units), Run(x, None, Steps(time=steps, axis=1))


@pytest.mark.parametrize("sizes", TIMES, ids=str)
def test_the_chosen_loop_is_the_faster_one(sizes):
    """The choice does not see whether a run is differentiated."""
    for steps, (native, xla, native_gradient, xla_gradient) in TIMES[sizes].items():
        ratio = native / xla * native_gradient / xla_gradient
        is_few = why_few_steps(*run_of(*sizes, steps)) is not None
        assert is_few == (ratio > 1) or 0.9 < ratio < 1.1


def test_more_steps_are_never_fewer():
    for sizes in TIMES:
        is_few = [bool(why_few_steps(*run_of(*sizes, t))) for t in range(1, 40)]
        assert is_few == sorted(is_few, reverse=True)
        assert not is_few[-1]


def test_explain_says_why(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    cell = jaxrnn.LSTMCell(128)
    found = {}
    for steps in (1, 4, 100):
        x = jax.ShapeDtypeStruct((4, steps, 64), jnp.float32)
        types = jax.eval_shape(cell.init, jax.random.key(0), x.update(shape=(4, 64)))
        found[steps] = jaxrnn.explain(cell.bind(types), x, dtype=jnp.float32)
    assert [one.loop for one in found.values()] == ["step", "xla", "native"]
    assert found[4].reason == "XLA's loop is faster for so few steps"
    assert not found[1].reason
