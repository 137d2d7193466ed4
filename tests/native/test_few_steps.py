"""The choice of a simpler loop for a few steps, and for few units."""

import helpers
import jax
import jax.numpy as jnp
import native_cases
import pytest

import jaxrnn
from jaxrnn._cells.affine.few_steps import why_few_steps, why_few_units
from jaxrnn._run.masking import Steps
from jaxrnn.testing._oracle import weighted_sum

pytestmark = native_cases.needs_library

# Microseconds of one call in a `lax.scan` over calls, and of a gradient, each natively
# and by XLA's loop (two cores of an Intel Xeon with AMX, JAX 0.10.2, idle): of an LSTM,
# by rows, inputs and units, and by steps.
TIMES = {
    (1, 64, 128): {2: (19, 22, 207, 136), 6: (37, 44, 180, 260)},
    (1, 128, 256): {2: (58, 54, 574, 416), 6: (91, 200, 692, 957)},
    (1, 256, 512): {3: (402, 725, 3236, 3638), 12: (969, 1770, 4234, 5231)},
    (4, 64, 128): {4: (63, 44, 288, 351), 6: (98, 88, 373, 876)},
    (4, 128, 256): {3: (103, 202, 829, 943), 6: (147, 237, 930, 1331)},
    (16, 64, 128): {2: (68, 60, 244, 444), 6: (120, 163, 506, 879)},
    (16, 128, 256): {2: (232, 360, 1349, 1434), 8: (591, 1181, 2292, 4147)},
    (64, 64, 128): {2: (170, 258, 571, 1397), 12: (838, 1557, 2643, 5405)},
    (64, 128, 256): {2: (549, 590, 1786, 2338), 12: (2534, 3443, 7847, 12244)},
}


def run_of(rows, depth, units, steps):
    x = jax.ShapeDtypeStruct((rows, steps, depth), jnp.float32)
    return jaxrnn.LSTMCell(units), x, Steps(time=steps, axis=1)


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


# Rows, steps, the longest part, and the loop that runs.
LOOPS = {
    (4, 1, None): "step",
    (4, 3, None): "xla",
    (4, 100, None): "native",
    (1, 100, 50): "native",
    (1, 100, 3): "xla",  # Parts of a few steps are few steps.
}


def test_explain_says_why(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    cell = helpers.bound(jaxrnn.LSTMCell(128), 64, "float32")
    for (rows, steps, part), loop in LOOPS.items():
        x = jax.ShapeDtypeStruct((rows, steps, 64), jnp.float32)
        memory = jaxrnn.memory.Recompute(part) if part else False
        found = jaxrnn.explain(cell, x, dtype=x.dtype, swap_memory=memory)
        assert found.loop == loop
        if part is None:
            few = "XLA's loop is faster for so few steps" if loop == "xla" else ""
            assert (found.reason or "") == few


@pytest.mark.parametrize(("rows", "is_native"), [(64, True), (2, False)])
def test_mapped_rows_count(rows, is_native, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    cell = jaxrnn.LSTMCell(64)
    params, x, _ = native_cases.data(cell, rows, time=4, depth=32)

    def total(params, name):
        bound = cell.bind(params)
        one = lambda x: jaxrnn.dynamic_rnn(
            bound, x[None], dtype=x.dtype, implementation=name
        )
        return weighted_sum(jax.vmap(one)(x))

    step = jax.grad(total)
    assert len(native_cases.calls(lambda p: step(p, None), params)) == 2 * is_native
    native_cases.assert_near(step(params, None), step(params, "xla"))


# Milliseconds of a gradient in float64, by a scan of the cell's steps and by XLA's loop
# (two cores of an AMD EPYC, JAX 0.10.2): 64 steps of an LSTM, by rows, inputs and
# units.
UNITS = {
    (1, 16, 16): (0.197, 0.160),
    (8, 4, 24): (0.611, 0.566),
    (16, 4, 16): (0.600, 0.674),
    (16, 4, 48): (2.015, 1.665),
    (64, 4, 24): (2.759, 3.285),
    (64, 4, 32): (3.558, 3.558),
    (128, 16, 16): (4.736, 5.321),
    (128, 32, 32): (15.54, 12.24),
}


@pytest.mark.parametrize("sizes", UNITS, ids=str)
def test_the_scan_of_few_units_is_the_faster_loop(sizes):
    scan, xla = UNITS[sizes]
    is_few = why_few_units(*run_of(*sizes, 64)) is not None
    assert is_few == (scan < xla)


@pytest.mark.parametrize(
    ("dtype", "lengths", "loop"),
    [
        ("float64", None, "scan"),
        ("float64", [3] * 16, "xla"),  # It may skip steps.
        ("float32", None, "native"),
        ("bfloat16", None, "xla"),
    ],
)
def test_explain_says_what_is_faster_for_few_units(dtype, lengths, loop, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    cell = helpers.bound(jaxrnn.LSTMCell(16), 4, dtype)
    x = jax.ShapeDtypeStruct((16, 64, 4), dtype)
    found = jaxrnn.explain(cell, x, lengths, dtype=dtype)
    assert found.loop == loop
    assert ("a scan is faster for so few units" in found.reason) == (loop == "scan")


# Microseconds of a gradient by XLA's loop, whose products transpose the gradients of
# the kernels, or not (two cores of an Intel Xeon with AMX, JAX 0.10.2): of an LSTM, by
# rows, units, which are also the inputs, and steps.
VECTORS = {
    (1, 64, 2): (74, 49),
    (16, 64, 8): (221, 369),
    (1, 96, 32): (280, 253),
    (4, 96, 16): (301, 330),
    (1, 128, 8): (266, 157),
    (16, 128, 16): (1297, 1475),
    (1, 256, 2): (1497, 232),
    (4, 256, 8): (1703, 1011),
    (16, 256, 8): (3109, 2653),
    (64, 256, 8): (6904, 8362),
    (4, 512, 64): (37751, 32904),
    (16, 512, 64): (82548, 96558),
}


@pytest.mark.parametrize("sizes", VECTORS, ids=str)
@pytest.mark.parametrize("is_mapped", [False, True])
def test_gradients_of_kernels_are_transposed_if_that_is_faster(sizes, is_mapped):
    rows, units, steps = sizes
    x = jax.ShapeDtypeStruct((rows, steps, units), jnp.float32)
    cell = helpers.bound(jaxrnn.LSTMCell(units), units, "float32")

    def total(bound, x):
        run = lambda x: jaxrnn.dynamic_rnn(
            bound, x, dtype=x.dtype, implementation="xla"
        )[0]
        return jnp.sum(jax.vmap(lambda x: run(x[None]))(x) if is_mapped else run(x))

    found = helpers.eqns(jax.make_jaxpr(jax.grad(total))(cell, x).jaxpr)
    names = [eqn.primitive.name for eqn in found]
    transposed, plain = VECTORS[sizes]
    # One product with the inputs, and one with the states.
    assert names.count("optimization_barrier") == 2 * (transposed < plain)
