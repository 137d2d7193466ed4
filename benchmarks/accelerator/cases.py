"""The cases of the benchmark of accelerators: dense rows, several precisions."""

from collections.abc import Sequence

from ..core.cases import TOLERANCE, Case, make_cases

# Batch, steps, depth, units.
TINY = (4, 8, 3, 5)
LARGE = (
    (16, 1024, 768, 768),
    (64, 100, 256, 256),
    (128, 50, 1024, 1024),
    (1, 2000, 512, 512),
    (16, 512, 2048, 2048),
)
CELLS = ("lstm", "gru", "gru_after")
BOTH = ("forward", "train")


def _cases(
    sizes: Sequence[tuple], cells: Sequence[str], kinds: Sequence[str], *modes: str
) -> list[Case]:
    return [
        case
        for size in sizes
        for cell in cells
        for kind in kinds
        for case in make_cases(
            cell, *size, modes=modes, group="accelerator", arithmetic=kind
        )
    ]


PRESETS = {
    "smoke": [
        *_cases([TINY], ["lstm"], ["float32"], "train"),
        *_cases([TINY], ["gru"], ["tf32"], "forward"),
        *_cases([TINY], ["gru_after"], ["bfloat16"], "forward"),
    ],
    "quick": [
        *_cases(LARGE[:2], ["lstm", "gru_after"], ["bfloat16"], *BOTH),
        *_cases(LARGE[:2], ["lstm"], ["tf32"], "train"),
    ],
    "full": _cases(LARGE, CELLS, list(TOLERANCE), *BOTH),
}
# Only smoke has been timed; the others are estimates, of a minute a case.
TAKES = {
    "smoke": "about a minute on two cores of a CPU",
    "quick": "perhaps 10 minutes",
    "full": "perhaps 90 minutes",
}
ROUNDS = {"smoke": 2, "quick": 7, "full": 7}
