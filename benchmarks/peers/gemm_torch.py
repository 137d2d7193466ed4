"""The matrix products alone, in PyTorch: those of `gemm_xla`, one call each."""

from typing import Any

import torch

from ..core.built import Built, Variant
from ..core.cases import Case
from ..core.data import Data
from . import _gemm
from .torch import set_up

USES = ("torch",)


def build(case: Case, data: Data) -> Built:
    """The products of the loops write to memory that is allocated in advance."""
    operands = _tensors(_gemm.operands(case, data))
    set_up()

    @torch.inference_mode()
    def forward():
        _chain(case.time, operands["steps"], operands["kernels"])

    @torch.inference_mode()
    def train():
        forward()
        _chain(case.time, operands["back_steps"], operands["back_kernels"])
        for x, z in operands["by_weights"]:
            x.T @ z
        for z, kernel in operands["by_inputs"]:
            z @ kernel

    return Built({"": Variant(forward if case.is_forward else train, None)})


def _tensors(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _tensors(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_tensors(value) for value in tree]
    return torch.from_numpy(tree)


def _chain(
    time: int, operands: list[torch.Tensor], kernels: list[torch.Tensor]
) -> None:
    pairs = [(x, k, x @ k) for x, k in zip(operands, kernels, strict=True)]
    for _ in range(time):
        for x, kernel, out in pairs:
            torch.mm(x, kernel, out=out)
