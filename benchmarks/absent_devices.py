"""Compile-only devices: TPUs and GPUs, which this machine does not need to have.

`pip install "jax[tpu,cuda12-local]"` installs the compilers.
"""

import os
from pathlib import Path
from typing import Any

import jax
from jax.experimental import topologies

# The TPU slices to compile for, keyed by kind and number of chips. If no slice has the
# requested number of devices, the first devices of the next larger slice are used.
_SLICES = {
    "v5e": {4: "2x2", 16: "4x4", 64: "8x8", 256: "16x16"},
    "v6e": {4: "2x2", 16: "4x4", 64: "8x8", 256: "16x16"},
    "v5p": {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 64: "4x4x4"},
}

# GPU properties published by NVIDIA, which XLA's compiler would otherwise query from a
# GPU.
_GPUS = {"h100": Path(__file__).with_name("h100.txtpb")}

KINDS = (*_SLICES, *_GPUS)


def absent_devices(kind: str, count: int = 1) -> list[Any]:
    """Returns devices for which programs can be compiled but not run.

    Args:
        kind: One of `KINDS`, such as "v5e" or "h100".
        count: The number of devices.
    """
    # JAX must not read the variables on a machine with TPUs, so start JAX before.
    jax.devices()
    # libtpu skips the metadata server, and allows other processes to load it too.
    for name in "TPU_SKIP_MDS_QUERY", "ALLOW_MULTIPLE_LIBTPU_LOAD":
        os.environ.setdefault(name, "1")
    if kind in _GPUS:
        topology = topologies.get_topology_desc(
            platform="cuda",
            target_config=_GPUS[kind].read_text(),
            topology=f"1x1x{count}",  # The counts of processes, hosts and GPUs.
        )
    else:
        size = next(size for chips, size in _SLICES[kind].items() if chips >= count)
        topology = topologies.get_topology_desc(
            platform="tpu", topology_name=f"{kind}:{size}"
        )
    return topology.devices[:count]
