"""PyTorch on a GPU: `nn.LSTM` and `nn.GRU`, which cuDNN runs."""

import functools
from collections.abc import Callable
from typing import Any

import torch

from ..core import results
from ..core.built import Built, LeftOutError, Variant
from ..core.cases import Case
from ..core.data import Data
from ..peers.torch import USES as USES, Net, make_run

if not torch.cuda.is_available():
    raise LeftOutError("PyTorch sees no GPU")


def build(case: Case, data: Data) -> Built:
    """The module as it is, with TF32 or without."""
    uses_tf32 = case.arithmetic == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = uses_tf32
    torch.backends.cudnn.allow_tf32 = uses_tf32
    net = Net(case, data, "cuda")
    net.module.train(not case.is_forward)
    call = make_run(net, case.mode)
    read = functools.partial(results.read, case.mode, data, net)

    def run():
        result = call()
        torch.cuda.synchronize()
        return result

    return Built({"cuDNN": Variant(run, read, {"temp_bytes": _extra_bytes(run)})})


def _extra_bytes(run: Callable[[], Any]) -> int:
    """The peak memory of a call beyond what was allocated before; with its results."""
    run()  # What is allocated once and kept is no part of it.
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    return torch.cuda.max_memory_allocated() - before
