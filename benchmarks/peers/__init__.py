"""The peers. Each file has `USES`, its packages, and `build(case, data) -> Built`."""

import dataclasses
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Contestant:
    """A peer with the settings for all cases of a race.

    Attributes:
        name: The name of its column in the tables.
        peer: The name of its file in this folder.
        run: Replaces `Case.run` if it is not empty.
        python: The Python interpreter of its environment.
        checkout: The folder that it imports `jaxrnn` from.
    """

    name: str
    peer: str
    run: str = ""
    python: str = sys.executable
    checkout: Path = ROOT


OURS = Contestant("jaxrnn", "jaxrnn")
OLD = "jaxrnn_old"  # The jaxrnn of another checkout.
_XLA = Contestant("jaxrnn_xla", "jaxrnn", "xla")  # Without the native loops.
_SCAN, _HAIKU = Contestant("scan", "scan"), Contestant("haiku", "haiku")
_LINEN, _NNX = Contestant("linen", "linen"), Contestant("nnx", "nnx")

# The first contestant of each race is the one that the others are compared with.
RACE = [
    OURS,
    _XLA,
    Contestant("packed", "jaxrnn", "packed"),
    Contestant("batched", "jaxrnn", "batched"),
    _SCAN,
    _LINEN,
    _NNX,
    _HAIKU,
    Contestant("keras", "keras"),
    Contestant("torch", "torch"),
    Contestant("tensorflow", "tensorflow"),
    Contestant("by_hand", "by_hand"),
]
COMPILATION = [OURS, _XLA, _SCAN, _LINEN, _NNX, _HAIKU]
MEMORY = [
    *(
        Contestant(strategy, "jaxrnn", strategy)
        for strategy in (
            "Keep()",
            "Recompute(1)",
            "Recompute()",
            "Offload(Keep())",
            "Offload(Recompute(64))",
        )
    ),
    _SCAN,
    Contestant("scan (parts)", "scan", "parts"),
    _LINEN,
    _NNX,
    _HAIKU,
]
_TORCH = Contestant("torch", "torch", "cuda")
GPU = [OURS, Contestant("jax_rnn", "jax_rnn"), _SCAN, _LINEN, _TORCH]
# What decides the speed of a loop on a GPU.
GPU_LOOPS = [
    OURS,
    *(
        Contestant(run, "jaxrnn", run)
        for run in ("graph", "graph, unrolled", "unroll 4", "unroll 8")
    ),
]
# The published kernels that `implementation` may name.
GPU_KERNELS = [OURS, Contestant("jla", "jaxrnn", "jla")]
GPU_MEMORY = [MEMORY[0], MEMORY[2], MEMORY[4]]
RECURRENCES = [
    OURS,
    Contestant("resets", "jaxrnn", "resets"),
    Contestant("lengths", "jaxrnn", "lengths"),
    Contestant("chunked", "recurrences", "chunked"),
    Contestant("scan", "recurrences", "scan"),
    Contestant("associative", "recurrences", "associative"),
]
