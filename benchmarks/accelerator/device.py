"""The device that JAX runs on, in words."""

import importlib.metadata
import re
import shutil
import subprocess
from typing import Any

import jax

from jaxrnn._kernels._machines import machine_here

# Whose versions decide how fast it is, beside those that each peer names.
LIBRARIES = r"jax-cuda\d+-(plugin|pjrt)|jax-rocm\d+-(plugin|pjrt)|libtpu"
LIBRARIES += r"|nvidia-(cudnn|cublas)(-cu\d+)?|triton"


def platform() -> str:
    """What the first device is: "cpu", "tpu", "cuda" or "rocm"."""
    device = jax.devices()[0]
    if device.platform != "gpu":
        return device.platform
    return "rocm" if "rocm" in device.client.platform_version.lower() else "cuda"


def describe() -> dict[str, Any]:
    """The first device, what the planner calls it (or None), and its software."""
    device, machine = jax.devices()[0], machine_here()
    return {
        "platform": platform(),
        "kind": device.device_kind,
        "machine": None if machine is None else machine.name,
        "software": {"runtime": _runtime(device), **_driver(), **_libraries()},
    }


def _runtime(device: Any) -> str:
    return " ".join(device.client.platform_version.split())


def _driver() -> dict[str, str]:
    """That of NVIDIA, if there is one that tells."""
    if platform() != "cuda" or shutil.which("nvidia-smi") is None:
        return {}
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    answer = subprocess.run(asked, capture_output=True, text=True, check=False)
    version = answer.stdout.partition("\n")[0].strip()
    return {"driver": version} if version and answer.returncode == 0 else {}


def _libraries() -> dict[str, str]:
    found = {
        distribution.metadata["Name"]: distribution.version
        for distribution in importlib.metadata.distributions()
    }
    return {
        name: version
        for name, version in sorted(found.items())
        if re.fullmatch(LIBRARIES, name)
    }
