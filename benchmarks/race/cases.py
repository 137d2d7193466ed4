"""The cases of the race."""

from ..core.cases import make_cases as _cases

ALL_LENGTHS = ("dense", "uniform", "short", "one_long")
ALL_BUT_STREAM = ("forward", "train", "step")

FULL = [
    *_cases("lstm", 48, 80, 192, 320, modes=ALL_BUT_STREAM),
    *_cases("lstm", 16, 120, 96, 160, modes=ALL_BUT_STREAM),
    *_cases("lstm", 64, 200, 128, 256, lengths=ALL_LENGTHS),
    *_cases("lstm", 64, 200, 128, 256, lengths=("dense", "uniform"), modes=["step"]),
    *_cases("lstm", 64, 100, 256, 256),
    *_cases("lstm", 64, 50, 512, 512),
    *_cases("lstm", 128, 20, 1024, 1024),
    *_cases("lstm", 32, 100, 64, 128),
    *_cases("lstm", 8, 4000, 64, 64),
    *_cases("lstm", 1, 150, 64, 64, modes=("train", "stream")),
    *_cases("lstm", 1, 150, 128, 128, modes=["stream"]),
    *_cases("lstm", 1, 1000, 256, 256, modes=["stream"]),
    *_cases("gru", 48, 80, 192, 320),
    *_cases("gru", 16, 120, 96, 160),
    *_cases("gru_after", 48, 80, 192, 320),
    *_cases("gru_after", 16, 120, 96, 160),
    *_cases("rnn", 32, 100, 128, 128),
    *_cases("lstm2", 32, 100, 128, 128),
    *_cases("peephole", 32, 100, 128, 128),
    *_cases("mgu", 32, 100, 128, 128),
    *(
        case
        for time in (250, 500, 1000, 2000, 4000)
        for case in _cases("lstm", 8, time, 64, 64, modes=["train"], group="scaling")
    ),
]

QUICK = [
    *_cases("lstm", 16, 120, 96, 160),
    *_cases("lstm", 64, 200, 128, 256, lengths=("uniform", "short"), modes=["train"]),
    *_cases("gru", 16, 120, 96, 160, modes=["train"]),
    *_cases("lstm", 1, 150, 128, 128, modes=["stream"]),
]

SMOKE = [
    *_cases("lstm", 3, 8, 4, 5, lengths=["uniform"]),
    *_cases("lstm2", 3, 8, 4, 5, modes=["step"]),
    *_cases("peephole", 3, 8, 4, 5, modes=["train"]),
    *_cases("gru", 3, 8, 4, 5, modes=["train"]),
    *_cases("gru_after", 3, 8, 4, 5, modes=["train"]),
    *_cases("rnn", 3, 8, 4, 5, lengths=["one_long"], modes=["train"]),
    *_cases("mgu", 1, 8, 4, 5, modes=["stream"]),
    *_cases("lstm", 2, 16, 4, 5, modes=["train"], group="scaling"),
    *_cases("lstm", 2, 32, 4, 5, modes=["train"], group="scaling"),
]

PRESETS = {"smoke": SMOKE, "quick": QUICK, "full": FULL}
TAKES = {"smoke": "seconds, with tiny sizes", "quick": "minutes", "full": "hours"}
