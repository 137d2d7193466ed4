"""On many TPU chips, a training step exchanges each gradient once."""

import collections

import jax
import pytest
from compiler_cases import devices

# The examples need more packages than other tests here.
scaling = pytest.importorskip("benchmarks.compilers.scaling")

SIZES = scaling.Sizes(rows=8, steps=32, features=128, units=256, classes=64)
KERNELS = 2 * (128 + 256) * 4 * 256  # Both cells.
PARAMETERS = KERNELS + 2 * 4 * 256 + 2 * 256 * 64 + 64
SCALARS = 64  # More than the bytes of the longest length, loss, count and norms.


@pytest.mark.parametrize("chips", [4, 16])
@pytest.mark.parametrize("layout", scaling.LAYOUTS)
def test_a_step_exchanges_gradients_once(layout, chips):
    devices("v5e")  # Without their compiler, the test is skipped.
    # The examples rely on JAX's defaults.
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        program = scaling.compiled(chips, layout, SIZES)
    assert program.in_loops == []
    sums = collections.Counter()
    for one in program.outside:
        sums[one.kind] += one.bytes
    # Each gradient is summed whole and in float32, even if its parameter is sharded.
    assert 0 < sums.pop("all-reduce") - 4 * PARAMETERS <= SCALARS
    # A TPU's products read bfloat16, so kernels are gathered in bfloat16.
    assert sums == ({"all-gather": 2 * KERNELS} if layout == "FSDP" else {})


def test_bytes_that_a_chip_sends():
    of = lambda kind: [scaling.Collective(kind, 100)]
    assert scaling.sent(of("all-reduce"), 4) == 150
    assert scaling.sent(of("all-gather"), 4) == 75
    assert scaling.sent(of("reduce-scatter"), 4) == 300
    assert scaling.sent(of("all-reduce"), 1) == 0


def test_operations_of_the_products():
    sizes = scaling.Sizes(rows=3, steps=5, features=2, units=4, classes=1)
    gates = 2 * (2 + 4) * 16  # Each weight has a multiplication and an addition.
    state = 2 * 4 * 16
    assert sizes.operations == 2 * 3 * 5 * (gates + gates + state)
