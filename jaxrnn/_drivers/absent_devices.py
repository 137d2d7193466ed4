"""Devices that are not there, for which the compilers of TPUs and GPUs compile."""

import os
from pathlib import Path
from typing import Any

import jax

from .._base.arguments import check_one_of

# The slices of a kind of TPU to compile for, by their number of chips. Fewer devices
# are the first ones of a slice.
_SLICES = {
    "v5e": {4: "2x2", 16: "4x4", 64: "8x8", 256: "16x16"},
    "v6e": {4: "2x2", 16: "4x4", 64: "8x8", 256: "16x16"},
    "v5p": {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 64: "4x4x4"},
}

# The properties that XLA's GPU compiler would ask of a GPU, as NVIDIA publishes them.
_GPUS = {"h100": Path(__file__).with_name("h100.txtpb")}

KINDS = (*_SLICES, *_GPUS)


def absent_devices(
    kind: str, count: int = 1, caller: str = "absent_devices"
) -> list[Any]:
    """Devices of a kind that only compile.

    Args:
        kind: One of `KINDS`, such as "v5e" or "h100".
        count: The number of devices.
        caller: The function that messages name.

    Raises:
        ImportError: If the compiler for such devices is not installed.
        ValueError: If nothing is known of `kind`, or no slice has so many chips.
    """
    fix = "For another kind, pass a device of `jax.experimental.topologies`."
    what = f"one of {', '.join(map(repr, KINDS))}"
    check_one_of(caller, "device", kind, KINDS, what, fix)
    if kind in _GPUS:
        return _gpus(caller, kind, count)
    slices = _SLICES[kind]
    chips = next((n for n in slices if n >= count), None)
    if chips is None:
        raise ValueError(
            f"{caller}: `count` must be at most {max(slices)} for {kind!r}, got "
            f"{count}."
        )
    return _tpus(caller, kind, slices[chips])[:count]


def _tpus(caller: str, kind: str, shape: str) -> list[Any]:
    """All TPUs of a slice."""
    # Imported here, because hardly anyone needs it.
    from jax.experimental import topologies

    # JAX starts first: on a machine with TPUs it must not see these variables. libtpu
    # reads them when it is loaded: there is no metadata server to ask, and other
    # processes may load it too.
    jax.devices()
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    try:
        name = f"{kind}:{shape}"
        found = topologies.get_topology_desc(platform="tpu", topology_name=name)
    except jax.errors.JaxRuntimeError:
        raise
    except RuntimeError as error:  # JAX does not find libtpu.
        raise ImportError(
            f"{caller}: the device {kind!r} needs the compiler for TPUs, which is not "
            "installed. Install it by `pip install 'jax[tpu]'`."
        ) from error
    return list(found.devices)


def _gpus(caller: str, kind: str, count: int) -> list[Any]:
    """GPUs of one host."""
    from jax.experimental import topologies

    try:
        found = topologies.get_topology_desc(
            platform="cuda",
            target_config=_GPUS[kind].read_text(),
            topology=f"1x1x{count}",  # Processes, hosts, GPUs.
        )
    except NotImplementedError as error:
        raise ImportError(
            f"{caller}: the device {kind!r} needs the compiler for GPUs, which JAX "
            "does not find. Install it by `pip install 'jax[cuda12-local]'`, and set "
            "JAX_PLATFORMS=cpu before JAX starts if this machine has no GPU."
        ) from error
    return list(found.devices)
