"""Shared code of the tests in `tests/compilers/`: absent devices.

The tests run if a compiler is installed and JAX runs on the CPU:

    pip install 'jax[tpu,cuda12-local]'
    JAX_PLATFORMS=cpu python -m pytest tests/compilers
"""

import functools
import importlib.util

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

from benchmarks.absent_devices import KINDS, absent_devices

on_cpu = jax.config.jax_platforms == "cpu"
MODULES = {"h100": "jax_cuda12_plugin"}  # All other devices need libtpu.
HERE = [
    kind
    for kind in KINDS
    if on_cpu and importlib.util.find_spec(MODULES.get(kind, "libtpu"))
]


if not HERE:  # Skip the module that imports this one.
    reason = "no compiler for TPUs or GPUs, or JAX_PLATFORMS is not cpu"
    pytest.skip(reason, allow_module_level=True)


@functools.cache
def devices(kind, count=1):
    """Absent devices; the test is skipped if their compiler is not installed."""
    if kind not in HERE:
        pytest.skip("its compiler is not installed")
    return absent_devices(kind, count)


def single(kind):
    """The sharding of arrays on one device."""
    return NamedSharding(Mesh(np.asarray(devices(kind, 1)), ("device",)), P())
