"""The table of cases."""

import itertools
from collections.abc import Sequence

from jaxrnn._kernels.specs import LARGE, Spec

from .cases import ARITHMETICS, Case

CELLS = ("lstm", "gru", "gru_after")
MODES = ("forward", "train")


def _of(
    specs: Sequence[Spec],
    cells: Sequence[str] = CELLS,
    arithmetics: Sequence[str] = ARITHMETICS,
    modes: Sequence[str] = MODES,
) -> list[Case]:
    return [
        Case(
            cell,
            spec.batch,
            spec.time,
            spec.depth,
            spec.units,
            mode=mode,
            arithmetic=arithmetic,
        )
        for spec, cell, arithmetic, mode in itertools.product(
            specs, cells, arithmetics, modes
        )
    ]


TINY = [Spec(4, 8, 3, 5)]

PRESETS = {
    "smoke": [
        *_of(TINY, ["lstm"], ["float32"], ["train"]),
        *_of(TINY, ["gru"], ["tf32"], ["forward"]),
        *_of(TINY, ["gru_after"], ["bfloat16"], ["forward"]),
    ],
    "quick": [
        *_of(LARGE[:2], ["lstm", "gru_after"], ["bfloat16"]),
        *_of(LARGE[:2], ["lstm"], ["tf32"], ["train"]),
    ],
    "full": _of(LARGE),
}
# Only that of smoke was timed; the others are reckoned as a minute a case.
TAKES = {
    "smoke": "about 1.5 minutes on two cores of a CPU",
    "quick": "perhaps 10 minutes",
    "full": "perhaps 90 minutes",
}
ROUNDS = {"smoke": 2, "quick": 7, "full": 7}
