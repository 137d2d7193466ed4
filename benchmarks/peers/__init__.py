"""The peers. Each has `USES`, its packages, and `build(case, data) -> Variants`."""

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
RECURRENCES = [
    OURS,
    Contestant("chunked", "recurrences", "chunked"),
    Contestant("scan", "recurrences", "scan"),
    Contestant("associative", "recurrences", "associative"),
]
