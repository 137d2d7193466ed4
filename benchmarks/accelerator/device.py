"""The device that JAX runs on, in words."""

import importlib.metadata
import re
import shutil
import subprocess
from typing import Any

import jax

from ..core.cases import Case
from .bounds import explain
from .cases import TINY

# Packages whose versions affect the speed, besides those that each peer names.
LIBRARIES = (
    r"jax-(cuda\d+|rocm\d+)-(plugin|pjrt)|libtpu|nvidia-(cudnn|cublas)(-cu\d+)?|triton"
)


def describe() -> dict[str, Any]:
    """The first device, its name in `jaxrnn.explain` (or None), and its software."""
    device = jax.devices()[0]
    runtime = " ".join(device.client.platform_version.split())
    platform = device.platform
    if platform == "gpu":
        platform = "rocm" if "rocm" in runtime.lower() else "cuda"
    return {
        "platform": platform,
        "kind": device.device_kind,
        "machine": _machine(device.device_kind),
        "software": {"runtime": runtime, **_driver(platform), **_libraries()},
    }


def _machine(kind: str) -> str | None:
    """What `jaxrnn.explain` calls it, which takes a v5e where it knows no machine."""
    name = explain(Case("lstm", *TINY), None).machine
    return None if name == "v5e" and "v5" not in kind.lower() else name


def _driver(platform: str) -> dict[str, str]:
    """The version of NVIDIA's driver, if it can be asked."""
    if platform != "cuda" or shutil.which("nvidia-smi") is None:
        return {}
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
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
