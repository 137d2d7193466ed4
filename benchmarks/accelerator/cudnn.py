"""PyTorch on a GPU: `nn.LSTM` and `nn.GRU`, which cuDNN runs."""

from collections.abc import Callable
from typing import Any

import torch

from ..built import Built, LeftOutError, Variant
from ..data import Data
from ..peers.torch import MODES, USES as USES, Net
from .cases import Case

if not torch.cuda.is_available():
    raise LeftOutError("PyTorch sees no GPU")


def build(case: Case, data: Data) -> Built:
    """The module as it is, with TF32 or without."""
    uses_tf32 = case.arithmetic == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = uses_tf32
    torch.backends.cudnn.allow_tf32 = uses_tf32
    net = Net(case, data, "cuda")
    net.module.train(not case.is_forward)
    run, read = MODES[case.mode](net)
    run = _finished(run)
    return Built({"cuDNN": Variant(run, read, {"temp_bytes": _extra_bytes(run)})})


def _finished(run: Callable[[], Any]) -> Callable[[], Any]:
    """Calls that return when the GPU is done."""

    def finished() -> Any:
        result = run()
        torch.cuda.synchronize()
        return result

    return finished


def _extra_bytes(run: Callable[[], Any]) -> int:
    """The most memory that a call takes beside what is there before; with results."""
    run()  # What stays from call to call is there from now on.
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    return torch.cuda.max_memory_allocated() - before
