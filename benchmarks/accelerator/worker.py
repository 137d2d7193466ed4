"""The process of peers on an accelerator.

    python -m benchmarks.accelerator.worker NAME

A request names its peer, for a TPU belongs to one process, which then serves them all.
"""

import importlib
from typing import Any

from .. import worker
from .cases import Case

ROUND = {"seconds": 0.2, "least": 5}


class Worker(worker.Worker):
    """As in the race; many short calls a round, as launches vary."""

    case_type = Case
    round = ROUND

    def load(self) -> Any:
        """The peer; that of PyTorch needs no JAX."""
        if self.name == "torch":
            return importlib.import_module("benchmarks.accelerator.cudnn")
        return importlib.import_module("benchmarks.accelerator.in_jax").Peer(self.name)

    def prepare(self, case: dict[str, Any]) -> dict[str, Any]:
        """As in the race; no peer runs another equation: there is a case of that."""
        if case["cell"] == "gru" and self.name in ("linen", "nnx", "torch"):
            return {"left_out": "its GRU resets after the product: see gru_after"}
        answer = super().prepare(case)
        # A sum of terms that cancel: rounding may be all that is left of it.
        answer.get("sums", {}).pop("loss", None)
        return answer

    def device(self) -> dict[str, Any]:
        """The device in words."""
        return importlib.import_module("benchmarks.accelerator.device").describe()


class Workers:
    """Those of one process by name."""

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}

    def relay(self, peer: str, what: str, request: dict[str, Any]) -> dict[str, Any]:
        """The answer of a peer."""
        worker = self._workers.setdefault(peer, Worker(peer))
        return getattr(worker, what)(**request)


if __name__ == "__main__":
    worker.serve(Workers())
