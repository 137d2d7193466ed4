"""What is timed: cells, sizes, and the numbers of steps of the growth."""

from ..core.cases import Case, make_cases

CELLS = ("MinGRU", "MinLSTM", "QRNN", "SRU", "LRU", "RGLRU", "MLSTM", "SLSTM")
GROWING = ("MinGRU", "LRU", "RGLRU")

# Steps of the race, and units; the growth goes from an eighth of the steps to 8 times.
PRESETS = {"smoke": (64, 8), "full": (8192, 256)}
TAKES = {"smoke": "minutes", "full": "a quarter of an hour"}


def cases(steps: int, units: int) -> list[Case]:
    """The race, then the growth, whose middle is in the race."""
    race = [
        case
        for cell in CELLS
        for batch in (1, 8)
        for case in make_cases(cell, batch, steps, units, units)
    ]
    lengths = [max(1, steps // 8) << k for k in range(7)]
    return race + [
        case
        for cell in GROWING
        for time in lengths
        if time != steps
        for case in make_cases(cell, 1, time, units, units, group="growth")
    ]
