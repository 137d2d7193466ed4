"""The cases of the compilation benchmark."""

from ..core.cases import make_cases as _cases

BOTH = ("dense", "uniform")

FULL = [
    *_cases("lstm", 16, 50, 32, 64, lengths=BOTH),
    *_cases("gru_after", 16, 50, 32, 64, lengths=BOTH, modes=["train"]),
    *_cases("lstm2", 16, 50, 32, 64, lengths=BOTH, modes=["train"]),
    *_cases("lstm", 64, 200, 128, 256, lengths=BOTH, modes=["train"]),
]

SMOKE = _cases("lstm", 3, 8, 4, 5, lengths=["uniform"], modes=["forward"])

PRESETS = {"smoke": SMOKE, "full": FULL}
TAKES = {"smoke": "seconds", "full": "a quarter of an hour"}
