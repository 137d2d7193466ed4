"""The process of peers on an accelerator: `python -m benchmarks.accelerator.worker`."""

import importlib
from typing import Any

from ..core import worker
from ..core.built import Built
from ..core.cases import Case
from ..core.data import Data
from . import IMPLEMENTATIONS

ROUND = {"seconds": 0.2, "least": 5}
PRECISIONS = {"float32": "highest", "tf32": "default", "bfloat16": "default"}


class Worker(worker.Worker):
    """As in the race; many short calls a round, as the time to launch them varies."""

    round = ROUND

    def load(self) -> Any:
        """The peer's module; that of PyTorch needs no JAX."""
        here = "benchmarks.accelerator"
        if self.name == "torch":
            return importlib.import_module(f"{here}.cudnn")
        if self.name in IMPLEMENTATIONS:
            self.ours = importlib.import_module(f"{here}.ours")
            return importlib.import_module("benchmarks.peers.jaxrnn")
        return super().load()

    def build(self, case: Case, data: Data) -> Built:
        """The peer on a case, with products as its arithmetic has them."""
        if self.name == "torch":
            return self.peer.build(case, data)
        jax = importlib.import_module("jax")
        with jax.default_matmul_precision(PRECISIONS[case.arithmetic]):
            if self.name in IMPLEMENTATIONS:
                return self.ours.build(case, data, self.name)
            return self.peer.build(case, data)

    def prepare(self, case: dict[str, Any]) -> dict[str, Any]:
        """As in the race, where no peer runs another equation: that is another case."""
        if case["cell"] == "gru" and self.name in ("linen", "nnx", "torch"):
            return {"left_out": "its GRU resets after the product: see gru_after"}
        answer = super().prepare(case)
        # The terms of the loss cancel: its rounding can be as large as itself.
        answer.get("sums", {}).pop("loss", None)
        return answer

    def device(self) -> dict[str, Any]:
        """The device in words."""
        return importlib.import_module("benchmarks.accelerator.device").describe()


if __name__ == "__main__":
    worker.serve(Worker)
