"""Compile-only devices: TPUs and GPUs, which this machine does not need to have."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from .._base.arguments import as_count
from .._base.expect import expect

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

    Raises:
        ImportError: If the compiler for these devices is not installed.
        ValueError: If `kind` is unknown, or `count` exceeds the largest slice.
    """
    # Import `topologies` only here, because few programs need this JAX module.
    from jax.experimental import topologies

    what = f"one of {', '.join(map(repr, KINDS))}"
    fix = "For another kind, pass a device from `jax.experimental.topologies`."
    expect(kind in KINDS, "device", f"be {what}", kind, fix)
    also = ""
    if kind in _GPUS:
        package = "jax[cuda12-local]"
        also = (
            " On a machine without a GPU, also set JAX_PLATFORMS=cpu before JAX starts."
        )
        arguments = {
            "platform": "cuda",
            "target_config": _GPUS[kind].read_text(),
            "topology": f"1x1x{count}",  # The counts of processes, hosts and GPUs.
        }
    else:
        package = "jax[tpu]"
        slices = _SLICES[kind]
        as_count("count", count, most=max(slices))
        chips = next(chips for chips in slices if chips >= count)
        arguments = {"platform": "tpu", "topology_name": f"{kind}:{slices[chips]}"}
    # Start JAX before setting environment variables, because JAX must not read these
    # variables on a machine with TPUs.
    jax.devices()
    try:
        with _environment_of_libtpu():
            return topologies.get_topology_desc(**arguments).devices[:count]
    except jax.errors.JaxRuntimeError:
        raise
    except RuntimeError as error:  # Includes NotImplementedError.
        raise ImportError(
            f"`device` {kind!r} needs a compiler that JAX cannot find. Run "
            f"`pip install '{package}'`.{also}"
        ) from error


@contextlib.contextmanager
def _environment_of_libtpu() -> Iterator[None]:
    """Sets environment variables while libtpu is loaded, and then removes them.

    The variables make libtpu skip the metadata server, which this machine may lack, and
    allow other processes to load libtpu too. Variables that the user has set do not
    change.
    """
    names = {"TPU_SKIP_MDS_QUERY", "ALLOW_MULTIPLE_LIBTPU_LOAD"} - os.environ.keys()
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name in names:
            del os.environ[name]
