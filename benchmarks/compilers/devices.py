"""Devices that are not there, which the compilers of TPUs and GPUs compile for.

Set JAX_PLATFORMS=cpu, or `jax.config.update("jax_platforms", "cpu")` before JAX starts.
Otherwise JAX looks for TPUs and GPUs, and its CUDA plugin gives up without one.
"""

import os
from pathlib import Path

# libtpu reads these when it is loaded: there is no metadata server to ask, and several
# processes compile at once.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")

from jax.experimental import topologies

# The smallest slices of a kind of TPU, by their number of chips. A smaller number of
# devices is a part of one.
_SLICES = {
    "v5e": {4: "2x2", 16: "4x4", 64: "8x8", 256: "16x16"},
    "v6e": {4: "2x2", 16: "4x4", 64: "8x8", 256: "16x16"},
    "v5p": {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 64: "4x4x4"},
}

# What XLA's GPU compiler asks a GPU for, as NVIDIA publishes it.
_GPUS = {"h100": Path(__file__).with_name("h100.txtpb")}

KINDS = (*_SLICES, *_GPUS)


def devices(kind: str, count: int = 1) -> list:
    """`count` devices of a kind, such as "v5e" or "h100", that only compile."""
    if kind in _GPUS:
        return _gpus(kind, count)
    if kind not in _SLICES:
        raise ValueError(f"`kind` must be one of {', '.join(KINDS)}, got {kind!r}.")
    slices = _SLICES[kind]
    chips = next((n for n in slices if n >= count), None)
    if chips is None:
        raise ValueError(f"`count` must be at most {max(slices)} for {kind}.")
    name = f"{kind}:{slices[chips]}"
    found = topologies.get_topology_desc(platform="tpu", topology_name=name).devices
    return list(found)[:count]


def _gpus(kind: str, count: int) -> list:
    """GPUs of one host."""
    try:
        topology = topologies.get_topology_desc(
            platform="cuda",
            target_config=_GPUS[kind].read_text(),
            topology=f"1x1x{count}",  # Processes, hosts, GPUs.
        )
    except NotImplementedError as error:
        raise RuntimeError(
            "There is no compiler for GPUs. Run `pip install jax-cuda12-plugin` with "
            "the version of JAX, and set JAX_PLATFORMS=cpu."
        ) from error
    return list(topology.devices)
