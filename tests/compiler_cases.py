"""Shared code of the tests in `tests/compilers/`: absent devices.

The tests run if a compiler is installed and JAX runs on the CPU:

    pip install 'jax[tpu,cuda12-local]'
    JAX_PLATFORMS=cpu python -m pytest tests/compilers
"""

import functools
import importlib.util
import os
import pathlib

import jax
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

# The TPU slices to compile for, keyed by kind and number of chips. If no slice has the
# requested number of devices, the first devices of the next larger slice are used.
SLICES = {
    "v5e": {4: "2x2", 16: "4x4"},
    "v6e": {4: "2x2"},
}
# GPU properties published by NVIDIA, which XLA's compiler would otherwise query from a
# GPU.
GPUS = {"h100": pathlib.Path(__file__).parent / "compilers" / "h100.txtpb"}
KINDS = (*SLICES, *GPUS)

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
    # JAX must not read the variables on a machine with TPUs, so start JAX before.
    jax.devices()
    # libtpu skips the metadata server, and allows other processes to load it too.
    for name in "TPU_SKIP_MDS_QUERY", "ALLOW_MULTIPLE_LIBTPU_LOAD":
        os.environ.setdefault(name, "1")
    if kind in GPUS:
        topology = topologies.get_topology_desc(
            platform="cuda",
            target_config=GPUS[kind].read_text(),
            topology=f"1x1x{count}",  # The counts of processes, hosts and GPUs.
        )
    else:
        size = next(size for chips, size in SLICES[kind].items() if chips >= count)
        topology = topologies.get_topology_desc(
            platform="tpu", topology_name=f"{kind}:{size}"
        )
    return topology.devices[:count]


def single(kind):
    """The sharding of arrays on one device."""
    return NamedSharding(Mesh(np.asarray(devices(kind, 1)), ("device",)), P())
