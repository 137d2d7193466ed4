"""Machines by name: what a kernel must fit, and how fast they could be at best."""

import dataclasses

import jax

from .._errors import describe
from .._typing import DType

KIB, MIB = 2**10, 2**20


@dataclasses.dataclass(frozen=True)
class Machine:
    """One core of a TPU, or a GPU.

    Attributes:
        name: What users call it.
        platform: "tpu" or "cuda".
        memory: Bytes that a kernel can keep next to the arithmetic: VMEM of a core, or
            the shared memory of one block of threads.
        bandwidth: Bytes a second from and to the large memory.
        flops: Operations a second of matrix products in bfloat16.
        flops_float32: The same in float32, as JAX computes them by default.
        least_rows: The rows that a matrix product costs at least.
    """

    name: str
    platform: str
    memory: int
    bandwidth: float
    flops: float
    flops_float32: float
    least_rows: int

    def peak(self, dtype: DType) -> float:
        """Operations a second of matrix products in that dtype."""
        return self.flops if dtype.itemsize == 2 else self.flops_float32


# TPUs as `pltpu.get_tpu_info_for_chip` has them, a core each; on them a float32 product
# is one of bfloat16 unless JAX is told otherwise. GPUs as NVIDIA's data sheets have
# them, dense; on them it is one of TF32.
MACHINES = {
    machine.name: machine
    for machine in (
        Machine("v4", "tpu", 16 * MIB, 615e9, 137.5e12, 137.5e12, 128),
        Machine("v5e", "tpu", 128 * MIB, 820e9, 197e12, 197e12, 128),
        Machine("v5p", "tpu", 64 * MIB, 1230e9, 229.5e12, 229.5e12, 128),
        Machine("v6e", "tpu", 128 * MIB, 1640e9, 920e12, 920e12, 256),
        Machine("h100", "cuda", 227 * KIB, 3352e9, 989e12, 495e12, 64),
        Machine("h200", "cuda", 227 * KIB, 4800e9, 989e12, 495e12, 64),
    )
}


# How JAX calls them.
_KINDS = {
    "TPU v4": "v4",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA H200": "h200",
}
_LIKELIEST = {"tpu": "v5e", "cuda": "h100"}


def machine_here(platform: str) -> Machine:
    """The machine that JAX runs on, or else the likeliest of that platform."""
    here = MACHINES.get(_KINDS.get(jax.devices()[0].device_kind, ""))
    if here is None or here.platform != platform:
        return MACHINES[_LIKELIEST[platform]]
    return here


def as_machine(where: str, name: str) -> Machine:
    """The machine of that name.

    Raises:
        ValueError: If it is not known.
    """
    if name not in MACHINES:
        raise ValueError(
            f"{where}: `machine` must be one of {', '.join(MACHINES)}, got "
            f"{describe(name)}."
        )
    return MACHINES[name]
