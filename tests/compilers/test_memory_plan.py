"""`memory_plan` for absent devices, and the guide that plans for a TPU."""

import os
import pathlib
import re
import subprocess
import sys

import jax
import pytest
import run_page
from compiler_cases import devices

import jaxrnn
from jaxrnn import LSTMCell
from jaxrnn.memory import Keep, Offload

SHAPE = (4000, 32, 256)  # More than the fast memory of a TPU.
F32 = jax.numpy.float32


def plan_for(device, strategies, shape=SHAPE):
    cell = LSTMCell(shape[-1])
    return jaxrnn.memory_plan(
        cell, shape, strategies, dtype=F32, time_major=True, device=device
    )


@pytest.mark.parametrize("kind", ["v5e", "h100"])
def test_strategies(kind):
    name = devices(kind)[0].device_kind
    plan = plan_for(devices(kind)[0], [Keep(), Offload(Keep()), True])
    keep, offload, swap = plan.rows
    # Each step saves gates, c and h: six numbers of 4 bytes per unit.
    saved = 6 * 4 * 4000 * 32 * 256
    assert keep.saved.device == pytest.approx(saved, rel=0.01)
    assert keep.peak.device >= keep.saved.device
    assert keep.peak.host == keep.saved.host == 0
    assert offload.saved.device < 2**10  # Without parameters.
    assert offload.saved.host == pytest.approx(saved, rel=0.01)
    # The peak includes padding or a copy of the last segment.
    assert offload.peak.host == pytest.approx(saved, rel=0.02)
    assert offload.peak.device < keep.peak.device / 20
    assert swap.strategy == Offload()
    assert swap.peak.host > 0
    assert plan.device == name
    assert plan.title.endswith(f"of 32 rows, float32, on {plan.device}")


def test_a_program_that_does_not_fit():
    device = devices("v5e")[0]  # The GPU's compiler has no such error.
    refused = r"^RESOURCE_EXHAUSTED: Ran out of memory .* exceeds available HBM"
    with pytest.raises(jax.errors.JaxRuntimeError, match=refused) as caught:
        plan_for(device, [Keep()], (20_000, 64, 1024))
    assert "Raised while compiling with Keep()." in caught.value.__notes__
    # The memory grows in proportion to the rows, except for that of the parameters.
    needed = re.search(r"temporaries \(([\d.]+)G\)", str(caught.value))
    plan = plan_for(device, [Keep()], (20_000, 16, 1024))
    planned = 4 * (plan.rows[0].peak.device + plan.inputs) / 2**30
    assert planned == pytest.approx(float(needed[1]), rel=0.01)


def test_the_guide_plans_for_a_tpu():
    """The numbers come from the compiler; record them again for another version."""
    devices("v5e")  # Without their compiler, the test is skipped.
    root = pathlib.Path(__file__).parents[2]
    page = root / "docs" / "guide" / "accelerators.md"
    program = [sys.executable, run_page.__file__, page]
    settings = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONPATH": str(root)}
    # This process may have loaded libtpu too.
    settings |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    settings = os.environ | settings
    done = subprocess.run(
        program, cwd=root, env=settings, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
