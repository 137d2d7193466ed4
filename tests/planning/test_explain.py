"""`explain`: which implementations can run a cell, the bounds, and the errors."""

import re

import jax
import jax.numpy as jnp
import kernel_specs as specs
import pytest
from kernel_specs import BF16, F32

import jaxrnn
from jaxrnn import BasicLSTMCell, CudnnCompatibleGRUCell, GRUCell, LSTMCell
from jaxrnn._kernels.pallas_mosaic_tpu import PallasMosaicTPU

CELLS = {"lstm": LSTMCell, "gru_cudnn": CudnnCompatibleGRUCell}
TEN = [(name, spec) for name in ("lstm", "gru_cudnn") for spec in specs.LARGE]


@pytest.mark.fast("*-B64*")
@pytest.mark.parametrize(("name", "spec"), TEN, ids=str)
def test_ten_runs_on_a_tpu(name, spec):
    cell = CELLS[name](spec.units)
    x = jax.ShapeDtypeStruct((spec.batch, spec.time, spec.depth), BF16)
    found = jaxrnn.explain(cell, x, machine="v5e")
    assert found.chosen == "xla"
    assert [v.serves for v in found.verdicts if "mosaic" in v.implementation] == [True]
    # Products of at least 128 rows with a matrix for each gate, at 197e12 a second.
    gates = 4 if name == "lstm" else 3
    least = max(spec.batch, 128) * 2 * gates * spec.units**2 / 197e12
    traffic = spec.batch * (4 * gates + 2) * spec.units
    assert found.kernel.step.time == pytest.approx(max(least, traffic / 820e9))
    assert found.kernel.step.traffic == pytest.approx(traffic)
    assert found.kernel.step.flops == pytest.approx(least * 197e12)
    assert found.kernel.forward > spec.time * found.kernel.step.time
    assert found.xla.training > found.kernel.training
    x = jax.ShapeDtypeStruct((spec.time, spec.batch, spec.depth), BF16)
    assert jaxrnn.explain(cell, x, machine="v5e", time_major=True) == found


def test_matrices_that_do_not_fit():
    x = jax.ShapeDtypeStruct((16, 100, 512), F32)
    small, large = (
        str(jaxrnn.explain(LSTMCell(units), x, machine="v4")) for units in (512, 1024)
    )
    assert re.search(r"pallas_mosaic_tpu  yes  \d+\.\d of 16 MiB", small)
    assert re.search(r"matrices 16\.0, 8\.0 of them read again at every step", large)
    text = str(jaxrnn.explain(LSTMCell(512), x, machine="h100"))
    assert re.search("pallas_mosaic_tpu  no   runs on tpu", text)
    # XLA's loop reads at every step what does not fit the cache of an H100.
    wide = jax.ShapeDtypeStruct((16, 100, 2048), F32)
    step = jaxrnn.explain(LSTMCell(2048), wide, machine="h100").xla.step.time
    assert step > 4 * 4 * 2048 * 4096 / 3352e9


def test_what_exceeds_vmem_is_read_at_every_step():
    x = jax.ShapeDtypeStruct((16, 100, 64), BF16)
    found = jaxrnn.explain(LSTMCell(4096), x, machine="v4").kernel
    # What the rows read and write, and the matrix of the state but for at most 16 MiB.
    rows, matrix = 16 * (4 * 4 * 4096 + 2 * 4096), 2 * 4096 * 4 * 4096
    work = specs.work_of(LSTMCell(4096), 16, 100, 64, BF16)
    tiles = 16 // PallasMosaicTPU("v4").tiling(work).rows
    streamed = (found.step.traffic - rows) / tiles
    assert matrix - 16 * 2**20 < streamed < matrix
    assert found.step.time == pytest.approx(found.step.traffic / 615e9)
    text = str(jaxrnn.explain(LSTMCell(4096), x, machine="V4"))
    assert (
        f"matrices 128.0, {streamed / 2**20:.1f} of them read again at every step"
        in text
    )


def test_without_a_kernel_there_is_no_row_of_one():
    x = jax.ShapeDtypeStruct((16, 100, 64), BF16)
    text = str(jaxrnn.explain(LSTMCell(512), x, machine="h100"))
    assert "no kernel can run it" in text
    assert "with a kernel" not in text
    assert re.search(r"pallas_triton      no   the matrices, 2048 KiB, and the", text)


HALF = jax.ShapeDtypeStruct((2, 3, 4), BF16)
REFUSED = {
    "bound": (TypeError, "AffineCell", lambda: (LSTMCell(3).bind({}), HALF)),
    "rank": (ValueError, r"must be \[batch, time", lambda: (LSTMCell(3), [HALF])),
    "shape": (
        ValueError,
        r"Pass an array or `jax.ShapeDtypeStruct\(\(2, 3, 4\), jnp.float32\)`",
        lambda: (LSTMCell(3), HALF.shape),
    ),
    "nothing": (
        ValueError,
        r"integers from 1 on, got bfloat16\[0, 3, 4\]",
        lambda: (LSTMCell(3), jax.ShapeDtypeStruct((0, 3, 4), BF16)),
    ),
    "symbolic": (
        ValueError,
        r"integers from 1 on, got bfloat16\[b, 3, 4\]",
        lambda: (
            LSTMCell(3),
            jax.ShapeDtypeStruct(jax.export.symbolic_shape("b, 3, 4"), BF16),
        ),
    ),
    "state": (
        TypeError,
        "GRUCell: `inputs`, `state` and the cell must share one dtype",
        lambda: (GRUCell(3), HALF, jax.ShapeDtypeStruct((2, 3), F32)),
    ),
    "integers": (
        ValueError,
        "only supports floating point",
        lambda: (GRUCell(3), jnp.ones((2, 3, 4), jnp.int32)),
    ),
    "float64": (
        ValueError,
        r"no kernel can run GRUCell\(.*\) over float64\[2, 4\]: it computes in float32",
        lambda: (GRUCell(3), jnp.ones((2, 3, 4))),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    error, message, given = REFUSED[name]
    with pytest.raises(error, match=message):
        jaxrnn.explain(*given())


@pytest.mark.parametrize("machine", ["v9", 5, ["v5e"]], ids=str)
def test_unknown_machines(machine):
    with pytest.raises(ValueError, match=r"`machine` must be one of v4, v5e, .*, got"):
        jaxrnn.explain(LSTMCell(3), HALF, machine=machine)


def test_a_memory_in_float32():
    c, h = (jax.ShapeDtypeStruct((2, 16), dtype) for dtype in (F32, BF16))
    state = jaxrnn.LSTMStateTuple(c, h)
    verdicts = jaxrnn.explain(LSTMCell(16), HALF, state, machine="h100").verdicts
    serving = [v.implementation for v in verdicts if v.serves]
    assert serving == ["xla", "pallas_triton"]


def test_cudnn_is_judged_by_the_sizes():
    """Even on a machine without a GPU."""
    yes = "yes  cuDNN runs all steps in one call, products of the inputs"
    for cell, time, dtype, machine, line in (
        (LSTMCell(768), 1024, F32, "h100", yes),
        (BasicLSTMCell(768, forget_bias=0), 65_535, F32, "h200", yes),
        (LSTMCell(768), 65_536, F32, "h100", "no   it takes 65535 steps at most"),
        (LSTMCell(768), 1024, BF16, "h100", "no   it computes in float32, got bfl"),
        (GRUCell(768), 1024, F32, "h100", "no   it runs plain LSTMs with tanh: GRU"),
        (LSTMCell(768), 1024, F32, "v5e", "no   runs on cuda"),
    ):
        x = jax.ShapeDtypeStruct((16, time, 512), dtype)
        found = jaxrnn.explain(cell, x, machine=machine)
        assert found.chosen == "xla"
        assert re.search(rf"^  cudnn +{line}", str(found), re.MULTILINE), str(found)
