"""The choice of a simpler loop for a few steps, and for few units."""

import math

import helpers
import jax
import jax.numpy as jnp
import native_cases
import pytest

import jaxrnn
from jaxrnn._loops.affine.few_steps import why_few_steps, why_few_units
from jaxrnn._run.masking import Steps
from jaxrnn.testing._oracle import weighted_sum

pytestmark = native_cases.needs_library

# Microseconds of a call that is a whole program, natively and by XLA's loop, and of
# its gradient; and of a call and a gradient in a `lax.scan` over calls (two cores of an
# Intel Xeon with AMX, JAX 0.10.2): of an LSTM, by rows, inputs and units, and by steps.
TIMES = {
    (1, 5, 5): {
        2: (7.5, 5.6, 12.3, 36, 2.4, 1, 5.6, 6.4),
        6: (7.9, 6.3, 13.6, 40, 2.6, 1.6, 6.5, 9.6),
    },
    (3, 5, 5): {
        2: (7.6, 14.4, 13.3, 39, 2.6, 2.9, 6.5, 8.4),
        6: (8.5, 16.9, 15.7, 42, 3.1, 4.9, 8.8, 17.1),
    },
    (1, 16, 16): {
        2: (7.4, 14.5, 12.7, 37, 3.1, 1.7, 8, 7.8),
        6: (7.9, 17.4, 14.1, 39, 4.1, 3.3, 9.1, 13.8),
    },
    (4, 16, 16): {
        2: (7.9, 20, 13.9, 43, 3.7, 2.6, 8.8, 10.3),
        6: (9.2, 17.8, 16.9, 39, 5.3, 6, 12.2, 21),
    },
    (1, 32, 32): {
        2: (7.9, 15.1, 14.8, 39, 5.1, 3.7, 10.4, 9.2),
        6: (8.8, 16.1, 17.2, 38, 5.5, 4.3, 11.7, 15.3),
    },
    (12, 32, 32): {
        2: (11.9, 18.2, 26, 60, 8.6, 7.1, 21, 22),
        6: (18, 27, 84, 120, 14, 15.2, 40, 58),
    },
    (1, 64, 64): {
        2: (9.3, 18.1, 25, 35, 7.8, 7.7, 20, 12.9),
        6: (12.7, 30, 32, 63, 10.5, 14.1, 26, 25),
    },
    (4, 64, 64): {
        2: (13.2, 21, 32, 46, 11.7, 8.6, 27, 19.3),
        6: (23, 45, 89, 93, 20, 16.4, 48, 44),
    },
    (16, 64, 64): {
        2: (23, 47, 95, 100, 20, 19, 54, 38),
        6: (30, 83, 140, 191, 45, 46, 124, 103),
    },
    (1, 128, 128): {
        2: (17.1, 44, 60, 101, 25, 24, 88, 38),
        6: (20, 63, 57, 132, 44, 53, 94, 71),
    },
    (4, 128, 128): {
        2: (26, 97, 101, 159, 35, 31, 99, 56),
        6: (36, 134, 105, 329, 79, 62, 161, 128),
    },
    (16, 128, 128): {
        2: (40, 102, 173, 298, 80, 64, 176, 116),
        6: (81, 245, 372, 703, 160, 211, 431, 364),
    },
    (1, 256, 256): {
        2: (37, 83, 114, 206, 119, 110, 241, 202),
        6: (131, 177, 334, 619, 180, 200, 342, 332),
    },
    (4, 256, 256): {
        2: (51, 161, 283, 463, 138, 144, 276, 253),
        6: (108, 240, 492, 770, 226, 344, 481, 731),
    },
    (16, 256, 256): {
        2: (128, 284, 580, 755, 249, 296, 544, 488),
        6: (264, 756, 930, 1937, 446, 794, 1111, 1357),
    },
    (16, 512, 512): {
        2: (545, 895, 3387, 3293, 1118, 1053, 3195, 2240),
        6: (1967, 2635, 7466, 8151, 2535, 2761, 7430, 5577),
    },
}


def run_of(rows, depth, units, steps):
    x = jax.ShapeDtypeStruct((rows, steps, depth), jnp.float32)
    return jaxrnn.LSTMCell(units), x, Steps(time=steps, axis=1)


@pytest.mark.parametrize("sizes", TIMES, ids=str)
def test_the_chosen_loop_is_the_faster_one(sizes):
    """The choice sees neither derivatives nor what is around the call."""
    for steps, times in TIMES[sizes].items():
        pairs = zip(times[::2], times[1::2], strict=True)
        call, gradient, in_loop, gradient_in_loop = (xla / own for own, xla in pairs)
        if why_few_steps(*run_of(*sizes, steps)):
            assert math.sqrt(in_loop * gradient_in_loop) < 1.25
        else:
            assert call * gradient * in_loop * gradient_in_loop > 1


def test_more_steps_are_never_fewer():
    for sizes in TIMES:
        is_few = [bool(why_few_steps(*run_of(*sizes, t))) for t in range(1, 40)]
        assert is_few == sorted(is_few, reverse=True)
        assert not is_few[-1]


# Rows, steps, the longest part, and the loop that runs.
LOOPS = {
    (4, 1, None): "step",
    (4, 2, None): "xla",
    (4, 100, None): "native",
    (1, 100, 50): "native",
    (1, 100, 2): "xla",  # Parts of a few steps are few steps.
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
    params, x, _ = native_cases.data(cell, rows, time=3, depth=32)

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
