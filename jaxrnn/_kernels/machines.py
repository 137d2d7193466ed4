"""Machines by name: their memory, which kernels must fit, and their peak speed."""

import dataclasses
import re

import jax

from .._base.errors import describe
from .._base.typing import DType

KIB, MIB = 2**10, 2**20


@dataclasses.dataclass(frozen=True)
class Machine:
    """One core of a TPU, or a GPU.

    Attributes:
        name: What users call it.
        platform: "tpu", "cuda" or "cpu".
        memory: Bytes that a kernel can keep next to the arithmetic units: VMEM of a
            core, or the shared memory of one block of threads.
        cache: Bytes that stay on the chip between the steps of XLA's loops: VMEM, where
            XLA places what a loop reads repeatedly (observed in programs compiled for
            v5e), or the L2 cache.
        bandwidth: Bytes a second from and to the large memory.
        flops: Operations a second of matrix products in bfloat16.
        flops_float32: The same for arrays of float32, whose products JAX computes by
            default in bfloat16 on a TPU, in TF32 on a GPU.
        least_rows: A matrix product of fewer rows takes as long as one of so many.
    """

    name: str
    platform: str
    memory: int
    cache: int
    bandwidth: float
    flops: float
    flops_float32: float
    least_rows: int

    def peak(self, dtype: DType) -> float:
        """Operations a second of matrix products of arrays of that dtype."""
        return self.flops if dtype.itemsize == 2 else self.flops_float32


# Sources. TPUs: `pltpu.get_tpu_info_for_chip`, one core. GPUs: NVIDIA's data sheets,
# without sparsity.
MACHINES = {
    machine.name: machine
    for machine in (
        Machine("v4", "tpu", 16 * MIB, 16 * MIB, 615e9, 137.5e12, 137.5e12, 128),
        Machine("v5e", "tpu", 128 * MIB, 128 * MIB, 820e9, 197e12, 197e12, 128),
        Machine("v5p", "tpu", 64 * MIB, 64 * MIB, 1230e9, 229.5e12, 229.5e12, 128),
        Machine("v6e", "tpu", 128 * MIB, 128 * MIB, 1640e9, 920e12, 920e12, 256),
        Machine("h100", "cuda", 227 * KIB, 50 * MIB, 3352e9, 989e12, 495e12, 64),
        Machine("h200", "cuda", 227 * KIB, 50 * MIB, 4800e9, 989e12, 495e12, 64),
    )
}


# Any CPU: they differ too much for numbers.
CPU = Machine("cpu", "cpu", 0, 0, 0, 0, 0, 0)

# Machines whose `device_kind` does not contain their name.
_KINDS = {
    "TPU v5": "v5p",
    "TPU v5 lite": "v5e",
    "TPU v6 lite": "v6e",
    "NVIDIA GH200 480GB": "h100",
}
# VMEM of TPUs before v5 (`pltpu.get_tpu_info_for_chip`). The shared memory of a block
# on the smaller NVIDIA chips since Ampere (CUDA's programming guide, technical
# specifications of compute capabilities 8.6, 8.9 and 12.0).
LEAST_MEMORY = {"tpu": 16 * MIB, "cuda": 99 * KIB}
_LIKELIEST = {"tpu": "v5e", "cuda": "h100"}


def machine_here() -> Machine | None:
    """The machine of the first device, by its `device_kind`; None if it is not known.

    A `device_kind` is such as "NVIDIA H100 80GB HBM3".
    """
    kind = jax.devices()[0].device_kind
    words = re.findall(r"\w+", kind.lower())
    known = (name for name in MACHINES if name in words)
    return MACHINES.get(_KINDS.get(kind) or next(known, ""))


def machine_of(platform: str) -> Machine:
    """The machine that JAX runs on, or else the likeliest of that platform.

    An unknown machine is assumed to have the least memory of its platform, since a
    kernel that requires more than there is would not start.
    """
    here, likeliest = machine_here(), MACHINES[_LIKELIEST[platform]]
    backend = {"cuda": "gpu"}.get(platform, platform)
    if here is None and jax.default_backend() == backend:
        return dataclasses.replace(likeliest, memory=LEAST_MEMORY[platform])
    return here if here and here.platform == platform else likeliest


def as_machine(where: str, name: str | None) -> Machine:
    """The machine of that name.

    Args:
        where: The calling function, for messages.
        name: None for the machine of the first device, or "v5e" if it is not known.

    Raises:
        ValueError: If no machine has that name.
    """
    if name is None:
        return machine_here() or MACHINES[_LIKELIEST["tpu"]]
    known = MACHINES | {CPU.name: CPU}
    machine = known.get(name.lower()) if isinstance(name, str) else None
    if machine is None:
        raise ValueError(
            f"{where}: `machine` must be one of {', '.join(known)}, got "
            f"{describe(name)}."
        )
    return machine
