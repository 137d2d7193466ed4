"""Compile-only devices: TPUs and GPUs, which this machine does not need to have."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from .._base.arguments import check_one_of
from .._base.errors import InvalidValue

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


def absent_devices(
    kind: str,
    count: int = 1,
) -> list[Any]:
    """Returns devices for which programs can be compiled but not run.

    Args:
        kind: One of `KINDS`, such as "v5e" or "h100".
        count: The number of devices.

    Raises:
        ImportError: If the compiler for these devices is not installed.
        ValueError: If `kind` is unknown, or `count` exceeds the largest slice.
    """
    fix = "For another kind, pass a device from `jax.experimental.topologies`."
    what = f"one of {', '.join(map(repr, KINDS))}"
    check_one_of("device", kind, KINDS, what, fix)
    if kind in _GPUS:
        return _gpus(kind, count)
    slices = _SLICES[kind]
    chips = next((n for n in slices if n >= count), None)
    if chips is None:
        raise InvalidValue(
            f"`count` must be at most {max(slices)} for {kind!r}, got {count}."
        )
    return _tpus(kind, slices[chips])[:count]


def _tpus(kind: str, shape: str) -> list[Any]:
    """Returns all TPUs of a slice."""
    # This module is imported here because few programs need it.
    from jax.experimental import topologies

    # Start JAX first, because on a machine with TPUs JAX must not see the variables.
    jax.devices()
    try:
        with _environment_of_libtpu():
            name = f"{kind}:{shape}"
            found = topologies.get_topology_desc(platform="tpu", topology_name=name)
    except jax.errors.JaxRuntimeError:
        raise
    except RuntimeError as error:  # JAX cannot find libtpu.
        raise ImportError(
            f"the device {kind!r} needs the compiler for TPUs, which is not "
            "installed. Install it with `pip install 'jax[tpu]'`."
        ) from error
    return list(found.devices)


@contextlib.contextmanager
def _environment_of_libtpu() -> Iterator[None]:
    """Sets variables that libtpu reads when it is loaded, and restores them.

    The variables make libtpu skip the metadata server, which this machine may lack, and
    allow other processes to load libtpu too. Values that the user has set are kept.
    """
    names = {"TPU_SKIP_MDS_QUERY", "ALLOW_MULTIPLE_LIBTPU_LOAD"} - os.environ.keys()
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name in names:
            del os.environ[name]


def _gpus(kind: str, count: int) -> list[Any]:
    """Returns the GPUs of one host."""
    from jax.experimental import topologies

    try:
        found = topologies.get_topology_desc(
            platform="cuda",
            target_config=_GPUS[kind].read_text(),
            topology=f"1x1x{count}",  # The counts of processes, hosts and GPUs.
        )
    except NotImplementedError as error:
        raise ImportError(
            f"the device {kind!r} needs the compiler for GPUs, which JAX "
            "cannot find. Install it with `pip install 'jax[cuda12-local]'`. If this "
            "machine has no GPU, also set JAX_PLATFORMS=cpu before JAX starts."
        ) from error
    return list(found.devices)
